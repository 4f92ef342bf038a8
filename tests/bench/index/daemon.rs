//! The real daemon on a real Postgres, over WebSockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use walcast_testkit::{Daemon, Installation, TestDatabase, cluster_builder};

use crate::Outcome;
use crate::clients::SUBSCRIPTIONS;
use crate::options::Options;
use crate::statistics::{median, percentile, range};

/// Connections that are opened side by side.
const OPENING: usize = 32;
/// Of the library, for each connection.
const READ_BYTES: usize = 4096;
/// Changes of the throughput part, and rows in each of its transactions.
const CHANGES: usize = 100_000;
const ROWS: usize = 10;
/// Transactions a second of the latency part.
const RATE: u64 = 500;
const LIMIT: Duration = Duration::from_secs(300);

/// What all connections were given.
#[derive(Default)]
struct Told {
    changes: AtomicUsize,
    errors: AtomicUsize,
    /// Milliseconds from the commit's return on, of the latency part.
    latencies: Mutex<Vec<f64>>,
    /// When the transaction with this number was committed is `committed[number]`.
    committed: Vec<AtomicU64>,
}

/// What was measured of one run.
struct Figures {
    /// Until all subscriptions were live, in seconds.
    live: f64,
    /// The daemon's memory before and after they came, in KiB.
    resident: [f64; 2],
    throughput: f64,
    /// Of transactions of one row, in milliseconds.
    p50: f64,
    p99: f64,
}

