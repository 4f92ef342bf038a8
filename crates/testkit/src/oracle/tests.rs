//! The oracle finds what it is there to find.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use walcast_model::{Cursor, Lsn};

use super::audit::Audit;
use super::client::ClientBuilder;
use super::ledger::{Account, Ledger};
use super::subscription::Subscription;
use super::taken::{Storing, Taken};
use super::verdict::{Violation, ViolationKind};
use super::wal::{WalReader, WalTransaction};
use crate::{LIMIT, TestDatabase, shared_cluster, within};

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

/// What walcast would have stored of transaction `number`.
fn stored(number: u64) -> String {
    let (lsn, end) = (Lsn::new(number * 100), Lsn::new(number * 100 + 50));
    format!(
        "INSERT INTO walcast.change_history VALUES ('{lsn}', 0, {number}, '{end}', 'insert', 'public', 't')"
    )
}

#[tokio::test]
async fn what_is_stored_and_was_not_committed_is_found_wherever_it_is() {
    // At the place of none; between those of one run and those of the next; in the last one's place, before its end.
    for (uncommitted, kind) in
        [(0, None), (375, Some(ViolationKind::Wrong)), (625, Some(ViolationKind::Wrong))]
    {
        let database = TestDatabase::create(shared_cluster().await).await;
        database
            .run(
                "CREATE SCHEMA walcast;
                 CREATE TABLE walcast.feed AS SELECT '0/15E'::pg_lsn AS position_lsn;
                 CREATE TABLE walcast.change_history (lsn pg_lsn, seq int8, xid int8, commit_end pg_lsn, op text,
                     schema_name text, table_name text, key text, \"row\" text, old text, unchanged text)",
            )
            .await;
        let ledger = Arc::new(Ledger::default());
        let _keeps = ledger.open(&["*"]);
        ledger.append((1..7).map(committed), Lsn::new(10_000));
        for number in 1..7 {
            database.run(&stored(number)).await;
        }
        let session = database.session().await;
        let mut audit = Audit::new(&ledger);
        audit.run(&session).await.unwrap().unwrap();
        assert_eq!(audit.transactions(), 3);
        if uncommitted > 0 {
            let (lsn, end) = (Lsn::new(uncommitted), Lsn::new(uncommitted + 5));
            let sql = format!(
                "INSERT INTO walcast.change_history VALUES ('{lsn}', 0, 9, '{end}', 'insert', 'public', 't')"
            );
            database.run(&sql).await;
        }
        database.run("UPDATE walcast.feed SET position_lsn = '0/FFFF'").await;
        let found = audit.run(&session).await.err().map(|violation| violation.kind);
        assert_eq!(found, kind, "{uncommitted}");
    }
}

/// What a client makes of a daemon that refuses it with this code: a violation, or another try.
async fn refused_with(code: &str) -> Option<Violation> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let ledger = Arc::new(Ledger::default());
    let (sender, mut violations) = mpsc::unbounded_channel();
    let builder = ClientBuilder {
        name: "a client".to_owned(),
        url,
        tables: vec!["*".to_owned()],
        storing: Storing::Transactions,
        seed: 1,
        silence_max: LIMIT,
    };
    let _client = builder.start(&ledger, sender);
    let answer = json!({"type": "error", "id": "a", "code": code, "message": "no", "fatal": false});
    for _ in 0..2 {
        let connection = tokio::select! {
            violation = violations.recv() => return violation,
            connection = listener.accept() => connection.unwrap().0,
        };
        let mut socket = tokio_tungstenite::accept_async(connection).await.unwrap();
        let subscribe = within("a subscription", LIMIT, socket.next()).await;
        assert!(subscribe.is_some_and(|message| message.unwrap().is_text()));
        socket.send(Message::text(answer.to_string())).await.unwrap();
    }
    None
}

#[tokio::test]
async fn a_client_tries_again_what_passes_by_itself_and_nothing_else() {
    let passes = within("both tries", LIMIT, refused_with("not_ready")).await;
    assert!(passes.is_none(), "{passes:?}");
    for code in ["internal", "cursor_too_old"] {
        let found = within("a violation", LIMIT, refused_with(code)).await;
        assert_eq!(found.map(|violation| violation.kind), Some(ViolationKind::Wrong), "{code}");
    }
}
