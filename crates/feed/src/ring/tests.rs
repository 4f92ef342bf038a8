use std::sync::Arc;

use walcast_model::{
    CommitEnd, CommitStart, Cursor, Lsn, Oid, Op, Part, PartBuilder, Relation, RelationName, ReplicaIdentity,
    Seq, Timestamp, Transaction, Xid,
};

use super::{Feed, FeedLimits, Read};

/// A part of `count` changes at `start`; with an end unless more parts follow.
fn part(start: u64, first: i64, count: usize, end: Option<u64>) -> Part {
    let name = RelationName::new("public", "t");
    let relation = Arc::new(Relation::new(Oid::new(1), name, ReplicaIdentity::Default, Vec::new()));
    let start = CommitStart::new(Lsn::new(start));
    let transaction = Transaction { start, xid: Xid::new(1), committed_at: Timestamp::default() };
    let mut builder = PartBuilder::new(Arc::new(transaction), Seq::new(first));
    for _ in 0..count {
        builder.change(Op::Truncate, &relation).finish().unwrap();
    }
    builder.finish(end.map(|end| CommitEnd::new(Lsn::new(end))))
}

fn at(lsn: u64) -> Cursor {
    Lsn::new(lsn).into()
}

fn starts(read: Read) -> (Vec<Cursor>, Cursor) {
    match read {
        Read::Parts { parts, next } => (parts.iter().map(|part| part.cursor()).collect(), next),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn reading_from_any_cursor_gives_exactly_the_rest() {
    let (mut writer, feed) = Feed::new(at(10), FeedLimits::default());
    writer.push(vec![part(10, 0, 2, Some(20)), part(20, 0, 3, None), part(20, 3, 1, Some(30))]).await;
    assert_eq!(
        starts(feed.read(at(10), usize::MAX)),
        (vec![at(10), at(20), "0/14:3".parse().unwrap()], at(30))
    );
    assert_eq!(starts(feed.read("0/14:1".parse().unwrap(), 1)), (vec![at(20)], "0/14:3".parse().unwrap()));
    assert_eq!(starts(feed.read("0/14:3".parse().unwrap(), 1)).0, ["0/14:3".parse().unwrap()]);
    assert!(matches!(feed.read(at(30), 1), Read::AtHead { head } if head == at(30)));
    assert!(matches!(feed.read(at(9), 1), Read::Behind { oldest } if oldest == at(10)));
    writer.advance(Lsn::new(40));
    assert_eq!(starts(feed.read(at(15), usize::MAX)).1, at(40));
}

#[tokio::test]
async fn every_place_of_a_ring_of_any_length_is_found() {
    for length in 0..20 {
        let (mut writer, feed) = Feed::new(at(10), FeedLimits::default());
        writer.push((1..=length).map(|n| part(10 * n, 0, 1, Some(10 * n + 10))).collect::<Vec<_>>()).await;
        for from in 10..=10 * length {
            let expected: Vec<Cursor> =
                (1..=length).map(|n| at(10 * n)).filter(|start| *start >= at(from / 10 * 10)).collect();
            assert_eq!(starts(feed.read(at(from), usize::MAX)).0, expected, "{from} of {length}");
        }
        assert!(matches!(feed.read(at(10 * length + 10), 1), Read::AtHead { .. }));
    }
}

#[tokio::test]
async fn a_full_feed_waits_for_history_and_evicts_only_what_history_has() {
    let one = part(10, 0, 1, Some(20)).memory_bytes();
    let (mut writer, feed) = Feed::new(at(0), FeedLimits { memory_bytes_max: one });
    writer.push(vec![part(10, 0, 1, Some(20))]).await;
    let blocked = tokio::spawn(async move {
        writer.push(vec![part(20, 0, 1, Some(30)), part(30, 0, 1, Some(40))]).await;
    });
    tokio::task::yield_now().await;
    assert_eq!(feed.head(), at(20));
    let mut head = feed.watch_head();
    feed.mark_stored(at(20));
    head.wait_for(|head| *head >= at(30)).await.unwrap();
    assert_eq!(feed.head(), at(30));
    feed.mark_stored(at(30));
    blocked.await.unwrap();
    assert_eq!(feed.head(), at(40));
    assert!(matches!(feed.read(at(10), 1), Read::Behind { .. }));
    assert!(feed.oldest() <= feed.stored());
}
