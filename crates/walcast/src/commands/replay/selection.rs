//! Which changes a replay prints.

use walcast_model::{Change, Cursor, Part, Timestamp};
use walcast_protocol::TablePattern;

use super::Place;
use crate::cli::ReplayArgs;
use crate::commands::tail::qualified;
use crate::output::Failure;

/// What was asked for, and how much of it is still to come.
#[derive(Debug)]
pub(super) struct Selection {
    /// Empty for all; with whether a change of it was there.
    tables: Vec<(TablePattern, bool)>,
    from: Option<Place>,
    to: Option<Place>,
    /// Transactions still to be printed.
    left: Option<u64>,
    /// A part of the transaction was printed, its end was not.
    inside: bool,
    /// Whether anything was printed.
    has_found: bool,
}

impl Selection {
    pub(super) fn new(args: &ReplayArgs) -> Result<Self, Failure> {
        let parse = |table: &String| {
            let pattern = qualified(table).parse::<TablePattern>();
            pattern.map(|pattern| (pattern, false)).map_err(|error| Failure::usage(error.to_string()))
        };
        let tables = args.tables.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { tables, from: args.from, to: args.to, left: args.limit, inside: false, has_found: false })
    }

    /// The cursor to begin at, when one was given. A time is no place: commit times do not follow the order of the
    /// feed exactly, so every transaction is asked for its own.
    pub(super) const fn from(&self) -> Option<Cursor> {
        match self.from {
            Some(Place::Cursor(cursor)) => Some(cursor),
            _ => None,
        }
    }

    /// The cursor to end before.
    pub(super) const fn to(&self) -> Cursor {
        match self.to {
            Some(Place::Cursor(cursor)) => cursor,
            _ => Cursor::MAX,
        }
    }

    /// What was looked at, as it was asked for: `from` and `to` are where history was read. Where times were given it is they
    /// that leave changes out.
    pub(super) fn range(&self, from: Cursor, to: Cursor) -> String {
        let time = |place: Option<Place>| place.filter(|place| matches!(place, Place::Time(_)));
        let from = time(self.from).unwrap_or(Place::Cursor(from));
        let to = time(self.to).unwrap_or(Place::Cursor(to));
        format!("from {from} to {to}")
    }

    /// Whether all tables were asked for, and nothing was found.
    pub(super) const fn is_empty(&self) -> bool {
        self.tables.is_empty() && !self.has_found
    }

    /// Whether `--limit` is reached.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The part's changes that are to be printed; `None` to leave the part out. Empty for the end of a transaction of
    /// which something was printed.
    pub(super) fn take<'a>(&mut self, part: &'a Part) -> Option<Vec<&'a Change>> {
        if !self.has_time(part.transaction().committed_at) {
            return None;
        }
        let is_all = self.tables.is_empty();
        let mut wanted = |change: &&Change| {
            let name = change.relation.name();
            let matching = self.tables.iter_mut().filter(|(table, _)| table.matches(name));
            is_all || matching.map(|(_, was_there)| *was_there = true).count() > 0
        };
        let changes: Vec<&Change> = part.changes().iter().filter(|change| wanted(change)).collect();
        let is_end = part.end().is_some();
        let shown = !changes.is_empty() || (self.inside && is_end);
        if shown {
            self.has_found = true;
            self.inside = !is_end;
            if is_end {
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
        }
        shown.then_some(changes)
    }

    /// What was asked for by name and not met with so far.
    pub(super) fn absent(&self) -> impl Iterator<Item = &TablePattern> {
        self.tables.iter().filter(|(_, was_there)| !was_there).map(|(table, _)| table)
    }

    fn has_time(&self, committed_at: Timestamp) -> bool {
        let after = |place| matches!(place, Some(Place::Time(time)) if committed_at < time);
        let before = |place| matches!(place, Some(Place::Time(time)) if committed_at >= time);
        !after(self.from) && !before(self.to)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_model::{
        CommitEnd, CommitStart, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName, ReplicaIdentity,
        Seq, Timestamp, Transaction, Xid,
    };

    use super::{Place, Selection};

    fn part(committed_at: i64, tables: &[&str], is_end: bool) -> Part {
        let transaction = Transaction {
            start: CommitStart::new(Lsn::new(100)),
            xid: Xid::new(7),
            committed_at: Timestamp::from_postgres_micros(committed_at),
        };
        let mut builder = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
        for table in tables {
            let name = RelationName::new("public", *table);
            let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, Vec::new()));
            builder.change(Op::Truncate, &relation).finish().unwrap();
        }
        builder.finish(is_end.then(|| CommitEnd::new(Lsn::new(120))))
    }

    fn selection(tables: &[&str], left: Option<u64>) -> Selection {
        let tables = tables.iter().map(|table| (table.parse().unwrap(), false)).collect();
        Selection { tables, from: None, to: None, left, inside: false, has_found: false }
    }

    #[test]
    fn the_end_of_a_transaction_that_was_begun_is_printed_even_when_it_is_empty() {
        let mut selection = selection(&["public.a"], Some(1));
        let count =
            |selection: &mut Selection, part: &Part| selection.take(part).map(|changes| changes.len());
        assert_eq!(count(&mut selection, &part(0, &["b"], true)), None);
        assert_eq!(count(&mut selection, &part(0, &["a", "b", "a"], false)), Some(2));
        assert_eq!(count(&mut selection, &part(0, &["b"], false)), None);
        assert!(!selection.is_done());
        assert_eq!(count(&mut selection, &part(0, &["b"], true)), Some(0));
        assert!(selection.is_done());
    }

    #[test]
    fn what_is_asked_for_and_not_there_is_known() {
        let mut selection = selection(&["public.a", "public.b", "shop.*"], None);
        selection.take(&part(0, &["a", "c"], true));
        let absent: Vec<String> = selection.absent().map(ToString::to_string).collect();
        assert_eq!(absent, ["public.b", "shop.*"]);
    }

    #[test]
    fn the_range_is_said_as_it_was_asked_for() {
        let cursor = |text: &str| text.parse::<walcast_model::Cursor>().unwrap();
        let time: Place = "2026-11-21T14:05:00Z".parse().unwrap();
        let mut selection = selection(&[], None);
        let said = |selection: &Selection| selection.range(cursor("0/1"), cursor("0/9"));
        assert_eq!(said(&selection), "from 0/1 to 0/9");
        selection.from = Some(time);
        assert_eq!(said(&selection), format!("from {time} to 0/9"));
        assert!(time.to_string().starts_with("2026-11-21T14:05:00"), "{time}");
        (selection.from, selection.to) = (Some(Place::Cursor(cursor("0/1"))), Some(time));
        assert_eq!(said(&selection), format!("from 0/1 to {time}"));
        assert!(selection.is_empty());
        selection.take(&part(0, &["a"], true));
        assert!(!selection.is_empty());
    }

    #[test]
    fn times_are_half_open_like_cursors() {
        let time = |micros| Some(Place::Time(Timestamp::from_postgres_micros(micros)));
        let mut selection = Selection { from: time(10), to: time(20), ..selection(&[], None) };
        let taken: Vec<i64> = [9, 10, 19, 20]
            .into_iter()
            .filter(|at| selection.take(&part(*at, &["a"], true)).is_some())
            .collect();
        assert_eq!(taken, [10, 19]);
    }
}
