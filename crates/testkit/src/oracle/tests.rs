//! The oracle finds what it is there to find.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use walcast_model::{Cursor, Lsn};

use super::ledger::{Account, Ledger};
use super::subscription::Subscription;
use super::taken::{Storing, Taken};
use super::verdict::{Violation, ViolationKind};
use super::wal::{WalReader, WalTransaction};

/// Transaction `number` as Postgres commits it: one insert into `public.t (id int, text text)`.
fn committed(number: u64) -> WalTransaction {
    let mut reader = WalReader::default();
    let mut last = None;
    for message in [begin(number), relation(), insert(number), commit(number)] {
        last = reader.take(message);
    }
    last.expect("a transaction")
}

fn begin(number: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"B"[..]);
    bytes.put_u64(number * 100);
    bytes.put_u64(0);
    bytes.put_u32(u32::try_from(number).unwrap());
    bytes.freeze()
}

fn relation() -> Bytes {
    let mut bytes = BytesMut::from(&b"R\0\0\0\x07public\0t\0d\0\x02"[..]);
    for (key, name, kind) in [(1, "id", 23), (0, "text", 25)] {
        bytes.put_u8(key);
        bytes.put_slice(name.as_bytes());
        bytes.put_u8(0);
        bytes.put_u32(kind);
        bytes.put_i32(-1);
    }
    bytes.freeze()
}

fn insert(number: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"I\0\0\0\x07N\0\x02"[..]);
    for text in [number.to_string(), format!("body {number}")] {
        bytes.put_u8(b't');
        bytes.put_u32(u32::try_from(text.len()).unwrap());
        bytes.put_slice(text.as_bytes());
    }
    bytes.freeze()
}

fn commit(number: u64) -> Bytes {
    let mut bytes = BytesMut::from(&b"C\0"[..]);
    bytes.put_u64(number * 100);
    bytes.put_u64(number * 100 + 50);
    bytes.put_u64(0);
    bytes.freeze()
}

/// The same as a client is told it.
fn told(number: u64) -> Value {
    let (lsn, cursor) = (Lsn::new(number * 100), Lsn::new(number * 100 + 50));
    let row = json!({"id": number, "text": format!("body {number}")});
    json!({"type": "transaction", "id": "a", "lsn": lsn, "cursor": cursor, "xid": number, "committed_at": "",
           "changes": [{"op": "insert", "table": "public.t", "key": {"id": number}, "row": row}]})
}

fn heartbeat(position: u64) -> Value {
    json!({"type": "heartbeat", "time": "", "cursor": Lsn::new(position)})
}

/// A client of a ledger with transactions 1 to 9, subscribed from its beginning.
struct Trial {
    ledger: Arc<Ledger>,
    account: Account,
    subscription: Subscription,
}

impl Trial {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        let account = ledger.open(&["*"]);
        ledger.append((1..10).map(committed), Lsn::new(10_000));
        let cursor = Cursor::from(Lsn::new(1));
        let mut trial =
            Self { ledger, account, subscription: Subscription::at(cursor, Storing::Parts, true) };
        trial.account.begins(cursor);
        let subscribed = json!({"type": "subscribed", "id": "a", "mode": "catchup", "cursor": cursor});
        trial.take(&subscribed).unwrap();
        let columns = json!([{"name": "id", "type": "integer", "key": true, "nullable": false},
                             {"name": "text", "type": "text", "key": false, "nullable": true}]);
        let relation = json!({"type": "relation", "id": "a", "table": "public.t", "columns": columns, "replica_identity": "default"});
        trial.take(&relation).unwrap();
        trial
    }

    fn take(&mut self, message: &Value) -> Result<(), Violation> {
        for taken in self.subscription.take(&message.to_string())? {
            match taken {
                Taken::Transaction(delivered) => self.account.delivered(delivered),
                Taken::Passed(cursor) => self.account.passed(cursor.lsn(), "a heartbeat"),
                _ => {}
            }
        }
        self.ledger.settle(&mut self.account)
    }

    /// The first violation among these messages.
    fn finds(messages: &[Value]) -> Option<ViolationKind> {
        let mut trial = Self::new();
        messages.iter().find_map(|message| trial.take(message).err()).map(|violation| violation.kind)
    }
}

/// A message with one of its parts changed.
fn changed(mut message: Value, pointer: &str, value: Value) -> Value {
    *message.pointer_mut(pointer).expect("the part is there") = value;
    message
}

#[test]
fn what_was_committed_holds() {
    let messages = [told(1), told(2), heartbeat(299), told(3), heartbeat(350)];
    assert_eq!(Trial::finds(&messages), None);
}

#[test]
fn a_transaction_that_is_passed_over_is_lost() {
    assert_eq!(Trial::finds(&[told(1), told(3)]), Some(ViolationKind::Lost));
    // Nothing came after it, but a cursor says that it has come.
    assert_eq!(Trial::finds(&[told(1), heartbeat(250)]), Some(ViolationKind::Lost));
}

