//! What a subscription asks for, parsed once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walcast_filter::Filter;
use walcast_model::Meta;
use walcast_protocol::{Catchup, ErrorCode, Payload, StartAt, Subscribe, SubscriptionId, TablePattern};

use crate::refusal::Refusal;

/// The longest `client_id`, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// What a client asks for of a table, or of the tables of a pattern.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Asked {
    /// The columns of its rows, beside those of the key; `None` for all.
    pub(crate) columns: Option<BTreeSet<String>>,
    /// Its rows, `None` for all. Only of tables that are named.
    pub(crate) rows: Option<Filter>,
    /// Whether rows come with their changes.
    pub(crate) payload: Payload,
}

/// What a client calls itself: 1 to 128 bytes without control characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClientId(String);

impl ClientId {
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for ClientId {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        if text.is_empty() || text.len() > CLIENT_ID_BYTES_MAX || has_control(&text) {
            let message =
                format!("a client_id has 1 to {CLIENT_ID_BYTES_MAX} bytes and no control characters");
            return Err(Refusal::bad(message).hint("make a UUID once, and keep it beside what is stored"));
        }
        Ok(Self(text))
    }
}

/// Postgres has no place for some of them in a text.
pub(crate) fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A `subscribe` that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) id: SubscriptionId,
    pub(crate) tables: BTreeMap<TablePattern, Asked>,
    pub(crate) start: StartAt,
    pub(crate) feed: Option<walcast_model::FeedId>,
    /// Who acknowledges what it has stored.
    pub(crate) client_id: Option<ClientId>,
    /// Transactions that say that they come from here are its own, and not sent back.
    pub(crate) origin: Option<Arc<str>>,
    pub(crate) catchup: Catchup,
}

impl TryFrom<Subscribe> for Request {
    type Error = Refusal;

    fn try_from(message: Subscribe) -> Result<Self, Refusal> {
        let Subscribe { id, tables: entries, cursor, feed, client_id, origin, payload, catchup } = message;
        if entries.is_empty() {
            let hint = r#"write "tables": [{"table": "schema.table"}], or schema.* or * for many"#;
            return Err(Refusal::bad("a subscription names at least one table").hint(hint));
        }
        let origin = origin.map(self::origin).transpose()?;
        let client_id = client_id.map(ClientId::try_from).transpose()?;
        if cursor == StartAt::Acked && client_id.is_none() {
            let refusal = Refusal::bad("the cursor \"acked\" is what a client_id has acknowledged");
            return Err(refusal.hint("send the client_id with which the client acknowledges"));
        }
        if client_id.is_some() && has_control(id.as_str()) {
            return Err(Refusal::bad("with a client_id, the id has no control characters"));
        }
        let mut tables = BTreeMap::new();
        for entry in entries {
            let rows = entry.filter.as_deref().map(|text| filter(&entry.table, text)).transpose()?;
            let asked = Asked { columns: entry.columns.map(BTreeSet::from_iter), rows, payload };
            if tables.insert(entry.table.clone(), asked).is_some() {
                return Err(Refusal::bad(format!("{} is named twice in one subscription", entry.table)));
            }
        }
        Ok(Self { id, tables, start: cursor, feed, client_id, origin, catchup })
    }
}

fn origin(text: String) -> Result<Arc<str>, Refusal> {
    if text.is_empty() || text.len() > Meta::ORIGIN_BYTES_MAX {
        let hint =
            "send what the client's own transactions say with walcast.set_meta, such as the device's UUID";
        return Err(Refusal::bad(format!("an origin has 1 to {} bytes", Meta::ORIGIN_BYTES_MAX)).hint(hint));
    }
    Ok(text.into())
}

fn filter(table: &TablePattern, text: &str) -> Result<Filter, Refusal> {
    let TablePattern::Table(name) = table else {
        let message = format!("where is for a table that is named, and {table} is a pattern");
        let hint = "name each table with its where; a pattern may stand beside them for the others";
        return Err(Refusal::new(ErrorCode::BadFilter, message).hint(hint));
    };
    Filter::parse(text).map_err(|error| Refusal::bad_filter(name, &error))
}

#[cfg(test)]
mod tests {
    use walcast_protocol::ErrorCode;

    use crate::testing::request;

    #[test]
    fn what_cannot_be_done_is_refused_and_named() {
        let refused = [
            (r#""tables":[]"#, ErrorCode::BadMessage, "at least one table"),
            (r#""tables":[{"table":"a.t"},{"table":"a.t"}]"#, ErrorCode::BadMessage, "named twice"),
            (r#""tables":[{"table":"a.t","where":"x = "}]"#, ErrorCode::BadFilter, "a.t"),
            (r#""tables":[{"table":"a.t","where":"x = (SELECT 1)"}]"#, ErrorCode::BadFilter, "a.t"),
            (r#""tables":[{"table":"a.*","where":"x = 1"}]"#, ErrorCode::BadFilter, "pattern"),
            (r#""tables":[{"table":"*"}],"origin":"""#, ErrorCode::BadMessage, "origin"),
            (r#""tables":[{"table":"*"}],"cursor":"acked""#, ErrorCode::BadMessage, "acked"),
            (r#""tables":[{"table":"*"}],"client_id":"""#, ErrorCode::BadMessage, "client_id"),
            (r#""tables":[{"table":"*"}],"client_id":"a\u0000""#, ErrorCode::BadMessage, "client_id"),
        ];
        for (fields, code, words) in refused {
            let refusal = request(fields).unwrap_err();
            assert_eq!(refusal.code, code, "{fields}");
            assert!(refusal.message.contains(words), "{refusal}");
        }
    }

    #[test]
    fn a_filter_over_a_limit_is_a_limit() {
        let fields = format!(r#""tables":[{{"table":"a.t","where":"x = '{}'"}}]"#, "y".repeat(20_000));
        assert_eq!(request(&fields).unwrap_err().code, ErrorCode::LimitExceeded);
    }
}
