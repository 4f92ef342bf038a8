mod definitions;
mod filters;
mod opening;
mod resuming;
mod rights;
mod syncing;

use walcast_model::{Cursor, Part};
use walcast_protocol::ServerMessage;

/// Every change of the log that a subscription to `tables` sees from `cursor` on: its id.
pub(super) fn rest(parts: &[Part], tables: &[&str], cursor: Cursor) -> Vec<u64> {
    let mut ids = Vec::new();
    for part in parts {
        for (index, change) in part.changes().iter().enumerate() {
            let place = Cursor::new(part.transaction().start.lsn(), part.first().plus(index));
            if place >= cursor && tables.contains(&change.relation.name().table.as_str()) {
                ids.push(id_of(std::str::from_utf8(part.key(change).unwrap()).unwrap()));
            }
        }
    }
    ids
}

fn id_of(object: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(object).unwrap();
    value["id"].as_u64().unwrap()
}

/// The ids in `transaction` messages, having checked that cursors grow, that a transaction with `more` is ended before
/// another begins, and that a table's definition comes before its rows.
pub(super) fn delivered(messages: &[ServerMessage], from: Cursor) -> Vec<u64> {
    let (mut ids, mut last, mut open) = (Vec::new(), from, None);
    let mut known = Vec::new();
    for message in messages {
        match message {
            ServerMessage::Relation(relation) => known.push(relation.table.clone()),
            ServerMessage::Transaction(transaction) => {
                let cursor = transaction.cursor.unwrap();
                assert!(cursor > last, "{cursor} after {last}");
                last = cursor;
                assert!(open.is_none_or(|open| open == transaction.lsn), "{open:?} is not ended");
                open = transaction.more.then_some(transaction.lsn);
                for change in &transaction.changes {
                    assert!(known.contains(&change.table));
                    ids.push(id_of(change.key.as_ref().unwrap().get()));
                }
            }
            _ => {}
        }
    }
    assert_eq!(open, None, "the last transaction is not ended");
    ids
}
