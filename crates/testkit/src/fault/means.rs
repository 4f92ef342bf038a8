//! How servers, links and daemons are started and broken.

use std::time::Duration;

use super::clock::Clock;
use super::kind::LinkFault;
use crate::{
    Cluster, Daemon, DaemonBuilder, Direction, Installation, Proxy, StopMode, TestDatabase, cluster_builder,
};

/// How long `pg_ctl stop -m fast` may take before it becomes an immediate one: a walsender waits for a daemon that is
/// paused or cut off.
const FAST_STOP_MAX: Duration = Duration::from_secs(10);

pub(super) fn describe(
    database: &TestDatabase,
    source: &Proxy,
    history: Option<(&TestDatabase, &Proxy)>,
    clock: Option<&Clock>,
    flags: &[(&'static str, String)],
) -> DaemonBuilder {
    let mut builder = Daemon::of(database).flag("--database-url", database.url_via(source));
    if let Some((history, link)) = history {
        builder = builder.flag("--history-url", history.url_via(link));
    }
    for (name, value) in flags {
        builder = builder.flag(name, value);
    }
    match clock {
        Some(clock) => clock.give(builder),
        None => builder,
    }
}

pub(super) async fn start_cluster(installation: &Installation) -> Cluster {
    let builder = cluster_builder(installation)
        .setting("max_connections", 100)
        .setting("deadlock_timeout", "200ms")
        .setting("max_wal_size", "2GB")
        .setting("shared_buffers", "64MB");
    builder.start().await.unwrap_or_else(|error| panic!("{error}"))
}

pub(super) async fn stop(cluster: &Cluster, mode: StopMode) {
    if cluster.stop_within(mode, FAST_STOP_MAX).await.is_err() {
        cluster.stop(StopMode::Immediate).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

pub(super) async fn crash(cluster: &Cluster, number: u64) {
    let outcome = if number.is_multiple_of(2) {
        cluster.stop(StopMode::Immediate).await
    } else {
        cluster.kill9().await
    };
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

pub(super) async fn start(cluster: &Cluster) {
    cluster.start().await.unwrap_or_else(|error| panic!("{error}\n{}", tail(&cluster.log())));
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

pub(super) fn begin_on_link(link: &Proxy, fault: LinkFault, number: u64) {
    let both = [Direction::ToServer, Direction::ToClient];
    match fault {
        LinkFault::Cut => link.cut(),
        LinkFault::Close => link.close(),
        LinkFault::Refuse => {
            link.refuse(true);
            link.cut();
        }
        LinkFault::HalfOpen | LinkFault::HalfOpenThenCut => {
            both.map(|way| link.blackhole(way)).into_iter().collect()
        }
        LinkFault::Delay => {
            let delay = Duration::from_millis(1 + number % 200);
            both.map(|way| link.delay(way, delay)).into_iter().collect()
        }
        LinkFault::Throttle => {
            let rate = 30_000 + u32::try_from(number % 300_000).unwrap_or(0);
            link.throttle(Direction::ToClient, rate);
        }
        LinkFault::Slice => {
            let bytes = 1 + usize::try_from(number % 61).unwrap_or(0);
            both.map(|way| link.slice(way, bytes, Duration::ZERO)).into_iter().collect()
        }
        LinkFault::CutAfter => {
            let way = if number.is_multiple_of(3) { Direction::ToServer } else { Direction::ToClient };
            link.cut_after(way, (number / 3) % 40_000);
        }
    }
}
