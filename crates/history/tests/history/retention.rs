//! Old partitions go, whole; whoever needs them is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walcast_history::{AppendLimits, Error, FeedRecord, PageLimits, Retention, RetentionLimits};
use walcast_model::{Cursor, Lsn, Op, Part, PartBuilder, Seq, Snapshot};
use walcast_testkit::{LIMIT, for_each_version, shared_cluster, within};

use crate::transactions::{Flat, Source, flatten, relation};
use crate::world::{START, World, connect, fast, new_feed};

/// A snapshot of the source that sees every transaction that [`Source`] makes.
const ALL: &str = "1000000:1000000:";

/// Partitions of 4 KiB of WAL each, in commits of a few changes.
fn narrow() -> AppendLimits {
    AppendLimits { history_partition_wal_bytes: 4096, append_changes_max: 20, ..fast() }
}

fn by_size(bytes: u64) -> RetentionLimits {
    RetentionLimits {
        history_retention: None,
        history_bytes_max: Some(bytes),
        interval: Duration::from_millis(50),
    }
}

fn by_age(age: Duration) -> RetentionLimits {
    RetentionLimits { history_retention: Some(age), ..by_size(u64::MAX) }
}

/// Retention at work.
struct Retaining {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Retaining {
    /// For the process that stored last.
    async fn start(world: &World, limits: RetentionLimits, snapshot: &'static str) -> Self {
        let writer = world.database.scalar("SELECT writer FROM walcast.feed").await.unwrap();
        Self::start_as(world, writer.parse().unwrap(), limits, snapshot).await
    }

    async fn start_as(world: &World, writer: i64, limits: RetentionLimits, snapshot: &'static str) -> Self {
        let source = Arc::new(move || {
            let snapshot: Snapshot = snapshot.parse().unwrap();
            async move { Ok(snapshot) }.boxed()
        });
        let record = world.record().await;
        let retention = Retention::new(world.config.clone(), &record, writer, limits, source);
        let cancel = CancellationToken::new();
        Self { task: tokio::spawn(retention.run(cancel.clone())), cancel }
    }

