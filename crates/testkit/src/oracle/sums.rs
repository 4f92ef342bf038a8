//! The invariant of pgbench's TPC-B: at every transaction boundary four sums agree.

use std::collections::BTreeMap;

use super::copies::{Applied, Copies, Row};

const SUMMED: [(&str, &str); 4] = [
    ("public.pgbench_accounts", "abalance"),
    ("public.pgbench_tellers", "tbalance"),
    ("public.pgbench_branches", "bbalance"),
    ("public.pgbench_history", "delta"),
];

/// The sums over the four tables, kept up as changes are applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums(BTreeMap<&'static str, i64>);

impl Sums {
    /// The sums of the copies as they are; `None` when the four tables are not all there.
    pub(crate) fn of(copies: &Copies) -> Option<Self> {
        let mut sums = BTreeMap::new();
        for (table, column) in SUMMED {
            let rows = copies.rows_of(table)?;
            sums.insert(table, rows.map(|row| value(row, column)).sum());
        }
        Some(Self(sums))
    }

    pub(crate) fn apply(&mut self, table: &str, applied: &Applied) {
        let Some((table, column)) = SUMMED.iter().find(|(name, _)| *name == table) else { return };
        let sum = self.0.entry(table).or_default();
        match applied {
            Applied::Row { before, after } => {
                let of = |row: &Option<Row>| row.as_ref().map_or(0, |row| value(row, column));
                *sum += of(after) - of(before);
            }
            Applied::Truncated => *sum = 0,
        }
    }

    /// `None` when they agree, else all four.
    pub(crate) fn disagree(&self) -> Option<String> {
        let first = self.0.values().next()?;
        (!self.0.values().all(|sum| sum == first)).then(|| format!("{:?}", self.0))
    }
}

fn value(row: &Row, column: &str) -> i64 {
    row.get(column).and_then(|text| text.parse().ok()).unwrap_or(0)
}