#[test]
fn a_transaction_that_comes_again_or_too_late_is_found() {
    assert_eq!(Trial::finds(&[told(1), told(1)]), Some(ViolationKind::Repeated));
    assert_eq!(Trial::finds(&[told(1), told(2), told(1)]), Some(ViolationKind::Reordered));
}

#[test]
fn what_was_delivered_again_after_a_resume_further_on_is_repeated() {
    let mut trial = Trial::new();
    trial.take(&told(1)).unwrap();
    trial.take(&told(2)).unwrap();
    // A connection that resumes after the second gets it once more.
    trial.subscription.cut();
    let cursor = trial.subscription.cursor().unwrap();
    trial.account.begins(cursor);
    let mut account = trial.ledger.open(&["*"]);
    account.begins(cursor);
    let mut fresh = Subscription::at(Cursor::from(Lsn::new(1)), Storing::Transactions, true);
    fresh.take(&json!({"type": "subscribed", "mode": "live", "cursor": "0/1"}).to_string()).unwrap();
    let relation = json!({"type": "relation", "table": "public.t", "columns": [{"name": "id", "type": "integer", "key": true},
        {"name": "text", "type": "text", "key": false}], "replica_identity": "default"});
    fresh.take(&relation.to_string()).unwrap();
    for taken in fresh.take(&told(2).to_string()).unwrap() {
        if let Taken::Transaction(delivered) = taken {
            account.delivered(delivered);
        }
    }
    let violation = trial.ledger.settle(&mut account).unwrap_err();
    assert_eq!(violation.kind, ViolationKind::Repeated, "{violation}");
}

#[test]
fn values_identity_and_position_are_those_that_were_committed() {
    for (pointer, value) in [
        ("/changes/0/row/text", json!("another")),
        ("/changes/0/row/text", Value::Null),
        ("/changes/0/key/id", json!(2)),
        ("/changes/0/op", json!("delete")),
        ("/xid", json!(2)),
        ("/cursor", json!("0/97")),
        ("/lsn", json!("0/65")),
    ] {
        let message = changed(told(1), pointer, value);
        assert!(Trial::finds(std::slice::from_ref(&message)).is_some(), "{message}");
    }
}

#[test]
fn mixed_parts_and_missing_ends_are_torn() {
    let open = |number: u64| {
        let mut message = told(number);
        message["more"] = json!(true);
        message["cursor"] = json!(format!("{}:1", Lsn::new(number * 100)));
        message
    };
    assert_eq!(Trial::finds(&[open(1), told(2)]), Some(ViolationKind::Torn));
    assert_eq!(Trial::finds(&[open(1), heartbeat(250)]), Some(ViolationKind::Torn));
    let wrong_count = changed(open(1), "/cursor", json!("0/64:2"));
    assert_eq!(Trial::finds(&[wrong_count]), Some(ViolationKind::Torn));
    let empty = changed(told(1), "/changes", json!([]));
    assert_eq!(Trial::finds(std::slice::from_ref(&empty)), Some(ViolationKind::Torn));
    assert_eq!(Trial::finds(&[open(1), empty]), None);
}

#[test]
fn a_part_that_was_stored_is_not_sent_again() {
    let mut trial = Trial::new();
    let mut open = told(1);
    open["more"] = json!(true);
    open["cursor"] = json!("0/64:1");
    trial.take(&open).unwrap();
    trial.subscription.cut();
    let cursor = trial.subscription.cursor().unwrap();
    assert_eq!(cursor.to_string(), "0/64:1");
    trial.account.begins(cursor);
    trial.take(&json!({"type": "subscribed", "mode": "live", "cursor": cursor})).unwrap();
    // There was nothing more of it, so the next one ends it.
    let relation = json!({"type": "relation", "table": "public.t", "columns": [{"name": "id", "type": "integer", "key": true},
        {"name": "text", "type": "text", "key": false}], "replica_identity": "default"});
    trial.take(&relation).unwrap();
    trial.take(&told(2)).unwrap();
    assert_eq!(trial.account.position(), 2);
}

#[test]
fn rows_need_their_relation_and_all_of_its_columns() {
    let mut short = told(1);
    short["changes"][0]["row"] = json!({"id": 1});
    assert_eq!(Trial::finds(&[short]), Some(ViolationKind::Wrong));
    let unknown = changed(told(1), "/changes/0/table", json!("public.u"));
    assert_eq!(Trial::finds(&[unknown]), Some(ViolationKind::Wrong));
    let mut kept = told(1);
    kept["changes"][0]["op"] = json!("update");
    kept["changes"][0]["row"] = json!({"id": 1});
    kept["changes"][0]["unchanged"] = json!(["text"]);
    assert!(Trial::finds(&[kept]).is_some(), "the WAL has the value");
}
