//! The rows of section 10 of the reference that need no server, from hand-built messages. The same cases run against
//! real servers in `tests/`.

mod messages;
mod types;
mod wire;

use std::sync::Arc;

use walcast_model::{Cursor, Lsn, Oid, Part, Relation, Seq, Xid};

use super::{
    AssembleError, Assembler, AssemblerSettings, BARRIER_PREFIX, ColumnFacts, Progress, ROWS_PREFIX,
    RelationFacts, RowsHeader, row_prefix,
};
use wire::{Cell, Stream, begin, commit, delete, insert, message, relation, truncate, update};

const T: u32 = 16_400;
/// Builtin type oids.
const INT4: u32 = 23;
const TEXT: u32 = 25;

/// `t (id int4 primary key, v text, big text)` under this identity (`d`, `f`, `i` over v, `n`).
fn table(identity: u8) -> Vec<u8> {
    let flag = |name: &str| match identity {
        b'd' => name == "id",
        b'f' => true,
        b'i' => name == "v",
        _ => false,
    };
    let columns = [("id", INT4), ("v", TEXT), ("big", TEXT)];
    let columns: Vec<(bool, &str, u32)> =
        columns.iter().map(|(name, oid)| (flag(name), *name, *oid)).collect();
    relation(T, "public", "t", identity, &columns)
}

fn facts() -> RelationFacts {
    let column = |name: &str, oid, primary_key| ColumnFacts {
        name: name.to_owned(),
        type_oid: Oid::new(oid),
        not_null: primary_key,
        primary_key,
    };
    RelationFacts {
        columns: vec![column("id", INT4, true), column("v", TEXT, false), column("big", TEXT, false)],
    }
}

/// One transaction at 100..120 over `t`.
fn one(identity: u8, messages: &[Vec<u8>]) -> Vec<String> {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.facts(T, facts());
    stream.feed(&begin(100, 7)).feed(&table(identity));
    for message in messages {
        stream.feed(message);
    }
    stream.feed(&commit(100, 120));
    let progress = stream.assembler.take();
    assert_eq!(progress.reached, Some(Lsn::new(120)));
    changes(&progress.parts)
}

