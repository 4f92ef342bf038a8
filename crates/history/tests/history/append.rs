//! What is stored is what the feed had.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, proptest};
use walcast_feed::FeedLimits;
use walcast_history::{
    AppendLimits, AppenderState, Error, ErrorClass, FeedRecord, PageLimits, Reader, schema,
};
use walcast_model::{
    CommitEnd, CommitStart, Cursor, Lsn, Op, Part, PartBuilder, Seq, Timestamp, Transaction, Xid,
};
use walcast_postgres::{Pool, Session};
use walcast_testkit::{LIMIT, TestDatabase, for_each_version, shared_cluster, within};

use crate::transactions::{Source, flatten, relation};
use crate::world::{START, Storing, World, config, fast, new_feed};

fn cursors(parts: &[Part]) -> Vec<(Cursor, Cursor, &[u8])> {
    parts.iter().map(|part| (part.cursor(), part.next_cursor(), part.json().as_ref())).collect()
}

#[tokio::test]
async fn parts_come_back_as_they_were() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(7, START, 2000).transactions(300, 40, 60);
        world.store_all(&parts).await;
        let limits = PageLimits { bytes_max: 100 << 20, changes_max: 1_000_000, part_bytes_max: 2000 };
        // Twice: the second time with all definitions known, and the size of a change.
        for _ in 0..2 {
            let pages = world.read_all(Lsn::new(START).into(), limits).await;
            let back: Vec<Part> = pages.into_iter().flat_map(|page| page.parts).collect();
            assert_eq!(flatten(&back), flatten(&parts));
        }
        let pages = world.read_all(Lsn::new(START).into(), limits).await;
        let [page] = pages.as_slice() else { panic!("one page") };
        assert_eq!(cursors(&page.parts), cursors(&parts));
    })
    .await;
}

#[tokio::test]
async fn people_can_query_it() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(3, START, 2000).transactions(50, 10, 60);
    world.store_all(&parts).await;
    let flat = flatten(&parts);
    let inserts = flat.iter().filter(|change| change.json.starts_with("{\"op\":\"insert\"")).count();
    let sql = r#"SELECT count(*) FROM walcast.changes WHERE op = 'insert' AND "row" ? 'id' AND schema_name = 'sho"p'"#;
    assert_eq!(world.database.scalar(sql).await, Some(inserts.to_string()));
    let sql = "SELECT count(commit_end) FROM walcast.change_history AS h JOIN walcast.relation AS r ON r.digest = h.relation";
    assert_eq!(world.database.scalar(sql).await.as_deref(), Some("50"));
    let sql = "SELECT to_char(committed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM walcast.changes \
               ORDER BY lsn, seq LIMIT 1";
    assert_eq!(world.database.scalar(sql).await, Some(flat[0].committed_at.to_string()));
}

#[tokio::test]
async fn a_transaction_in_several_commits_is_resumed_inside() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(11, START, 500);
        let small = source.transactions(3, 3, 20);
        let boundary = small.last().unwrap().next_cursor().lsn();
        let huge = source.transaction(500, 50);
        let after = source.transactions(3, 3, 20);
        let all: Vec<Part> = [small.clone(), huge.clone(), after.clone()].concat();
        // The first process gets a part of the huge one only, in many commits, and is gone.
        let limits = AppendLimits { append_changes_max: 7, ..fast() };
        let mut first = world.store(limits).await;
        first.writer.push(small).await;
        first.writer.push(huge[..huge.len() / 2].to_vec()).await;
        let inside = first.feed.head();
        assert!(inside.seq() > Seq::FIRST);
        first.until_stored(inside).await;
        // Inside a transaction nothing is acknowledged past the last whole one.
        first.until_acknowledged(boundary).await;
        assert_eq!(*first.acknowledged.borrow(), boundary);
        first.crash().await;
        let record = world.record().await;
        assert_eq!(record.position, inside);
        // What can be read ends inside the transaction, and says so.
        let read = world.stored_parts().await;
        assert_eq!(read.last().unwrap().end(), None);
        assert_eq!(read.last().unwrap().next_cursor(), inside);
        // The next process is sent the whole transaction again, and skips what is stored; its first part begins
        // before the position, as when the bounds of parts have changed.
        let mut second = world.store(limits).await;
        second.writer.push(huge[huge.len() / 2..].to_vec()).await;
        second.writer.push(after).await;
        let end = second.feed.head();
        second.stop().await.unwrap();
        assert_eq!(world.record().await.position, end);
        assert_eq!(flatten(&world.stored_parts().await), flatten(&all));
    })
    .await;
}

