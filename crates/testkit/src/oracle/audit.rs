//! `change_history` and the tables, read over SQL.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use walcast_model::Lsn;

use super::change::{Fields, digest};
use super::ledger::{Entry, Ledger};
use super::truth::{Shape, digest_of};
use super::verdict::{Violation, ViolationKind};
use super::wal::table_name;
use crate::TestSession;

type Failure = Box<dyn Error + Send + Sync>;

/// Compares `change_history` with the ledger, change by change; remembers how far it has come.
#[derive(Debug)]
pub struct Audit {
    ledger: Arc<Ledger>,
    next: usize,
    /// Where the last transaction ended that was compared: nothing is stored between it and the next one.
    from: Option<Lsn>,
    changes: u64,
}

/// A stored transaction.
struct Stored {
    lsn: Lsn,
    xid: i64,
    end: Option<Lsn>,
    seq: i64,
    digests: Vec<u64>,
}

impl Audit {
    /// An audit that begins where the ledger begins.
    #[must_use]
    pub fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), next: 0, from: None, changes: 0 }
    }

    /// Changes compared so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Transactions compared so far.
    #[must_use]
    pub fn transactions(&self) -> usize {
        self.next
    }

    /// Compares what is stored by now. `Ok(Err)` when the history cannot be read at the moment.
    ///
    /// # Errors
    ///
    /// When what is stored is not what was committed, or not what was told.
    pub async fn run(&mut self, session: &TestSession) -> Result<Result<(), Failure>, Violation> {
        match self.compare(session).await {
            Ok(outcome) => outcome.map(Ok),
            Err(failure) => Ok(Err(failure)),
        }
    }

    async fn compare(&mut self, session: &TestSession) -> Result<Result<(), Violation>, Failure> {
        const AT_ONCE: usize = 20_000;
        let row = session.query_one("SELECT position_lsn::text FROM walcast.feed", &[]).await?;
        let stored: Lsn = row.get::<_, String>(0).parse()?;
        let entries = self.ledger.entries(self.next, AT_ONCE);
        let entries: Vec<Entry> = entries.into_iter().take_while(|entry| entry.end <= stored).collect();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(Ok(())) };
        let sql = format!(
            r#"SELECT lsn::text, seq, xid, commit_end::text, op, schema_name, table_name, key, "row", old, unchanged
               FROM walcast.change_history AS h WHERE h.lsn >= '{}' AND h.lsn < '{}' ORDER BY h.lsn, h.seq"#,
            self.from.unwrap_or(first.begin),
            last.end
        );
        let nothing: [&(dyn ToSql + Sync); 0] = [];
        let rows = session.query_raw(&sql, nothing).await?;
        futures_util::pin_mut!(rows);
        let mut expected = entries.iter();
        let mut open: Option<Stored> = None;
        while let Some(row) = rows.try_next().await? {
            let lsn: Lsn = row.get::<_, String>(0).parse()?;
            if open.as_ref().is_some_and(|open| open.lsn != lsn)
                && let Some(stored) = open.take()
                && let Err(violation) = check(expected.next(), &stored)
            {
                return Ok(Err(violation));
            }
            let stored = open.get_or_insert_with(|| Stored {
                lsn,
                xid: row.get(2),
                end: None,
                seq: 0,
                digests: Vec::new(),
            });
            let (seq, end): (i64, Option<String>) = (row.get(1), row.get(3));
            if seq != stored.seq || stored.end.is_some() {
                let text = format!("change_history has seq {seq} of {lsn} where {} belongs", stored.seq);
                return Ok(Err(Violation::torn(text)));
            }
            stored.seq += 1;
            stored.end = end.map(|end| end.parse()).transpose()?;
            let table = table_name(row.get(5), row.get(6));
            stored.digests.push(digest(
                row.get(4),
                &table,
                [row.get(7), row.get(8), row.get(9), row.get(10)],
            ));
            self.changes += 1;
        }
        if let Some(stored) = open
            && let Err(violation) = check(expected.next(), &stored)
        {
            return Ok(Err(violation));
        }
        if let Some(entry) = expected.next() {
            let text = format!("change_history does not have {}", entry.describe());
            return Ok(Err(Violation::new(ViolationKind::Lost, text)));
        }
        self.next += entries.len();
        self.from = Some(last.end);
        Ok(Ok(()))
    }
}

fn check(entry: Option<&Entry>, stored: &Stored) -> Result<(), Violation> {
    let about =
        format!("change_history has {} (xid {}, {} changes)", stored.lsn, stored.xid, stored.digests.len());
    let Some(entry) = entry.filter(|entry| entry.begin <= stored.lsn) else {
        return Err(Violation::wrong(format!("{about}, which was not committed")));
    };
    if entry.begin != stored.lsn {
        return Err(Violation::new(ViolationKind::Lost, format!("{about} and not {}", entry.describe())));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the WAL has the lower half")]
    let xid = stored.xid as u32;
    if (entry.xid, Some(entry.end), entry.count) != (xid, stored.end, stored.digests.len()) {
        return Err(Violation::torn(format!("{about}, ended by {:?}: not {}", stored.end, entry.describe())));
    }
    match entry.told.get(Shape::everything().name()) {
        Some(told) if *told != digest_of(stored.digests.iter().copied()) => {
            Err(Violation::wrong(format!("{about}, in other words than a client was told")))
        }
        _ => Ok(()),
    }
}

/// What the server has in `table` now, as `to_jsonb` prints it.
///
/// # Errors
///
/// When the server cannot be asked.
pub async fn server_rows(session: &TestSession, table: &str) -> Result<Vec<Fields>, Failure> {
    const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex'; SET extra_float_digits = 3";
    session.batch_execute(SETTINGS).await?;
    let rows = session
        .query(&format!("SELECT to_jsonb(whole_row)::text FROM ONLY {table} AS whole_row"), &[])
        .await?;
    rows.iter().map(|row| Ok(Fields::parse(row.get(0))?)).collect()
}

/// What `change_history` has from `first` on, in order: the position and number in it of each change, its transaction's
/// id, and its digest.
pub(crate) async fn stored_changes(
    session: &TestSession,
    first: Lsn,
) -> Result<Vec<(Lsn, i64, i64, u64)>, Failure> {
    let sql = format!(
        r#"SELECT lsn::text, seq, xid, op, schema_name, table_name, key, "row", old, unchanged
           FROM walcast.change_history WHERE lsn >= '{first}' ORDER BY lsn, seq"#
    );
    let rows = session.query(&sql, &[]).await?;
    let change = |row: &Row| {
        let table = table_name(row.get(4), row.get(5));
        let digest = digest(row.get(3), &table, [row.get(6), row.get(7), row.get(8), row.get(9)]);
        Ok((row.get::<_, &str>(0).parse()?, row.get(1), row.get(2), digest))
    };
    rows.iter().map(change).collect()
}

/// The columns of `table` that are computed and not in the feed.
pub(crate) async fn generated_columns(
    session: &TestSession,
    table: &str,
) -> Result<BTreeSet<String>, Failure> {
    let sql = format!(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attgenerated <> '' AND NOT attisdropped"
    );
    Ok(session.query(&sql, &[]).await?.iter().map(|row| row.get(0)).collect())
}
