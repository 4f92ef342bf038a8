//! What updates are to those who see a part of a table.

use std::sync::Arc;

use walcast_filter::{Filter, Undecided, transition};
use walcast_model::{
    CommitStart, Lsn, Op, Part, PartBuilder, Relation, ReplicaIdentity, Seq, Timestamp, Transaction, Xid,
};

use super::pure::{relation, schema};

fn part(relation: &Arc<Relation>, op: Op, key: Option<&str>, old: Option<&str>, row: Option<&str>) -> Part {
    let start = CommitStart::new(Lsn::new(1));
    let transaction = Transaction { start, xid: Xid::new(1), committed_at: Timestamp::default() };
    let mut builder = PartBuilder::new(Arc::new(transaction), Seq::new(0));
    let mut change = builder.change(op, relation);
    let put = |text: &str| {
        let text = text.as_bytes().to_vec();
        move |out: &mut Vec<u8>| {
            out.extend_from_slice(&text);
            Ok::<(), std::convert::Infallible>(())
        }
    };
    key.map(|text| change.key(put(text)));
    row.map(|text| change.row(put(text)));
    old.map(|text| change.old(put(text)));
    change.finish().expect("a whole change");
    builder.finish(None)
}

#[test]
fn rows_that_enter_are_inserted_and_rows_that_leave_are_deleted() {
    let relation = relation(ReplicaIdentity::Full);
    let predicate = Filter::parse("n = 1").unwrap().bind(&schema(Arc::clone(&relation))).unwrap();
    let (inside, outside, null) = (r#"{"id":1,"n":1}"#, r#"{"id":1,"n":2}"#, r#"{"id":1,"n":null}"#);
    for (op, old, row, expected) in [
        (Op::Insert, None, Some(inside), Some(Op::Insert)),
        (Op::Insert, None, Some(outside), None),
        (Op::Insert, None, Some(null), None),
        (Op::Update, Some(outside), Some(inside), Some(Op::Insert)),
        (Op::Update, Some(inside), Some(inside), Some(Op::Update)),
        (Op::Update, Some(inside), Some(outside), Some(Op::Delete)),
        (Op::Update, Some(inside), Some(null), Some(Op::Delete)),
        (Op::Update, Some(null), Some(outside), None),
        (Op::Delete, Some(inside), None, Some(Op::Delete)),
        (Op::Delete, Some(outside), None, None),
        (Op::Truncate, None, None, Some(Op::Truncate)),
    ] {
        let part = part(&relation, op, Some(r#"{"id":1}"#), old, row);
        assert_eq!(predicate.decide(&part, &part.changes()[0]), Ok(expected), "{op} {old:?} {row:?}");
    }
    assert_eq!(transition(false, false), None);
}

#[test]
fn a_before_image_that_has_the_key_alone_decides_what_it_can() {
    let relation = relation(ReplicaIdentity::Default);
    let schema = schema(Arc::clone(&relation));
    let bound = |text: &str| Filter::parse(text).unwrap().bind(&schema).unwrap();
    let moved = part(&relation, Op::Update, Some(r#"{"id":1}"#), None, Some(r#"{"id":2,"n":1}"#));
    let decide = |text: &str| bound(text).decide(&moved, &moved.changes()[0]);
    assert_eq!(decide("id = 1"), Ok(Some(Op::Delete)));
    assert_eq!(decide("id = 2"), Ok(Some(Op::Insert)));
    assert_eq!(decide("id < 5"), Ok(Some(Op::Update)));
    assert_eq!(decide("n = 1"), Err(Undecided { column: 4 }));
    assert_eq!(decide("n = 1 AND id = 7"), Ok(None));
}

#[test]
fn requirements_name_the_columns_and_the_statement() {
    let of = |text: &str, identity| {
        Filter::parse(text).unwrap().bind(&schema(relation(identity))).unwrap().requirements()
    };
    assert!(of("id = 1", ReplicaIdentity::Default).are_met());
    assert!(of("n = 1 AND owner = 'a'", ReplicaIdentity::Full).are_met());
    assert!(of("FALSE", ReplicaIdentity::Nothing).are_met());
    let needs = of("n = 1 AND owner = 'a' AND id = 1", ReplicaIdentity::Index);
    assert_eq!(needs.missing, ["owner", "n"]);
    let remedy = "ALTER TABLE \"public\".\"odd \"\"files\"\"\" REPLICA IDENTITY FULL;";
    assert_eq!(needs.remedy.as_deref(), Some(remedy));
    assert_eq!(of("id = 1", ReplicaIdentity::Nothing).missing, ["id"]);
}
