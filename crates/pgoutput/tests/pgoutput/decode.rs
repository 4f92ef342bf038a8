//! Encode, decode, compare; then break what was encoded.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use walcast_model::{CommitEnd, CommitStart, Lsn, Oid, ReplicaIdentity, Timestamp};
use walcast_pgoutput::{DecodeError, Decoder, Message, OldTuple, Tuple, TupleColumn};

use crate::checks;
use crate::encoder::{Body, Cell};

fn decode(bytes: Vec<u8>) -> Result<Message, DecodeError> {
    Decoder::new().decode(Bytes::from(bytes))
}

fn decode_in_stream(bytes: Vec<u8>) -> Result<Message, DecodeError> {
    let mut decoder = Decoder::new();
    decoder.decode(Bytes::from(Body::new(b'S').u32(1).u8(1).finish())).unwrap();
    decoder.decode(Bytes::from(bytes))
}

/// In a stream exactly when there is a transaction id to carry.
fn decode_for(xid: Option<u32>, bytes: Vec<u8>) -> Message {
    if xid.is_some() { decode_in_stream(bytes).unwrap() } else { decode(bytes).unwrap() }
}

fn same(tuple: &Tuple, cells: &[Cell]) -> bool {
    let equal = |(column, cell): (TupleColumn<'_>, &Cell)| match (column, cell) {
        (TupleColumn::Null, Cell::Null) | (TupleColumn::Unchanged, Cell::Unchanged) => true,
        (TupleColumn::Text(got), Cell::Text(sent)) | (TupleColumn::Binary(got), Cell::Binary(sent)) => {
            got == sent
        }
        _ => false,
    };
    tuple.len() == cells.len() && tuple.iter().count() == cells.len() && tuple.iter().zip(cells).all(equal)
}

fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let cell = prop_oneof![
        Just(Cell::Null),
        Just(Cell::Unchanged),
        vec(any::<u8>(), 0..40).prop_map(Cell::Text),
        vec(any::<u8>(), 0..40).prop_map(Cell::Binary),
    ];
    vec(cell, 0..12)
}

fn name() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

/// Any valid message that may come outside a stream.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (any::<u64>(), any::<u64>(), any::<i64>(), any::<u32>());
    let rows = (cells(), cells(), any::<u32>(), 0_usize..3);
    let relation = (any::<u32>(), name(), name(), 0_usize..4, vec((0_u8..2, name(), any::<u32>()), 0..6));
    prop_oneof![
        (numbers, name(), 0_usize..10).prop_map(|((a, b, at, xid), name, which)| match which {
            0 => Body::new(b'B').u64(a).i64(at).u32(xid),
            1 => Body::new(b'C').u8(0).u64(a).u64(b).i64(at),
            2 => Body::new(b'O').u64(a).name(&name),
            3 => Body::new(b'Y').u32(xid).name(&name).name(&name),
            4 => Body::new(b'M').u8(1).u64(a).name(&name).bytes(name.as_bytes()),
            5 => Body::new(b'c').u32(xid).u8(0).u64(a).u64(b).i64(at),
            6 => Body::new(b'A').u32(xid).u32(xid).u64(a).i64(at),
            7 => Body::new(b'b').u64(a).u64(b).i64(at).u32(xid).name(&name),
            8 => Body::new(b'K').u8(0).u64(a).u64(b).i64(at).u32(xid).name(&name),
            _ => Body::new(b'r').u8(0).u64(a).u64(b).i64(at).i64(at).u32(xid).name(&name),
        }),
        rows.prop_map(|(old, new, oid, which)| match which {
            0 => Body::new(b'I').u32(oid).tuple(b'N', &new),
            1 => Body::new(b'U').u32(oid).tuple(b'O', &old).tuple(b'N', &new),
            _ => Body::new(b'D').u32(oid).tuple(b'K', &old),
        }),
        relation.prop_map(|(oid, schema, table, identity, columns)| {
            let body = Body::new(b'R').u32(oid).name(&schema).name(&table).u8(b"dnfi"[identity]);
            columns.iter().fold(body.u16(columns.len() as u16), |body, (flags, name, oid)| {
                body.u8(*flags).name(name).u32(*oid).u32(u32::MAX)
            })
        }),
        vec(any::<u32>(), 0..5).prop_map(|oids| {
            oids.iter().fold(Body::new(b'T').u32(oids.len() as u32).u8(3), |body, oid| body.u32(*oid))
        }),
    ]
    .prop_map(Body::finish)
}