#[tokio::test]
async fn a_part_that_begins_before_the_position_is_stored_from_there() {
    let world = World::create(shared_cluster().await).await;
    let mut source = Source::new(12, START, 300);
    let parts = source.transaction(40, 30);
    let whole = Source::new(12, START, usize::MAX).transaction(40, 30);
    let mut first = world.store(fast()).await;
    first.writer.push(parts[..1].to_vec()).await;
    first.until_stored(parts[0].next_cursor()).await;
    first.crash().await;
    let mut record = world.record().await;
    let position = record.position;
    // A feed that starts earlier than the history stands, as Feed::new of a rounded position would.
    let (mut writer, feed) = walcast_feed::Feed::new(Lsn::new(START).into(), FeedLimits::default());
    writer.push(whole).await;
    let (acknowledge, _) = tokio::sync::watch::channel(Lsn::ZERO);
    record.position = position;
    let appender = walcast_history::Appender::new(world.config.clone(), record, feed, fast(), acknowledge);
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    within("stored", LIMIT, appender.run(std::future::ready(()), cancel)).await.unwrap();
    assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
}

#[tokio::test]
async fn text_without_an_encoding_stays_as_it_is() {
    for_each_version(async |cluster| {
        let options = "ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0";
        let database = TestDatabase::create_as(cluster, options).await;
        let config = config(database.url());
        let mut session = Session::connect(&config, "test").await.unwrap();
        schema::apply(&mut session).await.unwrap();
        let record = FeedRecord::create(&mut session, &new_feed()).await.unwrap();
        let transaction = Transaction {
            start: CommitStart::new(Lsn::new(START)),
            xid: Xid::new(1),
            committed_at: Timestamp::default(),
        };
        let mut part = PartBuilder::new(Arc::new(transaction), Seq::FIRST);
        let mut change = part.change(Op::Insert, &relation(1));
        let row = |out: &mut Vec<u8>| -> Result<(), Infallible> {
            out.extend_from_slice(b"{\"\xe4\":\"\xff\xfe\"}");
            Ok(())
        };
        change.row(row).unwrap();
        change.finish().unwrap();
        let part = part.finish(Some(CommitEnd::new(Lsn::new(START + 50))));
        let (from, id) = (record.position, record.id.clone());
        let mut storing = Storing::start(config.clone(), record, fast(), FeedLimits::default());
        storing.writer.push(vec![part.clone()]).await;
        let to = storing.feed.head();
        storing.stop().await.unwrap();
        let reader = Reader::new(Pool::new(config, "test", 1), id);
        let page = reader.read(from, to, PageLimits::default()).await.unwrap();
        assert_eq!(page.parts[0].json(), part.json());
        drop((reader, session));
        database.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_huge_row_goes_in_and_comes_out() {
    let world = World::create(shared_cluster().await).await;
    let mut source = Source::new(5, START, 1 << 20);
    let mut parts = source.transactions(3, 3, 20);
    parts.extend(source.transaction(4, 30 << 20));
    parts.extend(source.transactions(3, 3, 20));
    let mut storing = Storing::start(
        world.config.clone(),
        world.record().await,
        fast(),
        FeedLimits { memory_bytes_max: 1 << 20 },
    );
    storing.writer.push(parts.clone()).await;
    storing.stop().await.unwrap();
    let pages = world.read_all(Lsn::new(START).into(), PageLimits::default()).await;
    // However many changes were asked for, a page ends with the change that fills it.
    for page in &pages {
        let full = |part: &Part| part.json().len() > 1 << 20;
        assert!(page.parts.iter().filter(|part| full(part)).count() <= 1, "two huge rows in one page");
    }
    let back: Vec<Part> = pages.into_iter().flat_map(|page| page.parts).collect();
    assert!(flatten(&back) == flatten(&parts));
}

#[tokio::test]
async fn a_late_writer_is_fenced_and_changes_nothing() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(9, START, 1000).transactions(20, 5, 20);
        let mut late = world.store(fast()).await;
        late.writer.push(parts[..2].to_vec()).await;
        late.until_stored(late.feed.head()).await;
        let mut successor = world.store(fast()).await;
        successor.until_claimed().await;
        // The position is where it left it, and yet it may not move it any more.
        late.writer.push(parts[2..4].to_vec()).await;
        let error = within("the late writer ends", LIMIT, late.task).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Fenced { .. }), "{error}");
        successor.writer.push(parts[2..].to_vec()).await;
        successor.stop().await.unwrap();
        assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
    })
    .await;
}