    async fn stop(self) {
        self.cancel.cancel();
        within("retention stops", LIMIT, self.task).await.unwrap();
    }
}

async fn partitions(world: &World) -> usize {
    let count = world.database.scalar("SELECT count(*) FROM walcast.partition").await.unwrap();
    count.parse().unwrap()
}

/// Every page from `from` on, or the error that one of them is.
async fn read(world: &World, mut from: Cursor, limits: PageLimits) -> Result<Vec<Flat>, Error> {
    let to = world.record().await.position;
    let mut flat = Vec::new();
    while from < to {
        let page = world.reader.read_kept(from, to, limits).await?;
        flat.extend(flatten(&page.parts));
        from = page.next;
    }
    Ok(flat)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_size_whole_partitions_go_and_every_cursor_gets_exactly_the_rest_or_is_too_old() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(51, START, 300);
        // A definition that only the oldest partition refers to.
        let mut parts = source.transaction(1, 10);
        let first = &parts[0];
        let mut part = PartBuilder::new(Arc::clone(first.transaction()), Seq::FIRST);
        part.change(Op::Truncate, &relation(77)).finish().unwrap();
        parts = vec![part.finish(first.end())];
        parts.extend(source.transactions(150, 8, 30));
        let mut storing = world.store(narrow()).await;
        for part in &parts {
            storing.writer.push(vec![part.clone()]).await;
        }
        storing.until_stored(storing.feed.head()).await;
        let made = partitions(&world).await;
        assert!(made > 5, "{made} partitions");
        let known = "SELECT count(*) FILTER (WHERE oid = 77) || ' ' || count(*) FROM walcast.relation";
        assert_eq!(world.database.scalar(known).await.as_deref(), Some("1 6"));

        let size = "SELECT sum(pg_total_relation_size(oid::oid)) FROM walcast.partition";
        let bytes: u64 = world.database.scalar(size).await.unwrap().parse().unwrap();
        let retaining = Retaining::start(&world, by_size(bytes / 2), ALL).await;
        world.database.until(&format!("SELECT ({size}) <= {}", bytes / 2), "t").await;
        retaining.stop().await;
        storing.stop().await.unwrap();

        let left = partitions(&world).await;
        assert!((2..made).contains(&left), "{left} of {made} partitions");
        assert_eq!(world.database.scalar(known).await.as_deref(), Some("0 5"));
        let split = "SELECT count(*) FROM walcast.partition AS p WHERE
            (SELECT seq FROM walcast.change_history WHERE lsn >= p.lower_lsn ORDER BY lsn, seq LIMIT 1) <> 0";
        assert_eq!(world.database.scalar(split).await.as_deref(), Some("0"));
        let lower: Cursor = world
            .database
            .scalar("SELECT min(lower_lsn) FROM walcast.partition")
            .await
            .unwrap()
            .parse()
            .unwrap();
        let dropped = parts.iter().filter(|part| part.cursor() < lower);
        let oldest = world.reader.oldest().await.unwrap();
        assert_eq!(dropped.map(Part::next_cursor).max(), Some(oldest), "the cursor after the last that went");

        let all = flatten(&parts);
        let cursors =
            all.iter().map(|change| change.cursor).chain(parts.iter().map(Part::next_cursor)).step_by(3);
        for from in cursors {
            match read(&world, from, PageLimits { changes_max: 60, ..PageLimits::default() }).await {
                Ok(flat) => {
                    assert!(from >= oldest, "{from}");
                    let rest: Vec<Flat> =
                        all.iter().filter(|change| change.cursor >= from).cloned().collect();
                    assert_eq!(flat, rest, "from {from}");
                }
                Err(Error::TooOld { cursor, oldest: told }) => {
                    assert!(cursor == from && from < oldest && told == oldest, "{from}");
                }
                Err(error) => panic!("{from}: {error}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_the_appender_go_on_while_partitions_are_dropped() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(52, START, 1000).transactions(500, 4, 30);
        let mut storing = world.store(narrow()).await;
        storing.writer.push(parts[..20].to_vec()).await;
        storing.until_stored(storing.feed.head()).await;
        let retaining = Retaining::start(&world, by_size(300_000), ALL).await;
        let done = Arc::new(AtomicBool::new(false));
        let all = Arc::new(flatten(&parts));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (reader, feed) = (world.reader.clone(), storing.feed.clone());
                let (done, all) = (Arc::clone(&done), Arc::clone(&all));
                tokio::spawn(async move {
                    let (mut from, mut too_old) = (Cursor::from(Lsn::new(START)), 0);
                    loop {
                        let last = done.load(Ordering::SeqCst);
                        let to = feed.stored();
                        while from < to {
                            let limits = PageLimits { changes_max: 7, ..PageLimits::default() };
                            match reader.read_kept(from, to, limits).await {
                                Ok(page) => {
                                    let expected =
                                        all.iter().filter(|c| c.cursor >= from && c.cursor < page.next);
                                    assert!(
                                        flatten(&page.parts).iter().eq(expected),
                                        "{from} to {}",
                                        page.next
                                    );
                                    from = page.next;
                                }
                                Err(Error::TooOld { oldest, .. }) => {
                                    too_old += 1;
                                    from = oldest;
                                }
                                Err(error) => panic!("{from}: {error}"),
                            }
                        }
                        if last {
                            return (from, too_old);
                        }
                        // A slow reader: it is overtaken now and then.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                })
            })
            .collect();
        // What retention does is never taken for something that is missing.
        let (session, record) = (connect(&world.database).await, world.record().await);
        let looked = Arc::clone(&done);
        let watching = tokio::spawn(async move {
            while !looked.load(Ordering::SeqCst) {
                assert!(record.is_whole(&session).await.unwrap());
            }
        });
        for part in &parts[20..] {
            storing.writer.push(vec![part.clone()]).await;
            if storing.feed.memory_bytes() > 20_000 {
                storing.until_stored(storing.feed.head()).await;
            }
        }
        let end = storing.feed.head();
        storing.until_stored(end).await;
        world
            .database
            .until("SELECT sum(pg_total_relation_size(oid::oid)) <= 300000 FROM walcast.partition", "t")
            .await;
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            let (at, too_old) = reader.await.unwrap();
            assert_eq!(at, end, "too old {too_old} times");
        }
        watching.await.unwrap();
        retaining.stop().await;
        storing.stop().await.unwrap();
        let known: i64 = world
            .database
            .scalar("SELECT count(*) FROM walcast.partition_record")
            .await
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(known as usize, partitions(&world).await);
    })
    .await;
}

#[tokio::test]
async fn only_the_process_that_stores_the_feed_drops() {
    let world = World::create(shared_cluster().await).await;
    let parts = Source::new(53, START, 1000).transactions(60, 4, 30);
    let mut storing = world.store(narrow()).await;
    storing.writer.push(parts).await;
    storing.until_stored(storing.feed.head()).await;
    let made = partitions(&world).await;
    let stranger = Retaining::start_as(&world, 4711, by_size(1), ALL).await;
    let sql = format!(
        "SELECT walcast.drop_partitions('{}', 4711, '0/1001000', 1, '{ALL}', 100)",
        world.record().await.id
    );
    let session = world.database.session().await;
    let refused = session.batch_execute(&sql).await.unwrap_err();
    assert_eq!(refused.code().map(|code| code.code()), Some("WC001"));
    assert_eq!(partitions(&world).await, made);
    let retaining = Retaining::start(&world, by_size(1), ALL).await;
    world.database.until("SELECT count(*) FROM walcast.partition", "1").await;
    // What is being written stays, whoever asks.
    let writer = world.database.scalar("SELECT writer FROM walcast.feed").await.unwrap();
    let sql = sql.replace("4711", &writer).replace("0/1001000", "FFFFFFFF/0");
    assert!(session.batch_execute(&sql).await.is_err());
    stranger.stop().await;
    retaining.stop().await;
    storing.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_reads_for_long_delays_dropping_and_nobody_else() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(54, START, 1000);
        let mut storing = world.store(narrow()).await;
        storing.writer.push(source.transactions(60, 4, 30)).await;
        storing.until_stored(storing.feed.head()).await;
        let reading = world.database.session().await;
        reading.batch_execute("BEGIN; SELECT count(*) FROM walcast.change_history").await.unwrap();
        let oldest = world.reader.oldest().await.unwrap();
        let retaining = Retaining::start(&world, by_size(1), ALL).await;
        // Waits behind it for a moment; the others that were granted meanwhile wait behind that.
        let blocked = "SELECT count(*) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
                       WHERE NOT l.granted AND a.application_name = 'walcast retention' AND a.datname = current_database()";
        world.database.until(blocked, "1").await;
        for _ in 0..5 {
            storing.writer.push(source.transactions(10, 4, 30)).await;
            storing.until_stored(storing.feed.head()).await;
            read(&world, oldest, PageLimits::default()).await.unwrap();
        }
        assert!(partitions(&world).await > 2);
        reading.batch_execute("COMMIT").await.unwrap();
        world.database.until("SELECT count(*) FROM walcast.partition", "1").await;
        retaining.stop().await;
        storing.stop().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_age_partitions_are_cut_and_dropped_on_a_system_that_writes_little() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(55, START, 200);
        // Far wider than all that is written.
        let limits = AppendLimits { history_partition_age: Duration::from_millis(1), ..fast() };
        let mut storing = world.store(limits).await;
        let mut parts = Vec::new();
        for _ in 0..6 {
            let more = source.transactions(3, 6, 30);
            parts.extend(more.clone());
            storing.writer.push(more).await;
            storing.until_stored(storing.feed.head()).await;
        }
        let made = partitions(&world).await;
        assert!(made >= 5, "{made} partitions");
        assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
        let gaps =
            "SELECT count(*) FROM (SELECT lower_lsn, lag(upper_lsn) OVER (ORDER BY lower_lsn) AS before
                    FROM walcast.partition) AS bounds WHERE before <> lower_lsn";
        assert_eq!(world.database.scalar(gaps).await.as_deref(), Some("0"));
        let leftovers = "SELECT count(*) FROM pg_constraint WHERE conname = 'walcast_cut'";
        assert_eq!(world.database.scalar(leftovers).await.as_deref(), Some("0"));

        // What a daemon left that died while it cut: what comes next goes in all the same.
        let newest = "SELECT name FROM walcast.partition ORDER BY lower_lsn DESC LIMIT 1";
        let newest = world.database.scalar(newest).await.unwrap();
        storing.stop().await.unwrap();
        let record = world.record().await;
        let (id, writer, at) = (&record.id, record.writer, record.position.lsn());
        let begin = format!("SELECT walcast.begin_cut('{id}', {writer}, '{at}', '{newest}', '{at}')");
        assert_eq!(world.database.scalar(&begin).await.as_deref(), Some("t"));
        let check = format!("ALTER TABLE walcast.{newest} VALIDATE CONSTRAINT walcast_cut");
        world.database.run(&check).await;
        // One that reads the partition does not keep anything from being stored in it.
        let reading = world.database.session().await;
        reading.batch_execute("BEGIN; SELECT count(*) FROM walcast.change_history").await.unwrap();
        let mut storing = world.store(fast()).await;
        let more = source.transactions(3, 6, 30);
        parts.extend(more.clone());
        storing.writer.push(more).await;
        storing.until_stored(storing.feed.head()).await;
        reading.batch_execute("COMMIT").await.unwrap();
        let retaining = Retaining::start(&world, by_age(Duration::from_millis(1)), ALL).await;
        world.database.until("SELECT count(*) FROM walcast.partition", "1").await;
        retaining.stop().await;
        let oldest = world.reader.oldest().await.unwrap();
        let rest: Vec<Flat> = flatten(&parts).into_iter().filter(|change| change.cursor >= oldest).collect();
        assert!(!rest.is_empty(), "the newest partition stays");
        assert_eq!(read(&world, oldest, PageLimits::default()).await.unwrap(), rest);
        storing.stop().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_somebody_reads_is_written_on_and_cut_later() {
    let world = World::create(shared_cluster().await).await;
    let mut source = Source::new(56, START, 200);
    let mut storing = world.store(fast()).await;
    storing.writer.push(source.transactions(3, 6, 30)).await;
    storing.stop().await.unwrap();
    let reading = world.database.session().await;
    reading.batch_execute("BEGIN; SELECT count(*) FROM walcast.change_history").await.unwrap();
    let limits = AppendLimits { history_partition_age: Duration::from_millis(1), ..fast() };
    let mut storing = world.store(limits).await;
    storing.writer.push(source.transactions(3, 6, 30)).await;
    storing.until_stored(storing.feed.head()).await;
    assert_eq!(partitions(&world).await, 1);
    reading.batch_execute("COMMIT").await.unwrap();
    storing.stop().await.unwrap();
}

/// A dump that begins while the rows are checked: the cut cannot be finished, and giving it up waits for nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_that_somebody_begins_to_read_is_given_up_and_storing_goes_on() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(58, START, 200);
        let mut storing = world.store(fast()).await;
        storing.writer.push(source.transactions(3, 6, 30)).await;
        storing.stop().await.unwrap();
        // Holds the appender up at the end of its check.
        world
            .database
            .run(
                "CREATE FUNCTION hold() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF current_query() LIKE '%VALIDATE%' THEN PERFORM pg_advisory_xact_lock(4711); END IF;
                 END $$;
                 CREATE EVENT TRIGGER hold ON ddl_command_end EXECUTE FUNCTION hold()",
            )
            .await;
        let holding = world.database.session().await;
        holding.batch_execute("SELECT pg_advisory_lock(4711)").await.unwrap();
        let limits = AppendLimits { history_partition_age: Duration::from_millis(1), ..fast() };
        let mut storing = world.store(limits).await;
        storing.writer.push(source.transactions(3, 6, 30)).await;
        let held =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        world.database.until(held, "1").await;
        let reading = world.database.session().await;
        reading.batch_execute("BEGIN; SELECT count(*) FROM walcast.change_history").await.unwrap();
        holding.batch_execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
        storing.until_stored(storing.feed.head()).await;
        assert_eq!(partitions(&world).await, 1);
        // Others read meanwhile, and the next ones are stored, too.
        read(&world, Lsn::new(START).into(), PageLimits::default()).await.unwrap();
        storing.writer.push(source.transactions(3, 6, 30)).await;
        storing.until_stored(storing.feed.head()).await;
        // So do those who may read it and nothing else.
        let stored = world.database.scalar("SELECT count(*) FROM walcast.change_history").await.unwrap();
        let stranger = world.database.session().await;
        stranger
            .batch_execute(
                "GRANT USAGE ON SCHEMA walcast TO pg_monitor; GRANT SELECT ON walcast.change_history TO pg_monitor;
                 SET ROLE pg_monitor",
            )
            .await
            .unwrap();
        let all = "SELECT count(*) FROM walcast.change_history WHERE lsn >= '0/0'";
        assert_eq!(stranger.scalar(all).await, Some(stored));
        drop(stranger);
        reading.batch_execute("COMMIT").await.unwrap();
        storing.stop().await.unwrap();

        // The next cut is none the worse for it.
        let mut storing = world.store(limits).await;
        storing.writer.push(source.transactions(3, 6, 30)).await;
        storing.stop().await.unwrap();
        assert!(partitions(&world).await > 1);
        let leftovers = "SELECT count(*) FROM pg_constraint WHERE conname = 'walcast_cut'";
        assert_eq!(world.database.scalar(leftovers).await.as_deref(), Some("0"));
    })
    .await;
}

