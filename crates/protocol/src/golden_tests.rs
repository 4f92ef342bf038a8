//! Every message as it stands on the wire. The files are the contract that the other SDKs are tested with too: a change
//! here is a change of the protocol.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{ClientMessage, DecodeError, Progress, ServerMessage, SubscriptionId, encode};
use serde_json::value::RawValue;
use walcast_model::{CommitStart, Lsn, Meta, RelationName, Timestamp, Transaction, Xid};

fn golden(direction: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(direction);
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap().trim_end().to_owned())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

fn one(direction: &str, name: &str) -> String {
    golden(direction).into_iter().find(|(file, _)| file == name).unwrap().1
}

#[test]
fn every_server_message_reads_and_writes_its_golden_form() {
    let mut seen = BTreeSet::new();
    for (name, text) in golden("server") {
        let message = ServerMessage::decode(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(message.to_json(), text, "{name}");
        seen.insert(message.type_name());
    }
    assert_eq!(seen, ServerMessage::TYPES.iter().copied().collect());
}

#[test]
fn every_client_message_reads_and_writes_its_golden_form() {
    let mut seen = BTreeSet::new();
    for (name, text) in golden("client") {
        let message = ClientMessage::decode(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(message.to_json(), text, "{name}");
        seen.insert(message.type_name());
    }
    assert_eq!(seen, ClientMessage::TYPES.iter().copied().collect());
}

#[test]
fn unknown_fields_are_ignored_in_every_message_and_the_type_may_come_last() {
    for (name, text) in golden("server") {
        let more = text.replacen('{', r#"{"added_later":{"type":[1]},"#, 1);
        assert_eq!(ServerMessage::decode(&more).unwrap().to_json(), text, "{name}");
    }
    for (name, text) in golden("client") {
        // One without fields has nothing that could come first.
        let Some((head, rest)) = text.split_once(',') else { continue };
        let (_, type_field) = head.split_once('{').unwrap();
        let last = format!("{{{},{type_field}}}", rest.strip_suffix('}').unwrap());
        assert_eq!(ClientMessage::decode(&last).unwrap().to_json(), text, "{name}");
    }
}

#[test]
fn an_unknown_type_is_told_from_a_malformed_message() {
    let message = |text: &str| ClientMessage::decode(text).unwrap_err();
    assert!(
        matches!(message(r#"{"type":"snooze"}"#), DecodeError::UnknownType { ref name, .. } if name == "snooze")
    );
    for text in ["", "[]", "{}", "3", r#"{"type":3}"#, r#"{"type":"ack","id""#, "{\"type\":\"ack\"} x"] {
        assert!(matches!(message(text), DecodeError::NotAMessage { .. }), "{text:?}: {}", message(text));
    }
    let malformed = [
        (r#"{"type":"subscribe","tables":[{"table":"*"}]}"#, "the field \"id\" is missing"),
        (r#"{"type":"subscribe","id":"","tables":[]}"#, "1 to 128 bytes"),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"files"}]}"#,
            "write schema.table, schema.* or *",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"*"}],"cursor":"yesterday"}"#,
            "\"yesterday\" is not a cursor",
        ),
        (r#"{"type":"subscribe","id":"a","tables":[{"table":"*"}],"feed":"a b"}"#, "a feed id is"),
        (
            r#"{"type":"subscribe","id":"a","tables":"*"}"#,
            "the field \"tables\" does not fit: invalid type: string \"*\", expected a list",
        ),
        (r#"{"type":"ack","id":"a","cursor":7}"#, "expected a string"),
        (r#"{"type":"ack","cursor":"0/1"}"#, "malformed ack message: the field \"id\" is missing"),
        (
            r#"{"type":"ack","id":"a","cursor":[]}"#,
            "ack message with the id \"a\": the field \"cursor\" does not fit",
        ),
        (
            r#"{"type":"unsubscribe","id":7}"#,
            "the field \"id\" does not fit: invalid type: integer `7`, expected a string",
        ),
        (r#"{"type":"auth"}"#, "the field \"token\" is missing"),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"a.b"},{"columns":["x"]}]}"#,
            "\"tables[1].table\" is missing",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":["a.b"]}"#,
            "\"tables[0]\" does not fit: invalid type: string \"a.b\", expected an object such as",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"a.b","columns":"x"}]}"#,
            "\"tables[0].columns\" does not fit",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"a.b","where":{"x":1}}]}"#,
            "\"tables[0].where\" does not fit: invalid type: an object",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"a.b"}],"payload":"keys"}"#,
            "\"payload\" does not fit: unknown variant `keys`, expected `row` or `key`",
        ),
        (
            r#"{"type":"subscribe","id":"a","tables":[{"table":"a.b"}],"id":"b"}"#,
            "malformed subscribe message: duplicate field `id`",
        ),
    ];
    for (text, expected) in malformed {
        assert!(!message(text).to_string().contains(" at line "), "{}", message(text));
        let error = message(text);
        assert!(matches!(error, DecodeError::Malformed(_)), "{text}: {error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_malformed_message_keeps_the_id_that_it_has_and_its_example_is_one() {
    let malformed = |text: &str| match ClientMessage::decode(text).unwrap_err() {
        DecodeError::Malformed(malformed) => *malformed,
        other => panic!("{text}: {other}"),
    };
    let error = malformed(r#"{"type":"subscribe","tables":[{"table":"orders"}],"id":"mine"}"#);
    assert_eq!((error.name, error.field.as_str()), ("subscribe", "tables[0].table"));
    assert_eq!(error.id, Some("mine".parse().unwrap()));
    assert_eq!(malformed(r#"{"type":"subscribe","id":7,"tables":[]}"#).id, None);
    for name in ClientMessage::TYPES {
        let Some(example) = ClientMessage::example(name) else { continue };
        assert_eq!(ClientMessage::decode(example).unwrap().type_name(), *name);
    }
}

#[test]
fn frames_written_from_ready_json_equal_the_golden_form() {
    let id: SubscriptionId = "orders".parse().unwrap();
    for name in ["transaction", "transaction_part", "transaction_compacted", "transaction_with_meta"] {
        let text = one("server", name);
        let ServerMessage::Transaction(message) = ServerMessage::decode(&text).unwrap() else {
            panic!("{name}")
        };
        let transaction = Transaction {
            start: CommitStart::new(message.lsn),
            xid: message.xid,
            committed_at: message.committed_at,
        };
        let changes = serde_json::to_string(&message.changes).unwrap();
        let mut out = Vec::new();
        encode::head(&mut out, "transaction", &id);
        let write = |out: &mut Vec<u8>| out.extend_from_slice(&changes.as_bytes()[1..changes.len() - 1]);
        let meta = message.meta.as_ref().map(|meta| Meta::parse(meta.get().as_bytes()).unwrap());
        encode::transaction_tail(&mut out, message.cursor, &transaction, meta.as_ref(), write, message.more);
        if message.compacted {
            encode::compacted(&mut out);
        }
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
    let mut out = Vec::new();
    encode::head(&mut out, "snapshot", &id);
    let rows = br#"{"id":1,"total":10.50},{"id":2,"total":123456789012345678901234567890.00}"#;
    let progress = Progress { done: 2, estimate: Some(1200) };
    encode::snapshot_tail(&mut out, &RelationName::new("public", "orders"), rows, progress);
    assert_eq!(String::from_utf8(out).unwrap(), one("server", "snapshot"));
}

#[test]
fn numbers_keep_all_their_digits() {
    let text = one("server", "transaction");
    let ServerMessage::Transaction(transaction) = ServerMessage::decode(&text).unwrap() else { panic!() };
    assert_eq!(
        transaction.changes[0].row.as_deref().map(RawValue::get),
        Some(r#"{"id":9007199254740993,"total":0.10}"#)
    );
    assert_eq!((transaction.xid, transaction.lsn), (Xid::new(4_294_967_997), Lsn::new(0x16_B374_D850)));
    assert_eq!(transaction.committed_at, Timestamp::from_postgres_micros(848_534_523_500_000));
}

#[test]
fn a_token_does_not_show_in_debug_output() {
    let message = ClientMessage::decode(&one("client", "auth")).unwrap();
    assert_eq!(format!("{message:?}"), "Auth(Auth { token: … })");
}