#[tokio::test]
async fn a_feed_that_moved_or_was_claimed_since_its_record_was_read_is_not_claimed() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(9, START, 1000).transactions(4, 5, 20);
    let record = world.record().await;
    let start = |record| Storing::start(world.config.clone(), record, fast(), FeedLimits::default());
    let mut first = start(record.clone());
    first.until_claimed().await;
    let error = within("claimed", LIMIT, start(record).task).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::MovedOn { .. }) && error.class() == ErrorClass::Transient, "{error}");
    let record = world.record().await;
    first.writer.push(parts[..2].to_vec()).await;
    first.until_stored(first.feed.head()).await;
    let error = within("moved", LIMIT, start(record).task).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::MovedOn { .. }), "{error}");
    // Neither has taken anything from the one that stores.
    first.writer.push(parts[2..].to_vec()).await;
    first.stop().await.unwrap();
    assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
}

#[tokio::test]
async fn without_the_slot_nothing_is_claimed() {
    let world = World::create(shared_cluster().await).await;
    let record = world.record().await;
    let (_writer, feed) = walcast_feed::Feed::new(record.position, FeedLimits::default());
    let (acknowledge, _) = tokio::sync::watch::channel(Lsn::ZERO);
    let appender =
        walcast_history::Appender::new(world.config.clone(), record.clone(), feed, fast(), acknowledge);
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    within("it ends", LIMIT, appender.run(std::future::pending(), cancel)).await.unwrap();
    assert_eq!(world.record().await, record);
}

#[tokio::test]
async fn a_writer_that_was_replaced_learns_it_also_when_nothing_comes_for_it() {
    let world = World::create(shared_cluster().await).await;
    let limits = AppendLimits { fence_interval: Duration::from_millis(20), ..fast() };
    let replaced = world.store(limits).await;
    let mut state = replaced.state.clone();
    within("a connection", LIMIT, state.wait_for(|state| *state == AppenderState::Storing)).await.unwrap();
    world.store_all(&Source::new(9, START, 1000).transactions(2, 5, 20)).await;
    let error = within("the replaced writer ends", LIMIT, replaced.task).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
}

#[tokio::test]
async fn of_two_that_begin_together_one_stores() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(9, START, 1000).transactions(4, 5, 20);
    // Both know the record as it was before either claimed it.
    let record = world.record().await;
    let start = || Storing::start(world.config.clone(), record.clone(), fast(), FeedLimits::default());
    let (mut one, mut two) = (start(), start());
    one.writer.push(parts.clone()).await;
    two.writer.push(parts.clone()).await;
    let outcomes = [one.stop(), two.stop()];
    let outcomes = futures_util::future::join_all(outcomes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(Error::MovedOn { .. }))), "{outcomes:?}");
    assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn batches_of_every_shape_store_the_same(
        seed in 0_u64..1 << 32, transactions in 1_usize..12, changes_max in 1_usize..30, batch in 1_usize..40,
        part_bytes in 50_usize..3000, crash_after in 0_usize..12,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let installation = walcast_testkit::installations().pop().unwrap();
            let world = World::of(shared_database(&installation).await).await;
            let parts = Source::new(seed, START, part_bytes).transactions(transactions, changes_max, 30);
            let limits = AppendLimits { append_changes_max: batch, append_bytes_max: part_bytes * 3, ..fast() };
            let crash_after = crash_after.min(parts.len());
            let mut first = world.store(limits).await;
            first.writer.push(parts[..crash_after].to_vec()).await;
            if seed % 2 == 0 {
                first.until_stored(first.feed.head()).await;
            }
            first.crash().await;
            let mut second = world.store(limits).await;
            // As the replicator does: from the position on.
            let position = second.feed.head();
            second.writer.push(parts.iter().filter(|part| part.next_cursor() > position).cloned().collect()).await;
            second.stop().await.unwrap();
            assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
            world.database.close().await;
        });
    }
}

/// A database on a server that outlives this runtime.
async fn shared_database(installation: &walcast_testkit::Installation) -> TestDatabase {
    TestDatabase::create(walcast_testkit::shared_cluster_of(installation).await).await
}
