//! What a subscription wants, parsed once, and what is kept for all sessions that want the same.

mod traffic;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use walcast_model::{Cursor, Part, RelationName};
use walcast_protocol::{ErrorCode, Payload, StartAt, Subscribe, SubscriptionId, TablePattern};

use crate::encode::{self, Encoded, View};
use crate::refusal::Refusal;
use traffic::Traffic;
pub(crate) use traffic::{Next, Noted};

/// What a subscription wants of one table.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Selection {
    /// The columns of its rows, beside those of the key, which always come; `None` for all. Names that a table does
    /// not have stand for nothing.
    pub(crate) columns: Option<BTreeSet<String>>,
    // Which rows: filters and policies (issue 4) take their place here, as part of what makes two shapes the same,
    // and `encode::plan` asks them change by change.
}

/// What makes two subscriptions the same for everything but their id and position.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ShapeKey {
    pub(crate) tables: BTreeMap<TablePattern, Selection>,
}

impl ShapeKey {
    /// What it wants of a table, `None` for nothing. The entry that says most about the table counts: its own name
    /// before its schema's, that before `*`.
    pub(crate) fn wants(&self, name: &RelationName) -> Option<&Selection> {
        let by_rank = |pattern: &TablePattern| match pattern {
            TablePattern::Table(_) => 2,
            TablePattern::Schema(_) => 1,
            TablePattern::All => 0,
        };
        let matching = self.tables.iter().filter(|(pattern, _)| pattern.matches(name));
        matching.max_by_key(|(pattern, _)| by_rank(pattern)).map(|(_, selection)| selection)
    }

    /// Whether tables that do not exist yet can be part of it.
    pub(crate) fn has_wildcard(&self) -> bool {
        self.tables.keys().any(|pattern| !matches!(pattern, TablePattern::Table(_)))
    }

    /// The tables that it names one by one.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&RelationName, &Selection)> {
        self.tables.iter().filter_map(|(pattern, selection)| match pattern {
            TablePattern::Table(name) => Some((name, selection)),
            TablePattern::Schema(_) | TablePattern::All => None,
        })
    }
}

/// A `subscribe` that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: SubscriptionId,
    pub(crate) shape: ShapeKey,
    pub(crate) start: StartAt,
    pub(crate) feed: Option<walcast_model::FeedId>,
}

impl TryFrom<Subscribe> for Request {
    type Error = Refusal;

    fn try_from(message: Subscribe) -> Result<Self, Refusal> {
        // `client_id` alone asks for nothing: it names who would acknowledge.
        let Subscribe { id, tables, cursor, feed, client_id: _, origin, payload } = message;
        if tables.is_empty() {
            let hint = r#"write "tables": [{"table": "schema.name"}], or schema.* or * for many"#;
            return Err(Refusal::bad("a subscription names at least one table").hint(hint));
        }
        if origin.is_some() {
            return Err(Refusal::not_available(ErrorCode::BadMessage, "origin"));
        }
        if payload != Payload::Row {
            return Err(Refusal::not_available(ErrorCode::BadMessage, "a payload other than \"row\""));
        }
        if cursor == StartAt::Acked {
            let refusal = Refusal::not_available(ErrorCode::BadMessage, "the cursor \"acked\"");
            return Err(
                refusal.hint("store the cursor of each transaction with its changes, and resume there")
            );
        }
        let mut selections = BTreeMap::new();
        for entry in tables {
            if entry.filter.is_some() {
                return Err(Refusal::not_available(ErrorCode::BadFilter, "where"));
            }
            let selection = Selection { columns: entry.columns.map(BTreeSet::from_iter) };
            if selections.insert(entry.table.clone(), selection).is_some() {
                return Err(Refusal::bad(format!("{} is named twice in one subscription", entry.table)));
            }
        }
        Ok(Self { id, shape: ShapeKey { tables: selections }, start: cursor, feed })
    }
}

/// A shape in use: shared by all sessions with the same [`ShapeKey`], whatever they call it.
///
/// It knows which recent parts concern it (the router tells), keeps their frames encoded when several sessions
/// want them, and wakes its sessions and nobody else's.
#[derive(Debug)]
pub(crate) struct Shape {
    key: ShapeKey,
    /// The answer of [`ShapeKey::wants`] for names that are listed, without going through them all.
    named: HashMap<RelationName, Selection>,
    // Short synchronous sections: a binary search, or the encoding of one part that others wait for anyway.
    traffic: Mutex<Traffic>,
    /// After the newest part that concerns it.
    concerned: watch::Sender<Cursor>,
    /// How many sessions have it; the router's business.
    pub(crate) sessions: AtomicUsize,
}

impl Shape {
    /// A shape that the router tells of everything from `since` on.
    pub(crate) fn new(key: ShapeKey, since: Cursor, hits_max: usize) -> Self {
        let named = key.named().map(|(name, selection)| (name.clone(), selection.clone())).collect();
        let traffic = Mutex::new(Traffic::new(since, hits_max));
        Self { key, named, traffic, concerned: watch::Sender::new(since), sessions: AtomicUsize::new(0) }
    }

