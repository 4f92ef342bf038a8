//! Positions that no change leads to.

use std::time::Duration;

use walcast_history::AppendLimits;
use walcast_model::Lsn;
use walcast_testkit::for_each_version;

use crate::transactions::Source;
use crate::world::{START, World, fast};

const HOUR: Duration = Duration::from_secs(3600);

fn limits(interval_min: Duration, interval_max: Duration) -> AppendLimits {
    AppendLimits {
        idle_persist_interval_min: interval_min,
        idle_persist_interval_max: interval_max,
        ..fast()
    }
}

#[tokio::test]
async fn an_idle_position_is_stored_at_once_and_persisted_before_it_is_acknowledged() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let start = Lsn::new(START);
        // Much WAL is persisted without delay, little WAL never.
        let mut storing = world.store(limits(Duration::ZERO, HOUR)).await;
        storing.until_acknowledged(start).await;
        let little = Lsn::new(START + (1 << 20) - 1);
        storing.writer.advance(little);
        storing.until_stored(little.into()).await;
        assert_eq!(world.record().await.position, start.into());
        assert_eq!(*storing.acknowledged.borrow(), start);
        let much = Lsn::new(START + (1 << 20));
        storing.writer.advance(much);
        storing.until_acknowledged(much).await;
        assert_eq!(world.record().await.position, much.into());
        // At the end whatever there is.
        let last = Lsn::new(much.get() + 8);
        storing.writer.advance(last);
        let acknowledged = storing.acknowledged.clone();
        storing.stop().await.unwrap();
        assert_eq!((world.record().await.position, *acknowledged.borrow()), (last.into(), last));
    })
    .await;
}

#[tokio::test]
async fn a_little_wal_is_persisted_after_the_long_interval_and_with_the_next_changes() {
    let cluster = walcast_testkit::shared_cluster().await;
    let world = World::create(cluster).await;
    let storing = {
        let mut storing = world.store(limits(HOUR, Duration::ZERO)).await;
        storing.writer.advance(Lsn::new(START + 8));
        storing.until_acknowledged(Lsn::new(START + 8)).await;
        storing
    };
    storing.crash().await;
    let mut storing = world.store(limits(HOUR, HOUR)).await;
    storing.writer.advance(Lsn::new(START + 16));
    storing.until_stored(Lsn::new(START + 16).into()).await;
    storing.writer.push(Source::new(1, START + 16, 1000).transactions(1, 3, 10)).await;
    // What follows the last change in the same read is persisted with it, or with the next.
    let end = storing.feed.head();
    storing.until_acknowledged(end.lsn()).await;
    assert_eq!(world.record().await.position, end);
    storing.crash().await;
}
