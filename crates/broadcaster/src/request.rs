//! What a subscription wants, parsed once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use walcast_model::RelationName;
use walcast_protocol::{Catchup, ErrorCode, Payload, StartAt, Subscribe, SubscriptionId, TablePattern};

use crate::refusal::Refusal;

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

/// What a shape wants, looked up by the name of a table.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    key: ShapeKey,
    /// The answer of [`ShapeKey::wants`] for names that are listed, without going through them all.
    named: HashMap<RelationName, Selection>,
}

impl Wanted {
    pub(crate) fn new(key: ShapeKey) -> Self {
        let named = key.named().map(|(name, selection)| (name.clone(), selection.clone())).collect();
        Self { key, named }
    }

    pub(crate) const fn key(&self) -> &ShapeKey {
        &self.key
    }

    /// What it wants of a table.
    pub(crate) fn of(&self, name: &RelationName) -> Option<&Selection> {
        self.named.get(name).or_else(|| if self.key.has_wildcard() { self.key.wants(name) } else { None })
    }
}

/// A `subscribe` that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: SubscriptionId,
    pub(crate) shape: ShapeKey,
    pub(crate) start: StartAt,
    pub(crate) feed: Option<walcast_model::FeedId>,
    pub(crate) catchup: Catchup,
}

impl TryFrom<Subscribe> for Request {
    type Error = Refusal;

    fn try_from(message: Subscribe) -> Result<Self, Refusal> {
        // `client_id` alone asks for nothing: it names who would acknowledge.
        let Subscribe { id, tables, cursor, feed, client_id: _, origin, payload, catchup } = message;
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
        Ok(Self { id, shape: ShapeKey { tables: selections }, start: cursor, feed, catchup })
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