proptest! {
    #[test]
    fn transactions_round_trip(a in any::<u64>(), b in any::<u64>(), at in any::<i64>(), xid in any::<u32>(), gid in name()) {
        let (start, end) = (CommitStart::new(Lsn::new(a)), CommitEnd::new(Lsn::new(b)));
        let time = Timestamp::from_postgres_micros(at);
        let Ok(Message::Begin(begin)) = decode(Body::new(b'B').u64(a).i64(at).u32(xid).finish()) else { panic!() };
        prop_assert_eq!((begin.start, begin.committed_at, begin.xid), (start, time, xid));
        let commit = Body::new(b'C').u8(0).u64(a).u64(b).i64(at).finish();
        let Ok(Message::Commit(commit)) = decode(commit) else { panic!() };
        prop_assert_eq!((commit.start, commit.end, commit.committed_at), (start, end, time));
        let origin = Body::new(b'O').u64(a).name(&gid).finish();
        let Ok(Message::Origin(origin)) = decode(origin) else { panic!() };
        prop_assert_eq!((origin.lsn, origin.name.as_bytes()), (Lsn::new(a), gid.as_bytes()));
        let prepared = Body::new(b'K').u8(0).u64(a).u64(b).i64(at).u32(xid).name(&gid).finish();
        let Ok(Message::CommitPrepared(prepared)) = decode(prepared) else { panic!() };
        prop_assert_eq!((prepared.start, prepared.end, prepared.committed_at, prepared.xid), (start, end, time, xid));
        prop_assert_eq!(prepared.gid.to_string(), gid.as_str());
        let begin = Body::new(b'b').u64(a).u64(b).i64(at).u32(xid).name(&gid).finish();
        let Ok(Message::BeginPrepare(begin)) = decode(begin) else { panic!() };
        prop_assert_eq!((begin.prepare, begin.end, begin.prepared_at, begin.xid), (start.lsn(), end.lsn(), time, xid));
        for tag in *b"Pp" {
            let prepare = Body::new(tag).u8(0).u64(a).u64(b).i64(at).u32(xid).name(&gid).finish();
            let (Ok(Message::Prepare(prepare)) | Ok(Message::StreamPrepare(prepare))) = decode(prepare) else { panic!() };
            prop_assert_eq!((prepare.prepare, prepare.end, prepare.prepared_at, prepare.xid), (start.lsn(), end.lsn(), time, xid));
        }
        let rollback = Body::new(b'r').u8(0).u64(a).u64(b).i64(at).i64(7).u32(xid).name(&gid).finish();
        let Ok(Message::RollbackPrepared(rollback)) = decode(rollback) else { panic!() };
        prop_assert_eq!((rollback.prepare_end, rollback.rollback_end, rollback.prepared_at), (start.lsn(), end.lsn(), time));
        prop_assert_eq!((rollback.rolled_back_at, rollback.xid), (Timestamp::from_postgres_micros(7), xid));
    }

    #[test]
    fn rows_round_trip(xid in option::of(any::<u32>()), oid in any::<u32>(), old in cells(), new in cells()) {
        let start = |tag| Body::new(tag).xid(xid).u32(oid);
        let Message::Insert(insert) = decode_for(xid, start(b'I').tuple(b'N', &new).finish()) else { panic!() };
        prop_assert!(insert.stream_xid == xid && insert.relation.get() == oid && same(&insert.new, &new));
        let Message::Update(update) = decode_for(xid, start(b'U').tuple(b'N', &new).finish()) else { panic!() };
        prop_assert!(update.stream_xid == xid && update.relation.get() == oid);
        prop_assert!(update.old.is_none() && same(&update.new, &new));
        for kind in *b"KO" {
            let update = start(b'U').tuple(kind, &old).tuple(b'N', &new).finish();
            let Message::Update(update) = decode_for(xid, update) else { panic!() };
            prop_assert!(same(&update.new, &new) && same(update.old.as_ref().unwrap().tuple(), &old));
            prop_assert_eq!(matches!(update.old, Some(OldTuple::Key(_))), kind == b'K');
            let Message::Delete(delete) = decode_for(xid, start(b'D').tuple(kind, &old).finish()) else { panic!() };
            prop_assert!(delete.stream_xid == xid && delete.relation.get() == oid && same(delete.old.tuple(), &old));
            prop_assert_eq!(matches!(delete.old, OldTuple::Key(_)), kind == b'K');
        }
    }

    #[test]
    fn definitions_round_trip(
        xid in option::of(any::<u32>()),
        oid in any::<u32>(),
        names in (name(), name()),
        identity in 0_usize..4,
        columns in vec((any::<bool>(), name(), any::<u32>(), any::<i32>()), 0..20),
    ) {
        let mut body = Body::new(b'R').xid(xid).u32(oid).name(&names.0).name(&names.1).u8(b"dnfi"[identity]);
        body = body.u16(columns.len() as u16);
        for (key, name, oid, modifier) in &columns {
            body = body.u8(u8::from(*key)).name(name).u32(*oid).u32(*modifier as u32);
        }
        let Message::Relation(relation) = decode_for(xid, body.finish()) else { panic!() };
        use ReplicaIdentity::{Default, Full, Index, Nothing};
        prop_assert_eq!((relation.stream_xid, relation.oid), (xid, Oid::new(oid)));
        prop_assert_eq!(relation.identity, [Default, Nothing, Full, Index][identity]);
        prop_assert_eq!([relation.schema.to_string(), relation.name.to_string()], [names.0.as_str(), names.1.as_str()]);
        let got = relation.columns.iter().map(|c| (c.identity, c.name.to_string(), c.type_oid.get(), c.type_modifier));
        prop_assert_eq!(got.collect::<Vec<_>>(), columns);
        let body = Body::new(b'Y').xid(xid).u32(oid).name(&names.0).name(&names.1).finish();
        let Message::Type(definition) = decode_for(xid, body) else { panic!() };
        prop_assert_eq!((definition.stream_xid, definition.oid), (xid, Oid::new(oid)));
        prop_assert_eq!((definition.schema.to_string(), definition.name.to_string()), names);
    }

    #[test]
    fn truncates_and_messages_round_trip(
        xid in option::of(any::<u32>()),
        oids in vec(any::<u32>(), 0..9),
        flags in 0_u8..4,
        content in vec(any::<u8>(), 0..50),
        prefix in name(),
        lsn in any::<u64>(),
    ) {
        let body = Body::new(b'T').xid(xid).u32(oids.len() as u32).u8(flags);
        let body = oids.iter().fold(body, |body, oid| body.u32(*oid));
        let Message::Truncate(truncate) = decode_for(xid, body.finish()) else { panic!() };
        prop_assert_eq!((truncate.stream_xid, truncate.cascade, truncate.restart_identity), (xid, flags & 1 != 0, flags & 2 != 0));
        prop_assert_eq!(truncate.relations, oids.into_iter().map(Oid::new).collect::<Vec<_>>());
        let body = Body::new(b'M').xid(xid).u8(flags & 1).u64(lsn).name(&prefix).bytes(&content).finish();
        let Message::LogicalMessage(message) = decode_for(xid, body) else { panic!() };
        prop_assert_eq!((message.stream_xid, message.transactional, message.lsn), (xid, flags & 1 != 0, Lsn::new(lsn)));
        prop_assert_eq!((message.prefix.to_string(), message.content.as_ref()), (prefix, content.as_slice()));
    }

    #[test]
    fn every_shorter_or_longer_message_is_an_error(bytes in message(), more in 1_usize..4) {
        prop_assert!(decode(bytes.clone()).is_ok());
        // A stream abort without its position and time is a shorter message of its own.
        let shorter = (0..bytes.len()).filter(|length| !(bytes[0] == b'A' && *length == 9));
        for length in shorter {
            prop_assert!(decode(bytes[..length].to_vec()).is_err(), "{length} of {}", bytes.len());
        }
        let mut longer = bytes;
        longer.resize(longer.len() + more, 0);
        let trailing = matches!(decode(longer), Err(DecodeError::Trailing { .. }));
        prop_assert!(trailing);
    }

    #[test]
    fn mutated_messages_never_panic(mut bytes in message(), at in any::<usize>(), byte in any::<u8>(), stream in any::<bool>()) {
        let at = at % bytes.len();
        bytes[at] = byte;
        let decoded = if stream { decode_in_stream(bytes) } else { decode(bytes) };
        if let Ok(message) = decoded {
            checks::message(&message);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        checks::decode(&bytes);
        checks::values(&bytes);
    }
}

#[test]
fn the_transaction_id_is_there_only_between_stream_start_and_stop() {
    let mut decoder = Decoder::new();
    let mut decode = |body: Body| decoder.decode(Bytes::from(body.finish()));
    let insert = |xid| Body::new(b'I').xid(xid).u32(9).tuple(b'N', &[]);
    let xid = |message| match message {
        Ok(Message::Insert(insert)) => insert.stream_xid,
        other => panic!("{other:?}"),
    };
    assert_eq!(xid(decode(insert(None))), None);
    assert!(
        matches!(decode(Body::new(b'S').u32(5).u8(1)), Ok(Message::StreamStart(start)) if start.first && start.xid == 5)
    );
    assert_eq!(xid(decode(insert(Some(6)))), Some(6));
    assert!(decode(insert(None)).is_err(), "without the id the message is too short");
    assert!(
        matches!(decode(Body::new(b'O').u64(1).name("elsewhere")), Ok(Message::Origin(_))),
        "origins carry none"
    );
    assert!(matches!(decode(Body::new(b'S').u32(5).u8(0)), Err(DecodeError::Misplaced { .. })));
    assert!(matches!(decode(Body::new(b'B').u64(1).i64(1).u32(1)), Err(DecodeError::Misplaced { .. })));
    assert_eq!(decode(Body::new(b'E')), Ok(Message::StreamStop));
    assert_eq!(xid(decode(insert(None))), None);
    assert!(matches!(decode(Body::new(b'E')), Err(DecodeError::Misplaced { .. })));
}

#[test]
fn a_stream_abort_without_a_stream_is_tolerated_in_both_lengths() {
    let Ok(Message::StreamAbort(abort)) = decode(Body::new(b'A').u32(7).u32(8).finish()) else { panic!() };
    assert_eq!((abort.xid, abort.subxid, abort.aborted), (7, 8, None));
    let Ok(Message::StreamAbort(abort)) = decode(Body::new(b'A').u32(7).u32(8).u64(9).i64(10).finish())
    else {
        panic!()
    };
    assert_eq!(abort.aborted, Some((Lsn::new(9), Timestamp::from_postgres_micros(10))));
}

#[test]
fn a_stream_commit_names_its_transaction() {
    let body = Body::new(b'c').u32(7).u8(0).u64(1).u64(2).i64(3).finish();
    let Ok(Message::StreamCommit(commit)) = decode(body) else { panic!() };
    assert_eq!(
        (commit.xid, commit.start, commit.end),
        (7, CommitStart::new(Lsn::new(1)), CommitEnd::new(Lsn::new(2)))
    );
}

#[test]
fn unknown_tags_flags_and_kinds_are_errors() {
    assert_eq!(decode(Vec::new()), Err(DecodeError::Empty));
    for tag in (0..=u8::MAX).filter(|tag| !b"BCORYIUDTMSEcAbPKrp".contains(tag)) {
        assert_eq!(decode(vec![tag, 0]), Err(DecodeError::Unknown { tag: tag.into() }));
    }
    for body in [
        Body::new(b'C').u8(1).u64(1).u64(2).i64(3),
        Body::new(b'I').u32(1).tuple(b'O', &[]),
        Body::new(b'D').u32(1).tuple(b'N', &[]),
        Body::new(b'U').u32(1).tuple(b'K', &[]).tuple(b'K', &[]),
        Body::new(b'I').u32(1).u8(b'N').u16(1).u8(b'x'),
        Body::new(b'R').u32(1).name("").name("").u8(b'x').u16(0),
        Body::new(b'M').u8(2).u64(0).name("").bytes(b""),
        Body::new(b'T').u32(0).u8(4),
    ] {
        assert!(matches!(decode(body.finish()), Err(DecodeError::Invalid { .. })));
    }
}

#[test]
fn a_count_beyond_the_message_is_an_error_before_anything_is_allocated() {
    for body in [
        Body::new(b'T').u32(u32::MAX).u8(0).u32(1),
        Body::new(b'R').u32(1).name("").name("").u8(b'd').u16(u16::MAX),
        Body::new(b'I').u32(1).u8(b'N').u16(u16::MAX),
        Body::new(b'M').u8(0).u64(0).name("").u32(u32::MAX),
        Body::new(b'I').u32(1).u8(b'N').u16(1).u8(b't').u32(u32::MAX),
    ] {
        assert!(matches!(decode(body.finish()), Err(DecodeError::Truncated { .. })));
    }
}

#[test]
fn values_are_slices_of_the_payload() {
    let payload = Bytes::from(Body::new(b'I').u32(1).tuple(b'N', &[Cell::Text(b"value".to_vec())]).finish());
    let range = payload.as_ptr_range();
    let Ok(Message::Insert(insert)) = Decoder::new().decode(payload) else { panic!() };
    let Some(TupleColumn::Text(value)) = insert.new.iter().next() else { panic!() };
    assert!(range.contains(&value.as_ptr()) && value == b"value");
}

#[test]
fn debug_output_shows_no_row_values() {
    let row = [Cell::Text(b"secret".to_vec()), Cell::Binary(b"secret".to_vec())];
    let insert = decode(Body::new(b'I').u32(1).tuple(b'N', &row).finish()).unwrap();
    let message = decode(Body::new(b'M').u8(0).u64(0).name("p").bytes(b"secret").finish()).unwrap();
    let Message::Insert(columns) = &insert else { panic!() };
    let all = format!("{insert:?} {message:?} {:?}", columns.new.iter().collect::<Vec<_>>());
    assert!(!all.contains("secret") && !all.contains("115"), "{all}");
}