fn changes(parts: &[Part]) -> Vec<String> {
    let text = |part: &Part| {
        let changes = part.changes().iter().map(|change| part.change_json(change));
        changes.map(|json| String::from_utf8(json.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    parts
        .iter()
        .flat_map(text)
        .map(|json| json.replace("\"table\":\"public.t\",", "").replace("\"op\":", ""))
        .collect()
}

use Cell::{Null as N, Text as X, Unchanged as U};

#[test]
fn case_1_2_3_5_default_identity() {
    let row = [X("1"), X("x"), N];
    assert_eq!(
        one(b'd', &[insert(T, &row)]),
        [r#"{"insert","key":{"id":1},"row":{"id":1,"v":"x","big":null}}"#]
    );
    assert_eq!(
        one(b'd', &[update(T, None, &row)]),
        [r#"{"update","key":{"id":1},"row":{"id":1,"v":"x","big":null}}"#]
    );
    assert_eq!(
        one(b'd', &[update(T, Some((b'K', &[X("1"), N, N])), &[X("2"), X("x"), N])]),
        [r#"{"update","key":{"id":1},"row":{"id":2,"v":"x","big":null}}"#]
    );
    assert_eq!(one(b'd', &[delete(T, b'K', &[X("1"), N, N])]), [r#"{"delete","key":{"id":1}}"#]);
}

#[test]
fn case_6_8_under_full_the_old_row_is_there_and_the_key_is_the_catalogs() {
    let (old, new) = ([X("1"), X("x"), N], [X("2"), X("y"), N]);
    assert_eq!(
        one(b'f', &[update(T, Some((b'O', &old)), &new), delete(T, b'O', &new)]),
        [
            r#"{"update","key":{"id":1},"row":{"id":2,"v":"y","big":null},"old":{"id":1,"v":"x","big":null}}"#,
            r#"{"delete","key":{"id":2},"old":{"id":2,"v":"y","big":null}}"#
        ]
    );
}

#[test]
fn under_full_without_a_primary_key_there_is_no_key() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream
        .feed(&begin(100, 7))
        .feed(&table(b'f'))
        .feed(&delete(T, b'O', &[X("1"), N, N]))
        .feed(&commit(100, 120));
    assert_eq!(changes(&stream.assembler.take().parts), [r#"{"delete","old":{"id":1,"v":null,"big":null}}"#]);
}

#[test]
fn case_7_an_identity_index_is_the_key_and_the_primary_key_may_change_without_one() {
    assert_eq!(
        one(b'i', &[update(T, None, &[X("2"), X("x"), N]), delete(T, b'K', &[N, X("x"), N])]),
        [r#"{"update","key":{"v":"x"},"row":{"id":2,"v":"x","big":null}}"#, r#"{"delete","key":{"v":"x"}}"#]
    );
}

#[test]
fn case_10_11_12_toast_columns_that_were_not_touched() {
    assert_eq!(
        one(b'd', &[update(T, None, &[X("1"), X("y"), U])]),
        [r#"{"update","key":{"id":1},"row":{"id":1,"v":"y"},"unchanged":["big"]}"#]
    );
    assert_eq!(
        one(b'f', &[update(T, Some((b'O', &[X("1"), X("x"), X("long")])), &[X("1"), X("y"), U])]),
        [
            r#"{"update","key":{"id":1},"row":{"id":1,"v":"y","big":"long"},"old":{"id":1,"v":"x","big":"long"}}"#
        ]
    );
    assert_eq!(
        one(b'd', &[update(T, Some((b'K', &[X("1"), N, N])), &[X("2"), X("y"), U])]),
        [r#"{"update","key":{"id":1},"row":{"id":2,"v":"y"},"unchanged":["big"]}"#]
    );
}

#[test]
fn case_41_an_update_that_is_sent_as_an_insert_lacks_what_it_did_not_write() {
    assert_eq!(
        one(b'i', &[insert(T, &[X("1"), X("open"), U])]),
        [r#"{"insert","key":{"v":"open"},"row":{"id":1,"v":"open"},"unchanged":["big"]}"#]
    );
}

#[test]
fn case_13_a_key_stored_out_of_line_is_filled_from_the_old_key() {
    // Identity index over v, which is stored out of line: K comes although the key did not change.
    assert_eq!(
        one(b'i', &[update(T, Some((b'K', &[N, X("long"), N])), &[X("1"), U, X("b")])]),
        [r#"{"update","key":{"v":"long"},"row":{"id":1,"v":"long","big":"b"}}"#]
    );
}

#[test]
fn case_14_null_unchanged_empty_and_the_word_null_are_four_things() {
    assert_eq!(
        one(b'd', &[insert(T, &[X("1"), X(""), X("NULL")]), update(T, None, &[X("1"), N, U])]),
        [
            r#"{"insert","key":{"id":1},"row":{"id":1,"v":"","big":"NULL"}}"#,
            r#"{"update","key":{"id":1},"row":{"id":1,"v":null},"unchanged":["big"]}"#
        ]
    );
}

#[test]
fn case_16_17_18_truncate_is_a_change_of_each_table_in_its_place() {
    let other = relation(T + 1, "public", "c1", b'd', &[(true, "id", INT4)]);
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&begin(100, 7)).feed(&table(b'd')).feed(&other);
    stream.feed(&insert(T, &[X("1"), N, N])).feed(&truncate(3, &[T, T + 1])).feed(&insert(T + 1, &[X("2")]));
    stream.feed(&commit(100, 120));
    let progress = stream.assembler.take();
    assert_eq!(
        changes(&progress.parts),
        [
            r#"{"insert","key":{"id":1},"row":{"id":1,"v":null,"big":null}}"#,
            r#"{"truncate","table":"public.t"}"#,
            r#"{"truncate","table":"public.c1"}"#,
            r#"{"insert","table":"public.c1","key":{"id":2},"row":{"id":2}}"#
        ]
    );
    assert_eq!(progress.parts[0].next_cursor(), Lsn::new(120).into());
}

#[test]
fn case_33_35_rows_have_the_definition_of_their_time_and_an_equal_definition_stays_the_same() {
    let mut stream = Stream::new(Cursor::ZERO);
    let wider = relation(T, "moved", "t2", b'd', &[(true, "id", INT4), (false, "w", TEXT)]);
    stream.feed(&begin(100, 7)).feed(&table(b'd')).feed(&insert(T, &[X("1"), N, N]));
    stream.feed(&table(b'd')).feed(&insert(T, &[X("2"), N, N]));
    stream.feed(&wider).feed(&insert(T, &[X("3"), X("w")])).feed(&commit(100, 120));
    let parts = stream.assembler.take().parts;
    let relations: Vec<&Arc<Relation>> = parts[0].changes().iter().map(|change| &change.relation).collect();
    assert!(Arc::ptr_eq(relations[0], relations[1]));
    assert_eq!(relations[2].name().to_string(), "moved.t2");
    assert_ne!(relations[0].digest(), relations[2].digest());
}

#[test]
fn a_definition_older_than_the_catalog_is_matched_by_place_when_names_are_gone() {
    let mut stream = Stream::new(Cursor::ZERO);
    let mut renamed = facts();
    renamed.columns[0].name = "ident".to_owned();
    stream.facts(T, renamed);
    stream
        .feed(&begin(100, 7))
        .feed(&table(b'f'))
        .feed(&delete(T, b'O', &[X("1"), N, N]))
        .feed(&commit(100, 120));
    let parts = stream.assembler.take().parts;
    assert_eq!(parts[0].key(&parts[0].changes()[0]), Some(br#"{"id":1}"#.as_slice()));
}

#[test]
fn case_35_a_table_that_is_gone_when_its_changes_are_read_keeps_what_was_known_of_it() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.facts(T, facts());
    stream.feed(&begin(100, 7)).feed(&table(b'f')).feed(&insert(T, &[X("1"), N, N]));
    stream.forget(T);
    let moved = [(true, "id", INT4), (true, "v", TEXT), (true, "big", TEXT)];
    stream.feed(&table(b'f')).feed(&insert(T, &[X("2"), N, N]));
    stream.feed(&relation(T, "public", "t2", b'f', &moved)).feed(&delete(T, b'O', &[X("2"), N, N]));
    stream.feed(&commit(100, 120));
    let parts = stream.assembler.take().parts;
    let relations: Vec<&Arc<Relation>> = parts[0].changes().iter().map(|change| &change.relation).collect();
    assert!(Arc::ptr_eq(relations[0], relations[1]));
    assert_eq!(relations[2].columns(), relations[0].columns());
    assert_eq!(parts[0].key(&parts[0].changes()[2]), Some(br#"{"id":2}"#.as_slice()));
}

#[test]
fn case_36_another_table_of_the_same_name_has_its_own_definition() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&begin(100, 7)).feed(&table(b'd')).feed(&insert(T, &[X("1"), N, N]));
    stream.feed(&relation(T + 5, "public", "t", b'd', &[(true, "k", TEXT)])).feed(&insert(T + 5, &[X("a")]));
    stream.feed(&delete(T, b'K', &[X("1"), N, N])).feed(&commit(100, 120));
    assert_eq!(
        changes(&stream.assembler.take().parts),
        [
            r#"{"insert","key":{"id":1},"row":{"id":1,"v":null,"big":null}}"#,
            r#"{"insert","key":{"k":"a"},"row":{"k":"a"}}"#,
            r#"{"delete","key":{"id":1}}"#
        ]
    );
}

#[test]
fn case_37_an_empty_transaction_moves_the_position_and_makes_no_part() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&begin(100, 7)).feed(&commit(100, 120));
    let Progress { parts, reached, transactions, .. } = stream.assembler.take();
    assert!(parts.is_empty());
    assert_eq!((reached, transactions), (Some(Lsn::new(120)), 1));
}

#[test]
fn the_own_schema_is_no_part_of_the_feed_and_takes_no_seq() {
    let own = relation(T + 9, "walcast", "change_history", b'd', &[(true, "lsn", TEXT)]);
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&begin(100, 7)).feed(&own).feed(&insert(T + 9, &[X("0/1")])).feed(&table(b'd'));
    stream.feed(&insert(T, &[X("1"), N, N])).feed(&truncate(0, &[T + 9, T])).feed(&commit(100, 120));
    let parts = stream.assembler.take().parts;
    assert_eq!((parts[0].first(), parts[0].changes().len()), (Seq::FIRST, 2));
}

#[test]
fn case_48_49_50_messages_have_no_effect_on_changes() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&message(false, "app", b"\0\xff")).feed(&begin(100, 7)).feed(&table(b'd'));
    stream.feed(&message(true, "", b"\0\xff")).feed(&insert(T, &[X("1"), N, N])).feed(&commit(100, 120));
    assert_eq!(changes(&stream.assembler.take().parts).len(), 1);
}

#[test]
fn case_51_a_stray_abort_is_nothing() {
    let mut stream = Stream::new(Cursor::ZERO);
    let abort: Vec<u8> = [b"A".as_slice(), &5_u32.to_be_bytes(), &6_u32.to_be_bytes()].concat();
    stream.feed(&abort).feed(&begin(100, 7)).feed(&abort).feed(&table(b'd'));
    stream.feed(&insert(T, &[X("1"), N, N])).feed(&commit(100, 120));
    assert_eq!(stream.assembler.take().parts.len(), 1);
}

#[test]
fn barriers_come_after_their_transaction_and_only_from_transactional_messages() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&message(false, BARRIER_PREFIX, b"outside")).feed(&begin(100, 7));
    stream.feed(&message(true, BARRIER_PREFIX, b"one")).feed(&message(true, BARRIER_PREFIX, &[0xff]));
    stream.feed(&message(true, BARRIER_PREFIX, &[b'x'; 65]));
    assert!(stream.assembler.take().barriers.is_empty());
    stream.feed(&commit(100, 120));
    assert_eq!(stream.assembler.take().barriers, [("one".to_owned(), Lsn::new(120).into())]);
}

#[test]
fn keepalives_count_only_between_transactions_and_never_go_back() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.assembler.keepalive(Lsn::new(90));
    stream.assembler.keepalive(Lsn::new(10));
    stream.feed(&begin(100, 7));
    stream.assembler.keepalive(Lsn::new(100));
    assert_eq!(stream.assembler.take().reached, Some(Lsn::new(90)));
    stream.assembler.keepalive(Lsn::new(100));
    assert_eq!(stream.assembler.take().reached, None);
    stream.feed(&commit(100, 120));
    stream.assembler.keepalive(Lsn::new(110));
    assert_eq!(stream.assembler.take().reached, Some(Lsn::new(120)));
}

/// Three transactions of four changes each: 100..120, 120..140 (its commit starts where the first one ends), 150..170.
fn three(position: Cursor, part_bytes_max: usize) -> Vec<Part> {
    let mut stream = Stream::with_part_bytes(position, part_bytes_max);
    stream.feed(&table(b'd'));
    for (start, end) in [(100, 120), (120, 140), (150, 170)] {
        stream.feed(&begin(start, 7));
        for id in ["1", "2", "3", "4"] {
            stream.feed(&insert(T, &[X(id), N, N]));
        }
        stream.feed(&commit(start, end));
    }
    stream.assembler.take().parts
}

fn positions(parts: &[Part]) -> Vec<Cursor> {
    let of = |part: &Part| {
        let start = part.cursor();
        (0..part.changes().len())
            .map(move |n| Cursor::new(start.lsn(), start.seq().plus(n)))
            .collect::<Vec<_>>()
    };
    parts.iter().flat_map(of).collect()
}

#[test]
fn case_25_28_resuming_at_every_position_gives_exactly_the_rest() {
    let all = positions(&three(Cursor::ZERO, usize::MAX));
    assert_eq!(all.len(), 12);
    for part_bytes_max in [1, 60, 150, usize::MAX] {
        for lsn in [0, 99, 100, 101, 119, 120, 121, 139, 140, 149, 150, 151, 170, 171] {
            for seq in 0..6 {
                let position = Cursor::new(Lsn::new(lsn), Seq::new(seq));
                let rest: Vec<Cursor> = all.iter().copied().filter(|at| *at >= position).collect();
                assert_eq!(positions(&three(position, part_bytes_max)), rest, "{position} {part_bytes_max}");
            }
        }
    }
}

#[test]
fn parts_are_cut_when_full_and_only_the_last_one_ends() {
    let parts = three(Cursor::ZERO, 100);
    let shape: Vec<(Cursor, usize, bool)> =
        parts.iter().map(|part| (part.cursor(), part.changes().len(), part.end().is_some())).collect();
    let at = |lsn, seq| Cursor::new(Lsn::new(lsn), Seq::new(seq));
    assert_eq!(shape[..2], [(at(100, 0), 2, false), (at(100, 2), 2, true)]);
    for pair in parts.windows(2) {
        assert!(pair[0].next_cursor() <= pair[1].cursor());
    }
}

#[test]
fn xids_are_widened_and_the_reference_follows() {
    let mut stream = Stream::new(Cursor::ZERO);
    let settings = AssemblerSettings { part_bytes_max: 1 << 20, secret: "s".into() };
    stream.assembler = Assembler::new(settings, Cursor::ZERO, Xid::new((7 << 32) | 0xFFFF_FFF0));
    for (start, xid) in [(100, 0xFFFF_FFFF), (200, 3), (300, 0x7FFF_FFFF), (400, 0xFFFF_FFF0), (500, 1)] {
        stream.feed(&begin(start, xid)).feed(&table(b'd')).feed(&insert(T, &[X("1"), N, N]));
        stream.feed(&commit(start, start + 1));
    }
    let parts = stream.assembler.take().parts;
    let xids: Vec<u64> = parts.iter().map(|part| part.transaction().xid.get()).collect();
    let epoch = |epoch: u64, low: u64| (epoch << 32) | low;
    assert_eq!(
        xids,
        [epoch(7, 0xFFFF_FFFF), epoch(8, 3), epoch(8, 0x7FFF_FFFF), epoch(8, 0xFFFF_FFF0), epoch(9, 1)]
    );
}

#[test]
fn a_value_that_is_not_of_its_type_goes_out_as_a_string() {
    assert_eq!(
        one(b'd', &[insert(T, &[X("not \"a\" number"), X("x"), N])]),
        [r#"{"insert","key":{"id":"not \"a\" number"},"row":{"id":"not \"a\" number","v":"x","big":null}}"#]
    );
}

fn header(replace: bool) -> RowsHeader {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.facts(T, facts());
    stream.feed(&begin(1, 7)).feed(&table(b'd')).feed(&insert(T, &[X("1"), N, N])).feed(&commit(1, 2));
    let relation = Arc::clone(&stream.assembler.take().parts[0].changes()[0].relation);
    RowsHeader {
        replace,
        oid: relation.oid(),
        schema: "public".into(),
        table: "t".into(),
        identity: relation.identity(),
        columns: relation.columns().to_vec(),
    }
}

#[test]
fn rows_messages_of_this_feed_become_inserts_in_their_place() {
    let row = |secret: &str, json: &str| {
        message(true, ROWS_PREFIX, format!("{}{json}", row_prefix(secret)).as_bytes())
    };
    let head = |secret: &str, replace| message(true, ROWS_PREFIX, header(replace).content(secret).as_bytes());
    let json = r#"{"id":1,"v":{"a": [1, "}"]},"big":null}"#;
    let kept = r#"{"insert","key":{"id":1},"row":{"id":1,"v":{"a": [1, "}"]},"big":null}}"#;
    assert_eq!(one(b'd', &[head("secret", false), row("secret", json)]), [kept]);
    assert_eq!(
        one(b'd', &[head("secret", true), row("secret", json)]),
        [r#"{"truncate","table":"public.t"}"#, kept]
    );
    let nothing: [String; 0] = [];
    assert_eq!(one(b'd', &[head("other", false), row("other", json)]), nothing);
    assert_eq!(one(b'd', &[row("secret", json)]), nothing);
    let outside = message(false, ROWS_PREFIX, format!("{}{json}", row_prefix("secret")).as_bytes());
    assert_eq!(one(b'd', &[outside]), nothing);
}

#[test]
fn rows_and_later_changes_share_one_definition() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.facts(T, facts());
    stream.feed(&begin(100, 7)).feed(&message(true, ROWS_PREFIX, header(true).content("secret").as_bytes()));
    stream.feed(&commit(100, 120)).feed(&begin(130, 8)).feed(&table(b'd')).feed(&insert(T, &[X("1"), N, N]));
    stream.feed(&commit(130, 140));
    let parts = stream.assembler.take().parts;
    assert_eq!(parts[0].changes()[0].relation.digest(), parts[1].changes()[0].relation.digest());
}

#[test]
fn what_cannot_be_is_an_error_and_never_passed_over() {
    let error = |messages: &[Vec<u8>]| {
        let mut stream = Stream::new(Cursor::ZERO);
        messages.iter().find_map(|message| stream.try_feed(message).err()).expect("an error")
    };
    let row = [X("1"), N, N];
    assert!(matches!(error(&[table(b'd'), insert(T, &row)]), AssembleError::Misplaced { .. }));
    assert!(matches!(error(&[commit(1, 2)]), AssembleError::Misplaced { .. }));
    assert!(matches!(error(&[begin(1, 2), begin(3, 4)]), AssembleError::Misplaced { .. }));
    assert!(matches!(error(&[begin(1, 2), insert(T, &row)]), AssembleError::UnknownRelation { .. }));
    assert!(matches!(
        error(&[begin(1, 2), table(b'd'), insert(T, &row[..2])]),
        AssembleError::ColumnCount { .. }
    ));
    assert!(matches!(error(&[vec![b'S', 0, 0, 0, 1, 1]]), AssembleError::NotAskedFor { .. }));
}
