//! What many connections cost that have nothing to do, or all want something at once, or of which one does not read.

use std::time::Duration;

use tokio::time::Instant;
use walcast_testkit::{Cluster, Daemon};

use crate::Outcome;
use crate::child::Child;
use crate::load::{latencies, receiver, spread, warm_up};
use crate::options::Options;
use crate::receiver::COMMAND;
use crate::statistics::percentile;
use crate::subject::{Floor, Walcast};

/// How long a process is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// Resident memory of a process that is not shared with files, in KiB.
fn resident(pid: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// What an idle connection with one subscription takes.
pub(crate) async fn memory(options: &Options, cluster: &Cluster) -> Outcome<()> {
    println!("\n| idle connections | walcast, KiB each | floor, KiB each |\n| ---: | ---: | ---: |");
    for count in &options.idle {
        let walcast = Walcast::start(options, cluster).await;
        let floor = Floor::start().await?;
        let mut each = Vec::new();
        for (pid, port) in [(walcast.daemon.pid(), walcast.daemon.port()), (floor.child.pid(), floor.port)] {
            let before = resident(pid)?;
            let _receiver = receiver(port, *count, "latest").await?;
            tokio::time::sleep(REST).await;
            each.push((resident(pid)? - before) / *count as f64);
        }
        println!("| {count} | {:.1} | {:.1} |", each[0], each[1]);
    }
    Ok(())
}

async fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(name).await.unwrap_or_default()
}

/// Clients that come back at once, with a cursor that the ring still has.
pub(crate) async fn returning(options: &Options, cluster: &Cluster) -> Outcome<()> {
    const MISSED: usize = 20;
    let count = options.returning;
    let mut walcast = Walcast::start(options, cluster).await;
    let port = walcast.daemon.port();
    let mut clients = receiver(port, count, "latest").await?;
    warm_up(&mut walcast, &mut clients, count).await?;
    let cursor = clients.ask("cursor").await?.concat();
    clients.ask("close").await?;
    walcast.flood(MISSED).await?;
    gone(&walcast.daemon).await?;

    let pages = "walcast_history_pages_served_total";
    let before = metric(&walcast.daemon, pages).await;
    let queries = queries(&walcast).await?;
    let began = Instant::now();
    clients.ask(&format!("open {port} {count} {cursor}")).await?;
    clients.ask(&format!("expect {}", count * MISSED)).await?;
    let seconds = began.elapsed().as_secs_f64();
    let pages = metric(&walcast.daemon, pages).await - before;
    let asked = self::queries(&walcast).await?.since(&queries);
    println!(
        "\n{count} clients came back at once, each {MISSED} transactions behind: all caught up after {seconds:.2} s; pages of history: {pages:.0}; transactions in the database meanwhile: {asked}"
    );
    Ok(())
}

/// Waits until the daemon has nobody.
async fn gone(daemon: &Daemon) -> Outcome<()> {
    let began = Instant::now();
    while metric(daemon, "walcast_connections").await > 0.0 {
        if began.elapsed() > Duration::from_secs(60) {
            return Err("clients do not go".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Transactions that the database has seen.
struct Queries {
    committed: i64,
    at: Instant,
}

impl Queries {
    fn since(&self, before: &Self) -> String {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        format!("{} in {seconds:.1} s, the daemon's own upkeep included", self.committed - before.committed)
    }
}

async fn queries(walcast: &Walcast) -> Outcome<Queries> {
    // Backends tell of what they did when they have been idle for so long.
    tokio::time::sleep(REST).await;
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let committed = walcast.database.scalar(sql).await.ok_or("no statistics")?.parse()?;
    Ok(Queries { committed, at: Instant::now() })
}

/// What one client that does not read costs the others.
pub(crate) async fn stall(options: &Options, cluster: &Cluster) -> Outcome<()> {
    const SOCKETS: usize = 1000;
    /// As much as no kernel keeps for a client.
    const FLOOD: usize = 20_000;
    let rate = (options.paced / SOCKETS).max(1);
    let count = rate * options.seconds;
    let mut p50 = [Vec::new(), Vec::new()];
    let mut p99 = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        for turn in 0..2 {
            let stalls = (round + turn) % 2;
            let mut walcast = Walcast::start(options, cluster).await;
            let port = walcast.daemon.port();
            let mut idle = Child::start(COMMAND)?;
            if stalls == 1 {
                idle.ask(&format!("stalled {port}")).await?;
            }
            walcast.flood(FLOOD).await?;
            let mut others = receiver(port, SOCKETS, "latest").await?;
            warm_up(&mut walcast, &mut others, SOCKETS).await?;
            let (first, sent) = walcast.paced(rate as f64, count).await?;
            others.ask(&format!("expect {}", count * SOCKETS)).await?;
            let latencies = latencies(&mut others, first, &sent).await?;
            p50[stalls].push(percentile(&latencies, 50.0));
            p99[stalls].push(percentile(&latencies, 99.0));
        }
    }
    println!(
        "\n| {SOCKETS} clients, {rate} transactions/s | latency p50, ms | p99, ms |\n| --- | ---: | ---: |"
    );
    for (stalls, who) in [(0, "all read"), (1, "and one that does not")] {
        println!("| {who} | {} | {} |", spread(&p50[stalls]), spread(&p99[stalls]));
    }
    Ok(())
}