    pub(crate) const fn key(&self) -> &ShapeKey {
        &self.key
    }

    /// What it wants of a table.
    pub(crate) fn wants(&self, name: &RelationName) -> Option<&Selection> {
        self.named.get(name).or_else(|| if self.key.has_wildcard() { self.key.wants(name) } else { None })
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a part concerns it, without waking anybody; the same part again changes nothing.
    pub(crate) fn note(&self, part: &Part) -> Noted {
        self.traffic().note(part.cursor(), part.next_cursor())
    }

    /// Wakes its sessions: there may be something before `until`.
    pub(crate) fn wake(&self, until: Cursor) {
        self.traffic().woken();
        self.concerned.send_if_modified(|current| {
            let moved = *current < until;
            *current = until.max(*current);
            moved
        });
    }

    /// Says that the router did not see what is before `oldest`: whoever is before it has to look for himself.
    pub(crate) fn overtaken(&self, oldest: Cursor) {
        self.traffic().overtaken(oldest);
        self.wake(oldest);
    }

    /// Sees when there is something for its sessions.
    pub(crate) fn watch(&self) -> watch::Receiver<Cursor> {
        self.concerned.subscribe()
    }

    /// What comes after `cursor`, as far as the router has told. Ask the router how far that is *before*.
    pub(crate) fn next(&self, cursor: Cursor) -> Next {
        self.traffic().next(cursor)
    }

    /// The frames of a whole part. With `keep` they are kept for others if the part is among those that concern
    /// the shape; the answer says how many bytes that took.
    pub(crate) fn encoded(&self, part: &Part, keep: bool) -> (Arc<Encoded>, Option<usize>) {
        if !keep {
            return (Arc::new(encode::part(part, self, View::whole())), None);
        }
        let mut traffic = self.traffic();
        if let Some(encoded) = traffic.encoded(part.cursor()) {
            return (encoded, None);
        }
        // Inside the lock, so that of the sessions that were woken together one encodes and the others take it.
        let encoded = Arc::new(encode::part(part, self, View::whole()));
        let kept = traffic.keep(part.cursor(), &encoded).then(|| encoded.bytes());
        (encoded, kept)
    }

    /// Forgets the frames of one part.
    pub(crate) fn forget(&self, cursor: Cursor) {
        self.traffic().forget(cursor);
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::RelationName;
    use walcast_protocol::{ClientMessage, ErrorCode};

    use super::Request;
    use crate::refusal::Refusal;

    fn request(fields: &str) -> Result<Request, Refusal> {
        let text = format!(r#"{{"type":"subscribe","id":"a",{fields}}}"#);
        let ClientMessage::Subscribe(message) = ClientMessage::decode(&text).unwrap() else {
            panic!("{text}")
        };
        message.try_into()
    }

    #[test]
    fn the_entry_that_says_most_about_a_table_counts() {
        let tables =
            r#""tables":[{"table":"*"},{"table":"a.*","columns":["x"]},{"table":"a.t","columns":["y"]}]"#;
        let shape = request(tables).unwrap().shape;
        let columns = |schema, table| {
            let selection = shape.wants(&RelationName::new(schema, table)).unwrap();
            selection.columns.as_ref().map(|columns| columns.iter().cloned().collect::<Vec<_>>().join(","))
        };
        assert_eq!(columns("a", "t").as_deref(), Some("y"));
        assert_eq!(columns("a", "u").as_deref(), Some("x"));
        assert_eq!(columns("b", "t"), None);
        let shape = request(r#""tables":[{"table":"a.*"}]"#).unwrap().shape;
        assert!(shape.wants(&RelationName::new("b", "t")).is_none());
    }

    #[test]
    fn the_order_of_tables_and_columns_does_not_matter() {
        let one = request(r#""tables":[{"table":"a.t","columns":["x","y"]},{"table":"b.*"}]"#).unwrap();
        let other = request(r#""tables":[{"table":"b.*"},{"table":"a.t","columns":["y","x"]}]"#).unwrap();
        assert_eq!(one.shape, other.shape);
    }

    #[test]
    fn what_this_version_cannot_do_is_refused_and_named() {
        let refused = [
            (r#""tables":[]"#, ErrorCode::BadMessage, "at least one table"),
            (r#""tables":[{"table":"a.t"},{"table":"a.t"}]"#, ErrorCode::BadMessage, "named twice"),
            (r#""tables":[{"table":"a.t","where":"x = 1"}]"#, ErrorCode::BadFilter, "not available"),
            (r#""tables":[{"table":"*"}],"origin":"me""#, ErrorCode::BadMessage, "origin"),
            (r#""tables":[{"table":"*"}],"payload":"key""#, ErrorCode::BadMessage, "payload"),
            (r#""tables":[{"table":"*"}],"cursor":"acked""#, ErrorCode::BadMessage, "acked"),
        ];
        for (fields, code, words) in refused {
            let refusal = request(fields).unwrap_err();
            assert_eq!(refusal.code, code, "{fields}");
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }
}