#[tokio::test]
async fn what_an_initial_sync_may_still_need_is_kept_or_missed_aloud() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        // Transaction ids from 1001 on.
        let parts = Source::new(57, START, 1000).transactions(60, 4, 30);
        let mut storing = world.store(narrow()).await;
        storing.writer.push(parts.clone()).await;
        storing.until_stored(storing.feed.head()).await;
        let made = partitions(&world).await;
        // One of the first transactions has committed, and is not visible yet: it waits for a standby.
        let retaining = Retaining::start(&world, by_size(1), "1002:1000000:1002").await;
        let looked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walcast retention'
                      AND datname = current_database() AND state = 'idle' AND query LIKE '%dropped_xid%'";
        world.database.until(looked, "1").await;
        retaining.stop().await;
        assert_eq!(partitions(&world).await, made);

        // Another is open for long, and has nothing in history.
        let retaining = Retaining::start(&world, by_size(1), "900:1000000:900").await;
        world.database.until("SELECT count(*) FROM walcast.partition", "1").await;
        retaining.stop().await;
        let end = world.record().await.position;
        let search =
            async |snapshot: &str| world.reader.first_invisible(&snapshot.parse().unwrap(), end).await;
        // Began before: one of the transactions that went may be what it has to be sent.
        for before in ["900:1005:900", "1005:1005:", "900:1000000:900,1020"] {
            assert!(matches!(search(before).await, Err(Error::SnapshotTooOld { .. })), "{before}");
        }
        for after in ["900:1000000:900", "900:1000001:900", "1000000:1000005:", ALL] {
            assert_eq!(search(after).await.unwrap(), None, "{after}");
        }
        storing.stop().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_dropped_by_hand_is_never_read_over() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(59, START, 300);
        let mut parts = source.transactions(200, 8, 30);
        // The appender looks at it only when it has nothing to store, and not soon.
        let limits = AppendLimits { fence_interval: Duration::from_secs(3600), ..narrow() };
        let mut storing = world.store(limits).await;
        for part in &parts {
            storing.writer.push(vec![part.clone()]).await;
        }
        storing.until_stored(storing.feed.head()).await;
        let bounds = world.database.session().await;
        let bounds = bounds
            .query("SELECT name, upper_lsn::text FROM walcast.partition ORDER BY lower_lsn", &[])
            .await
            .unwrap();
        assert!(bounds.len() > 6, "{} partitions", bounds.len());
        let (gone, upper): (String, String) = (bounds[3].get(0), bounds[3].get(1));
        let kept: Cursor = upper.parse().unwrap();
        world.database.run(&format!("DROP TABLE walcast.{gone}")).await;

        let all_is_said = async |parts: &[Part]| {
            let all = flatten(parts);
            let recorded = world.record().await.oldest;
            for from in parts.iter().map(Part::next_cursor).filter(|from| *from >= recorded) {
                match read(&world, from, PageLimits::default()).await {
                    Ok(flat) => {
                        assert!(from >= kept, "{from} was read over what is missing");
                        let rest: Vec<Flat> =
                            all.iter().filter(|change| change.cursor >= from).cloned().collect();
                        assert_eq!(flat, rest, "from {from}");
                    }
                    Err(Error::TooOld { cursor, oldest }) => {
                        assert!(cursor == from && from < kept && oldest == kept, "{from}, {oldest}");
                    }
                    Err(error) => panic!("{from}: {error}"),
                }
            }
        };
        all_is_said(&parts).await;
        let mut session = connect(&world.database).await;
        assert!(!world.record().await.is_whole(&session).await.unwrap());
        // Whoever asks for a snapshot's first transaction may have been about to be told of one that is gone.
        let search = world.reader.first_invisible(&ALL.parse().unwrap(), world.record().await.position).await;
        assert!(matches!(search, Err(Error::SnapshotTooOld { .. })), "{search:?}");

        // What retention drops before it changes nothing.
        let size = "SELECT sum(pg_total_relation_size(oid::oid)) FROM walcast.partition";
        let bytes: u64 = world.database.scalar(size).await.unwrap().parse().unwrap();
        let retaining = Retaining::start(&world, by_size(bytes - 1), ALL).await;
        world.database.until(&format!("SELECT ({size}) < {bytes}"), "t").await;
        retaining.stop().await;
        all_is_said(&parts).await;
        assert!(!world.record().await.is_whole(&session).await.unwrap());

        // At the next start it is settled, and only what is before it is given up.
        storing.stop().await.unwrap();
        let mut record = world.record().await;
        let last = record.last;
        record.forget_past(&mut session).await.unwrap();
        assert_eq!((record.oldest, record.last), (kept, last));
        assert_eq!(record, world.record().await);
        assert!(record.is_whole(&session).await.unwrap());
        let mut storing = world.store(narrow()).await;
        let more = source.transactions(10, 8, 30);
        parts.extend(more.clone());
        storing.writer.push(more).await;
        storing.until_stored(storing.feed.head()).await;
        all_is_said(&parts).await;

        // A new feed in its place misses nothing of the one before.
        storing.stop().await.unwrap();
        let first = "SELECT name FROM walcast.partition ORDER BY lower_lsn LIMIT 1";
        let first = world.database.scalar(first).await.unwrap();
        world.database.run(&format!("DROP TABLE walcast.{first}")).await;
        let record = FeedRecord::create(&mut session, &new_feed()).await.unwrap();
        assert!(record.is_whole(&session).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_emptied_while_it_is_stored_is_missed_before_anything_is_stored_behind_it() {
    for_each_version(async |cluster| {
        for is_idle in [false, true] {
            let world = World::create(cluster).await;
            let mut source = Source::new(60, START, 300);
            let parts = source.transactions(20, 8, 30);
            let look = if is_idle { Duration::from_millis(20) } else { Duration::from_secs(3600) };
            let limits = AppendLimits { fence_interval: look, ..fast() };
            let mut storing = world.store(limits).await;
            storing.writer.push(parts.clone()).await;
            let end = storing.feed.head();
            storing.until_stored(end).await;
            world.database.run("TRUNCATE walcast.change_history").await;
            let last = parts.last().unwrap().transaction().start.lsn();
            let from = Cursor::from(Lsn::new(START));
            let page = world.reader.read_kept(from, end, PageLimits::default()).await;
            let kept = Cursor::from(Lsn::new(last.get() + 1));
            assert!(
                matches!(page, Err(Error::TooOld { cursor, oldest }) if cursor == from && oldest == kept),
                "{page:?}"
            );
            // The cursor after it lacks nothing.
            assert!(read(&world, end, PageLimits::default()).await.unwrap().is_empty());
            if !is_idle {
                storing.writer.push(source.transactions(2, 8, 30)).await;
            }
            let ended = within("the appender ends", LIMIT, storing.task).await.unwrap();
            assert!(matches!(ended, Err(Error::Missing { .. })), "{ended:?}");
            let count = "SELECT count(*) FROM walcast.change_history";
            assert_eq!(world.database.scalar(count).await.as_deref(), Some("0"));
        }
    })
    .await;
}
