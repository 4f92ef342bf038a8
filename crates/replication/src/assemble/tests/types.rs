//! What is asked about the types of values, and when.

use walcast_model::{Cursor, Lsn, Oid, Xid};
use walcast_pgoutput::json::{Attribute, Conversion, TypeKind};

use super::wire::{Cell, Stream, begin, commit, insert, relation, update};
use super::{INT4, T, changes};
use crate::assemble::{Step, TypesQuestion};

use Cell::{Null as N, Text as X};

const PAIR: u32 = 70_000;
const CAST: u32 = 70_001;

/// `t (id int4 primary key, p <type>)`, in a transaction at `start`.
fn open(stream: &mut Stream, start: u64, kind: u32) {
    let table = relation(T, "public", "t", b'd', &[(true, "id", INT4), (false, "p", kind)]);
    stream.feed(&begin(start, 7)).feed(&table);
}

/// A pair of `a`, and of `b` from a position on.
fn pair(since: u64) -> TypeKind {
    let attribute = |number, since, name: &str| Attribute {
        number,
        since: Lsn::new(since),
        live: Some((name.to_owned(), Oid::new(INT4))),
    };
    TypeKind::Composite { attributes: vec![attribute(1, 0, "a"), attribute(2, since, "b")] }
}

#[test]
fn types_that_users_can_alter_are_read_after_a_commit_and_once_for_all_that_came_before_the_reading() {
    let mut stream = Stream::new(Cursor::ZERO);
    let only_a = TypeKind::composite([("a".to_owned(), Oid::new(INT4))]);
    stream.assembler.types_mut().insert(Oid::new(PAIR), only_a);
    open(&mut stream, 100, PAIR);
    let row = [X("1"), X("(1)")];
    let Step::NeedsTypes(question) = stream.step(90, &insert(T, &row)) else { panic!("no question") };
    assert_eq!(question, TypesQuestion { types: vec![Oid::new(PAIR)], transaction: Xid::new(7) });
    // While the daemon read, an attribute was added.
    stream.assembler.types_mut().insert(Oid::new(PAIR), pair(500));
    assert!(matches!(stream.assembler.types_read(Lsn::new(500)), Ok(Step::Next)));
    assert!(matches!(stream.step(91, &insert(T, &row)), Step::Next), "asked twice in one transaction");
    stream.feed(&commit(100, 120)).feed(&begin(499, 8));
    let both = [X("1"), X("(1,2)")];
    assert!(matches!(stream.step(490, &update(T, None, &both)), Step::Next), "the reading saw this commit");
    stream.feed(&commit(499, 500)).feed(&begin(500, 9));
    assert!(
        matches!(stream.step(510, &update(T, None, &both)), Step::NeedsTypes(_)),
        "it may not have seen this"
    );
    // A reading that says nothing new, and that says that it came earlier, does not make the question come for ever.
    assert!(matches!(stream.assembler.types_read(Lsn::ZERO), Ok(Step::Next)));
    stream.feed(&commit(500, 520));
    let of = |pair: &str| format!(r#""key":{{"id":1}},"row":{{"id":1,"p":{pair}}}}}"#);
    let (one, two) = (of(r#"{"a": 1, "b": null}"#), of(r#"{"a": 1, "b": 2}"#));
    assert_eq!(
        changes(&stream.assembler.take().parts),
        [
            format!(r#"{{"insert",{one}"#),
            format!(r#"{{"insert",{one}"#),
            format!(r#"{{"update",{two}"#),
            format!(r#"{{"update",{two}"#)
        ]
    );
}

#[test]
fn nothing_is_asked_for_built_in_types_or_for_changes_that_the_feed_has() {
    let mut stream = Stream::new(Cursor::ZERO);
    open(&mut stream, 100, INT4);
    assert!(matches!(stream.step(90, &insert(T, &[X("1"), X("1")])), Step::Next));
    let mut stream = Stream::new(Lsn::new(120).into());
    stream.assembler.types_mut().insert(Oid::new(PAIR), pair(0));
    open(&mut stream, 100, PAIR);
    assert!(matches!(stream.step(90, &insert(T, &[X("1"), X("(1)")])), Step::Next));
}

#[test]
fn values_that_only_the_server_can_convert_are_asked_for_together_and_once() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.assembler.types_mut().insert(Oid::new(CAST), TypeKind::Cast);
    open(&mut stream, 100, CAST);
    assert!(matches!(stream.step(90, &insert(T, &[X("1"), X("x")])), Step::NeedsTypes(_)));
    let asked = stream.assembler.types_read(Lsn::new(500));
    let Ok(Step::NeedsConversions(mut wanted)) = asked else { panic!("{asked:?}") };
    let conversion = |text: &str| Conversion { type_oid: Oid::new(CAST), text: text.as_bytes().into() };
    assert_eq!(wanted, [conversion("x")]);
    // The driver looks at what comes next, and asks for that too.
    let next = insert(T, &[X("2"), X("refused")]);
    let message = walcast_pgoutput::Decoder::new().decode(bytes::Bytes::copy_from_slice(&next)).unwrap();
    stream.assembler.look_ahead(Lsn::new(91), &message, &mut wanted);
    assert_eq!(wanted[1..], [conversion("refused")]);
    for conversion in wanted {
        let json = (&*conversion.text == b"x").then(|| br#"{"x": 1}"#.as_slice().into());
        stream.assembler.conversions_mut().insert(conversion, json);
    }
    assert!(matches!(stream.assembler.resume(), Ok(Step::Next)));
    assert!(matches!(stream.step(91, &next), Step::Next));
    assert!(matches!(stream.step(92, &insert(T, &[X("3"), N])), Step::Next), "NULL needs nobody");
    stream.feed(&commit(100, 120));
    assert_eq!(
        changes(&stream.assembler.take().parts),
        [
            r#"{"insert","key":{"id":1},"row":{"id":1,"p":{"x": 1}}}"#,
            r#"{"insert","key":{"id":2},"row":{"id":2,"p":"refused"}}"#,
            r#"{"insert","key":{"id":3},"row":{"id":3,"p":null}}"#
        ]
    );
}
