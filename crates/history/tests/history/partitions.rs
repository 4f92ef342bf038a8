//! Partitions by WAL position.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walcast_history::{AppendLimits, PageLimits};
use walcast_model::{Cursor, Lsn};
use walcast_testkit::{for_each_version, shared_cluster};

use crate::transactions::{Source, flatten};
use crate::world::{START, World, fast};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_made_while_readers_read() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let parts = Source::new(31, START, 1000).transactions(400, 4, 30);
        let limits = AppendLimits { history_partition_wal_bytes: 4096, append_changes_max: 20, ..fast() };
        let mut storing = world.store(limits).await;
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (reader, feed, done) = (world.reader.clone(), storing.feed.clone(), Arc::clone(&done));
                tokio::spawn(async move {
                    let mut stored = feed.watch_stored();
                    let (mut from, mut flat) = (Cursor::from(Lsn::new(START)), Vec::new());
                    loop {
                        let last = done.load(Ordering::SeqCst);
                        let to = *stored.borrow_and_update();
                        while from < to {
                            let limits = PageLimits { changes_max: 7, ..PageLimits::default() };
                            let page = reader.read(from, to, limits).await.unwrap();
                            flat.extend(flatten(&page.parts));
                            from = page.next;
                        }
                        if last {
                            return flat;
                        }
                        let _ = stored.changed().await;
                    }
                })
            })
            .collect();
        for part in &parts {
            storing.writer.push(vec![part.clone()]).await;
        }
        let end = storing.feed.head();
        storing.until_stored(end).await;
        done.store(true, Ordering::SeqCst);
        // Wakes readers that wait.
        storing.writer.advance(Lsn::new(end.lsn().get() + 8));
        storing.stop().await.unwrap();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), flatten(&parts));
        }
        let count: i64 = world.database.scalar("SELECT count(*) FROM walcast.partition").await.unwrap().parse().unwrap();
        assert!(count > 10, "{count} partitions");
        let wrong = "SELECT count(*) FROM walcast.partition WHERE upper_lsn - lower_lsn <> 4096 OR (lower_lsn - '0/0') % 4096 <> 0";
        assert_eq!(world.database.scalar(wrong).await.as_deref(), Some("0"));
    })
    .await;
}

#[tokio::test]
async fn another_width_fits_in_between() {
    let world = World::create(shared_cluster().await).await;
    let session = world.database.session().await;
    let ensure = async |at: &str, width: u64| {
        let sql = format!(
            "SELECT concat_ws(' ', lower_lsn, upper_lsn, name) FROM walcast.ensure_partition('{at}', {width})"
        );
        session.scalar(&sql).await.unwrap()
    };
    assert_eq!(ensure("1/0", 1 << 32).await, "1/0 2/0 change_history_0000000100000000");
    assert_eq!(ensure("1/FFFFFFFF", 1 << 20).await, "1/0 2/0 change_history_0000000100000000");
    assert_eq!(ensure("2/0", 3 << 32).await, "2/0 3/0 change_history_0000000200000000");
    assert_eq!(ensure("0/5", 1 << 40).await, "0/0 1/0 change_history_0000000000000000");
    assert_eq!(ensure("5/5", 1 << 40).await, "3/0 100/0 change_history_0000000300000000");
    assert_eq!(
        ensure("FFFFFFFF/0", 1 << 62).await,
        "C0000000/0 FFFFFFFF/FFFFFFFF change_history_c000000000000000"
    );
}