/// Measures a few subscriptions, and many, in turns. A transaction goes to as many connections in each line, but for the
/// first: there one connection has all.
pub(crate) async fn run(options: &Options) -> Outcome<()> {
    let installation = Installation::newest()?;
    println!(
        "\nthe daemon on Postgres {}, over WebSockets; median of {} (from – to)\n",
        installation.version(),
        options.rounds
    );
    println!(
        "| connections × subscriptions | all live after, s | daemon's RSS, MiB | changes/s | × 10 connections' | latency p50, ms | p99 |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let cases = [(1, 10), (10, 1), (1000.min(options.connections), 1), (options.connections, SUBSCRIPTIONS)];
    let mut rounds: Vec<Vec<Figures>> = Vec::new();
    for _ in 0..options.rounds {
        let mut round = Vec::new();
        for (connections, subscriptions) in cases {
            round.push(Box::pin(measure(&installation, connections, subscriptions, options.seconds)).await?);
        }
        rounds.push(round);
    }
    for (case, (connections, subscriptions)) in cases.into_iter().enumerate() {
        let cell = |of: &dyn Fn(&[Figures]) -> f64, digits: usize| {
            let values: Vec<f64> = rounds.iter().map(|round| of(round)).collect();
            let (low, high) = range(&values);
            format!("{:.digits$} ({low:.digits$} – {high:.digits$})", median(&values))
        };
        println!(
            "| {connections} × {subscriptions} | {} | {} → {} | {} | {} | {} | {} |",
            cell(&|round| round[case].live, 1),
            cell(&|round| round[case].resident[0] / 1024.0, 0),
            cell(&|round| round[case].resident[1] / 1024.0, 0),
            cell(&|round| round[case].throughput, 0),
            cell(&|round| round[case].throughput / round[1].throughput, 2),
            cell(&|round| round[case].p50, 2),
            cell(&|round| round[case].p99, 2),
        );
    }
    Ok(())
}

async fn measure(
    installation: &Installation,
    connections: usize,
    subscriptions: usize,
    seconds: usize,
) -> Outcome<Figures> {
    let cluster = cluster_builder(installation).setting("autovacuum", "off").start().await?;
    let database = TestDatabase::create(&cluster).await;
    database
        .run("CREATE TABLE files (id bigint PRIMARY KEY, owner_id bigint, title text); ALTER TABLE files REPLICA IDENTITY FULL")
        .await;
    let daemon = Daemon::of(&database).flag("--connections-per-address-max", connections + 10).start().await;
    let before = resident(&daemon)?;
    let transactions = RATE * seconds as u64;
    let committed = (0..transactions).map(|_| AtomicU64::new(0)).collect();
    let told = Arc::new(Told { committed, ..Told::default() });
    let began = Instant::now();
    let open = |number: usize| {
        let (port, told) = (daemon.port(), Arc::clone(&told));
        async move {
            let first = number * subscriptions + 1;
            let socket = subscribe(port, first..first + subscriptions).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(listen(socket, told))
        }
    };
    let listening: Vec<JoinHandle<()>> =
        stream::iter(0..connections).map(open).buffer_unordered(OPENING).try_collect().await?;
    let (live, all) = (began.elapsed().as_secs_f64(), connections * subscriptions);
    let after = resident(&daemon)?;

    let began = Instant::now();
    for first in (1..=CHANGES).step_by(ROWS * 100) {
        // Many commits in one call, so that the connection does not set the pace.
        let insert = |first: usize| {
            let last = first + ROWS - 1;
            format!(
                "BEGIN; INSERT INTO files SELECT g, 1 + g::bigint * 7919 % {all}, 'a title' FROM generate_series({first}, {last}) AS g; COMMIT;"
            )
        };
        let batch: String = (first..first + ROWS * 100).step_by(ROWS).map(insert).collect();
        database.run(&batch).await;
    }
    until(&told, CHANGES).await?;
    let throughput = CHANGES as f64 / began.elapsed().as_secs_f64();

    let (session, began) = (database.session().await, Instant::now());
    for number in 0..transactions {
        let due = Duration::from_secs_f64(number as f64 / RATE as f64);
        if let Some(left) = due.checked_sub(began.elapsed()) {
            tokio::time::sleep(left).await;
        }
        let (id, owner) = (CHANGES as u64 + 1 + number, 1 + number * 7919 % all as u64);
        session.batch_execute(&format!("INSERT INTO files VALUES ({id}, {owner}, 'n{number}')")).await?;
        told.committed[usize::try_from(number)?].store(now(), Ordering::Relaxed);
    }
    until(&told, CHANGES + usize::try_from(transactions)?).await?;
    let latencies = std::mem::take(&mut *told.latencies.lock().unwrap_or_else(PoisonError::into_inner));
    listening.iter().for_each(JoinHandle::abort);
    Ok(Figures {
        live,
        resident: [before as f64, after as f64],
        throughput,
        p50: percentile(&latencies, 50.0),
        p99: percentile(&latencies, 99.0),
    })
}

async fn until(told: &Told, changes: usize) -> Outcome<()> {
    let began = Instant::now();
    while told.changes.load(Ordering::Relaxed) < changes {
        if began.elapsed() > LIMIT || told.errors.load(Ordering::Relaxed) > 0 {
            return Err(format!("{} of {changes} changes came", told.changes.load(Ordering::Relaxed)).into());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Resident memory of the daemon, in KiB.
fn resident(daemon: &Daemon) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Microseconds of the system's clock.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// A connection whose subscriptions are all live.
async fn subscribe(port: u16, owners: std::ops::Range<usize>) -> Outcome<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
    let url = format!("ws://127.0.0.1:{port}/v1/stream");
    let (mut socket, _) = Box::pin(client_async_with_config(url, stream, Some(config))).await?;
    let count = owners.len();
    for owner in owners {
        let text = format!(
            r#"{{"type":"subscribe","id":"s{owner}","tables":[{{"table":"public.files","where":"owner_id = {owner}"}}],"cursor":"latest"}}"#
        );
        socket.feed(Message::text(text)).await?;
    }
    socket.flush().await?;
    let mut live = 0;
    while live < count {
        let message = socket.next().await.ok_or("the connection ended")??;
        let text = message.to_text().unwrap_or_default();
        if text.starts_with(r#"{"type":"error""#) {
            return Err(text.into());
        }
        live += usize::from(text.starts_with(r#"{"type":"caught_up""#));
    }
    Ok(socket)
}

fn listen(mut socket: WebSocketStream<TcpStream>, told: Arc<Told>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else { continue };
            if text.starts_with(r#"{"type":"error""#) {
                told.errors.fetch_add(1, Ordering::Relaxed);
                eprintln!("{text}");
            }
            if !text.starts_with(r#"{"type":"transaction""#) {
                continue;
            }
            let changes = memchr::memmem::find_iter(text.as_bytes(), br#"{"op":""#).count();
            if let Some((_, rest)) = text.split_once(r#""title":"n"#)
                && let Some(number) = rest.split('"').next().and_then(|number| number.parse::<usize>().ok())
                && let Some(committed) = told.committed.get(number)
            {
                // It may come before the return of its commit is seen.
                let committed = committed.load(Ordering::Relaxed);
                let took = if committed == 0 { 0 } else { now().saturating_sub(committed) };
                told.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(took as f64 / 1000.0);
            }
            told.changes.fetch_add(changes, Ordering::Relaxed);
        }
    })
}
