//! What must hold for any bytes; run by the fuzz targets and, on their corpus, by `cargo test`.

use bytes::{Buf, Bytes};
use walcast_model::Oid;
use walcast_pgoutput::json::{TypeKind, Types};
use walcast_pgoutput::{Decoder, Message, Tuple};

/// A conversation: messages, each after its length in two bytes. The decoder must not panic, and what it takes must
/// be whole.
pub(crate) fn decode(data: &[u8]) {
    let (mut decoder, mut data) = (Decoder::new(), Bytes::copy_from_slice(data));
    while data.len() >= 2 {
        let length = usize::from(data.get_u16()).min(data.len());
        if let Ok(message) = decoder.decode(data.split_to(length)) {
            self::message(&message);
        }
    }
}

/// The parts of a decoded message agree with each other.
pub(crate) fn message(message: &Message) {
    let whole = |tuple: &Tuple| assert_eq!(tuple.iter().count(), tuple.len());
    match message {
        Message::Insert(insert) => whole(&insert.new),
        Message::Update(update) => {
            whole(&update.new);
            update.old.iter().for_each(|old| whole(old.tuple()));
        }
        Message::Delete(delete) => whole(delete.old.tuple()),
        _ => {}
    }
    assert!(!format!("{message:?}").is_empty());
}

const COMPOSITE: Oid = Oid::new(70_000);
const COMPOSITE_ARRAY: Oid = Oid::new(70_001);
const HSTORE: Oid = Oid::new(70_002);

/// The types that a value's first byte chooses from. Without jsonb: its text is JSON by the server's word.
const TYPES: [Oid; 20] = [
    Oid::new(16),
    Oid::new(20),
    Oid::new(25),
    Oid::new(701),
    Oid::new(1700),
    Oid::new(1114),
    Oid::new(1184),
    Oid::new(114),
    Oid::new(22),
    Oid::new(30),
    Oid::new(1000),
    Oid::new(1007),
    Oid::new(1009),
    Oid::new(1020),
    Oid::new(1022),
    Oid::new(1006),
    Oid::new(199),
    COMPOSITE,
    COMPOSITE_ARRAY,
    HSTORE,
];

fn types() -> Types {
    let mut types = Types::new();
    let field = |name: &str, oid| (name.to_owned(), Oid::new(oid));
    let fields = vec![field("id", 23), field("a", 1009), field("doc", 114), field("tags", HSTORE.get())];
    types.insert(COMPOSITE, TypeKind::composite(fields));
    types.insert(COMPOSITE_ARRAY, TypeKind::Array { element: COMPOSITE, delimiter: b',' });
    types.insert(HSTORE, TypeKind::Hstore);
    types
}

/// A type's number and a text: what is written is JSON, and an error leaves nothing behind.
pub(crate) fn values(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let writer = types().writer(TYPES[usize::from(*which) % TYPES.len()]);
    let mut out = b"kept".to_vec();
    match writer.write(text, &mut out) {
        Ok(()) => {
            let json = out.strip_prefix(b"kept").expect("what stood before stays");
            let read = serde_json::from_slice::<serde::de::IgnoredAny>(json);
            assert!(read.is_ok(), "{} is not JSON", String::from_utf8_lossy(json));
            assert!(!json.iter().any(|byte| *byte < 0x20), "values stand on one line");
        }
        Err(_) => assert_eq!(out, b"kept"),
    }
}
