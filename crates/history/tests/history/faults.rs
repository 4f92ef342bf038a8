//! Connections that end, servers that stop.

use std::time::Duration;

use rand::Rng as _;
use walcast_feed::FeedLimits;
use walcast_history::{AppendLimits, AppenderState};
use walcast_testkit::{
    Direction, LIMIT, Proxy, StopMode, for_each_version, installations, own_cluster, shared_cluster, within,
};

use crate::transactions::{Source, flatten};
use crate::world::{START, Storing, World, config, fast};

/// Ends the appender's server process again and again, at moments that are spread over everything it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_sessions_lose_and_repeat_nothing() {
    for_each_version(async |cluster| {
        let world = World::create(cluster).await;
        let mut source = Source::new(41, START, 2000);
        let limits = AppendLimits { append_changes_max: 50, history_partition_wal_bytes: 16384, ..fast() };
        let mut storing = world.store(limits).await;
        let killer = world.database.session().await;
        let name = world.database.name().to_owned();
        let kill = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{name}' AND application_name = 'walcast history'"
        );
        let (mut parts, mut kills) = (Vec::new(), 0_u32);
        while kills < 60 {
            let some = source.transactions(20, 20, 50);
            parts.extend(some.clone());
            storing.writer.push(some).await;
            // No synchronisation: only spreads the moments.
            tokio::time::sleep(Duration::from_micros(source.random.random_range(0..8000))).await;
            kills += killer.scalar(&kill).await.unwrap().parse::<u32>().unwrap();
            // Never acknowledged before it is durable.
            let acknowledged = *storing.acknowledged.borrow();
            assert!(world.record().await.position >= acknowledged.into());
        }
        let end = storing.feed.head();
        storing.until_stored(end).await;
        assert_eq!(*storing.state.borrow(), AppenderState::Storing);
        storing.stop().await.unwrap();
        assert!(flatten(&world.stored_parts().await) == flatten(&parts));
    })
    .await;
}

/// The line goes dead after every possible number of bytes: also between COMMIT and its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_cut_anywhere_lose_and_repeat_nothing() {
    let world = World::create(shared_cluster().await).await;
    let proxy = Proxy::to(config_port(world.database.url())).await;
    let mut source = Source::new(42, START, 2000);
    let mut storing = Storing::start(
        config(&world.database.url_via(&proxy)),
        world.record().await,
        fast(),
        FeedLimits::default(),
    );
    storing.until_acknowledged(walcast_model::Lsn::new(START)).await;
    let mut parts = Vec::new();
    for round in 0..120 {
        // From the server: the last bytes of a round are the answer to COMMIT.
        let direction = if round % 2 == 0 { Direction::ToClient } else { Direction::ToServer };
        proxy.cut_after(direction, source.random.random_range(1..700));
        let some = source.transactions(3, 3, 50);
        parts.extend(some.clone());
        storing.writer.push(some).await;
        storing.until_stored(storing.feed.head()).await;
    }
    proxy.heal();
    storing.stop().await.unwrap();
    assert!(flatten(&world.stored_parts().await) == flatten(&parts));
}

fn config_port(url: &str) -> u16 {
    let after_host = url.rsplit_once(':').unwrap().1;
    after_host.split('/').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_history_that_is_down_is_waited_for_and_the_feed_backs_up() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let world = World::create(&cluster).await;
    let mut source = Source::new(43, START, 2000);
    let first = source.transactions(10, 5, 50);
    let record = world.record().await;
    let mut storing =
        Storing::start(world.config.clone(), record, fast(), FeedLimits { memory_bytes_max: 20_000 });
    storing.writer.push(first.clone()).await;
    storing.until_stored(storing.feed.head()).await;
    cluster.stop(StopMode::Immediate).await.unwrap();
    let mut state = storing.state.clone();
    let interrupted = |state: &AppenderState| matches!(state, AppenderState::Interrupted { .. });
    within("interrupted", LIMIT, state.wait_for(interrupted)).await.unwrap();
    let more = source.transactions(100, 5, 50);
    let Storing { mut writer, feed, task, cancel, .. } = storing;
    let (pushed, parts) = (more.clone(), [first, more].concat());
    let push = tokio::spawn(async move {
        writer.push(pushed).await;
        writer
    });
    // Full: the writer waits, and what is in the feed can be read.
    walcast_testkit::eventually("the feed is full", LIMIT, async || {
        (feed.memory_bytes() >= 20_000).then_some(())
    })
    .await;
    assert!(!push.is_finished());
    cluster.start().await.unwrap();
    let writer = within("the feed takes the rest", LIMIT, push).await.unwrap();
    within("storing again", LIMIT, state.wait_for(|state| *state == AppenderState::Storing)).await.unwrap();
    cancel.cancel();
    within("the appender stops", LIMIT, task).await.unwrap().unwrap();
    assert_eq!(feed.stored(), writer.head());
    assert!(flatten(&world.stored_parts().await) == flatten(&parts));
}

#[tokio::test]
async fn cancelled_while_the_history_is_down_it_gives_up() {
    let cluster = own_cluster(&installations().pop().unwrap()).await;
    let world = World::create(&cluster).await;
    let storing = world.store(fast()).await;
    storing.until_acknowledged(walcast_model::Lsn::new(START)).await;
    cluster.stop(StopMode::Immediate).await.unwrap();
    let mut state = storing.state.clone();
    let interrupted = |state: &AppenderState| matches!(state, AppenderState::Interrupted { .. });
    within("interrupted", LIMIT, state.wait_for(interrupted)).await.unwrap();
    let error = storing.stop().await.unwrap_err();
    assert_eq!(error.class(), walcast_history::ErrorClass::Transient, "{error}");
}

#[tokio::test]
async fn a_history_that_lost_commits_or_was_started_over_ends_the_feed() {
    let world = World::create(shared_cluster().await).await;
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                        WHERE datname = current_database() AND application_name = 'walcast history'";
    for (change, expected) in [
        ("UPDATE walcast.feed SET position_lsn = oldest_lsn, position_seq = 0", "WentBack"),
        ("UPDATE walcast.feed SET position_lsn = '7/0'", "WentBack"),
        ("UPDATE walcast.feed SET position_lsn = 'FF/0', writer = 0", "Fenced"),
        ("DELETE FROM walcast.feed", "FeedGone"),
    ] {
        let mut storing = world.store(fast()).await;
        let next = storing.feed.head().lsn().get() + (8 << 32);
        storing.writer.push(Source::new(44, next, 2000).transactions(2, 5, 50)).await;
        storing.until_stored(storing.feed.head()).await;
        world.database.run(change).await;
        world.database.run(end_sessions).await;
        let error = within("the appender ends", LIMIT, storing.task).await.unwrap().unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{change}: {error}");
        // Nothing is left that the next one would miss.
        world
            .database
            .run("TRUNCATE walcast.change_history; UPDATE walcast.feed SET last_lsn = NULL, last_seq = NULL")
            .await;
    }
}
