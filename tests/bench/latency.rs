//! From commit to consumer, at a steady rate.
//!
//! Transactions are sent by a schedule that does not wait for anything (a late commit or a late consumer does not slow
//! the next one down, so nothing is omitted), each one row with its number. The writer notes when its commit
//! returned, the consumer when the bytes came in, by the same clock; a latency can be negative, because a
//! walsender may be faster than the writer's own answer.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use walcast_testkit::TestSession;

use crate::options::Options;
use crate::peer::{self, Plugin};
use crate::process::now_nanos;
use crate::source::Source;
use crate::statistics::{median, percentile};
use crate::throughput::Process;
use crate::{Outcome, client, pipeline};

/// Sessions that write.
const WRITERS: usize = 32;
/// Transactions of the first moments, which are not counted.
const WARM_UP_SECONDS: f64 = 1.0;
/// Rounds of each consumer.
const ROUNDS: usize = 3;
const SLOT: &str = "bench_latency";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Consumer {
    Peer,
    Walcast { history: bool },
}

impl Consumer {
    const fn label(self) -> &'static str {
        match self {
            Self::Peer => "pg_recvlogical, pgoutput → pipe",
            Self::Walcast { history: false } => "walcast → WebSocket, no history",
            Self::Walcast { history: true } => "walcast → WebSocket, with history",
        }
    }
}

/// When each transaction was due, was committed and arrived; nanoseconds, 0 = not.
struct Times {
    due: Vec<AtomicU64>,
    committed: Vec<AtomicU64>,
    received: Vec<AtomicU64>,
}

impl Times {
    fn new(count: usize) -> Arc<Self> {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { due: zeros(), committed: zeros(), received: zeros() })
    }

    fn set(list: &[AtomicU64], index: u64, nanos: u64) {
        if let Some(slot) = usize::try_from(index).ok().and_then(|index| list.get(index)) {
            slot.store(nanos, Ordering::Relaxed);
        }
    }

    /// Milliseconds from one to the other, of those after the warm-up that have both.
    fn between(from: &[AtomicU64], to: &[AtomicU64], skip: usize) -> Vec<f64> {
        let pairs = from.iter().zip(to).skip(skip);
        let pairs = pairs.map(|(from, to)| (from.load(Ordering::Relaxed), to.load(Ordering::Relaxed)));
        pairs
            .filter(|(from, to)| *from > 0 && *to > 0)
            .map(|(from, to)| (to as f64 - from as f64) / 1e6)
            .collect()
    }
}

/// Measures and prints one table for each rate.
pub(crate) async fn run(source: &Source, options: &Options) -> Outcome<()> {
    let mut consumers = vec![Consumer::Walcast { history: false }, Consumer::Walcast { history: true }];
    if source.program("pg_recvlogical").is_some() {
        consumers.insert(0, Consumer::Peer);
    } else {
        println!("pg_recvlogical is not installed beside this Postgres: its latency is skipped");
    }
    for &rate in &options.rates {
        let mut results = vec![Vec::new(); consumers.len()];
        for _ in 0..ROUNDS {
            for (consumer, results) in consumers.iter().zip(&mut results) {
                results.push(measure(source, options, rate, *consumer).await?);
            }
        }
        print(rate, &consumers, &results);
    }
    Ok(())
}

/// One round: after the commit, after the scheduled time, and how long the commit itself took after that.
#[derive(Clone)]
struct Round {
    after_commit: Vec<f64>,
    after_due: Vec<f64>,
    commit: Vec<f64>,
    missing: usize,
}

async fn measure(source: &Source, options: &Options, rate: u64, consumer: Consumer) -> Outcome<Round> {
    let count = rate * (options.latency_time.as_secs() + WARM_UP_SECONDS as u64);
    let times = Times::new(usize::try_from(count)?);
    source.session().batch_execute("TRUNCATE public.latency").await?;
    let from = source.create_slot(SLOT, "pgoutput").await?;
    match consumer {
        Consumer::Peer => with_peer(source, rate, &times).await?,
        Consumer::Walcast { history } => with_walcast(source, rate, &times, &from, history).await?,
    }
    source.drop_slot(SLOT).await?;
    let skip = (rate as f64 * WARM_UP_SECONDS) as usize;
    let after_commit = Times::between(&times.committed, &times.received, skip);
    let missing = times.due.len() - skip - after_commit.len();
    Ok(Round {
        after_due: Times::between(&times.due, &times.received, skip),
        commit: Times::between(&times.due, &times.committed, skip),
        after_commit,
        missing,
    })
}

async fn with_peer(source: &Source, rate: u64, times: &Arc<Times>) -> Outcome<()> {
    let program = source.program("pg_recvlogical").ok_or("pg_recvlogical is not installed")?;
    let mut child = peer::start(program, &source.url(), SLOT, Plugin::Pgoutput, "-", None)?;
    let mut output = child.stdout.take().ok_or("no output")?;
    let reading = std::thread::spawn({
        let times = Arc::clone(times);
        move || -> std::io::Result<()> {
            let (mut buffer, mut held) = (vec![0; 1 << 16], Vec::new());
            loop {
                let read = output.read(&mut buffer)?;
                let now = now_nanos();
                if read == 0 {
                    return Ok(());
                }
                held.extend_from_slice(&buffer[..read]);
                client::marks(&held).for_each(|number| Times::set(&times.received, number, now));
                // A mark may have come in half.
                let keep = held.len().min(client::MARK.len() + client::DIGITS - 1);
                held.drain(..held.len() - keep);
            }
        }
    });
    wait_for_walsender(source).await;
    write(source, rate, times).await?;
    wait_for_rest(times).await;
    child.kill()?;
    child.wait()?;
    reading.join().map_err(|_| "the reader panicked")??;
    Ok(())
}

async fn with_walcast(
    source: &Source,
    rate: u64,
    times: &Arc<Times>,
    from: &str,
    history: bool,
) -> Outcome<()> {
    let task = pipeline::Task {
        url: source.url(),
        slot: SLOT.into(),
        from: from.into(),
        // History goes on until the client is done.
        to: "0/0".into(),
        changes: times.due.len() as u64,
        system_identifier: source.system_identifier().await?,
        history,
        socket: true,
    };
    let mut daemon = Process::start(&task.arguments())?;
    let port = daemon.expect("ready").await?;
    let arguments = [client::COMMAND, &port, "public.latency", from, &times.due.len().to_string(), "times"];
    let mut reader = Process::start(&arguments.map(str::to_owned))?;
    reader.expect("subscribed").await?;
    daemon.say("go").await?;
    wait_for_walsender(source).await;
    write(source, rate, times).await?;
    let received = async {
        loop {
            let line = reader.line().await?;
            if line.starts_with("cursor ") {
                if !history {
                    daemon.say(&line).await?;
                }
            } else if line.starts_with("done ") {
                break;
            }
        }
        while let Ok(line) = reader.line().await {
            let (number, at) = line.split_once(' ').ok_or("a line without two numbers")?;
            Times::set(&times.received, number.parse()?, at.parse()?);
        }
        Outcome::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), received)
        .await
        .map_err(|_| "the client did not get everything")??;
    daemon.say("end").await?;
    daemon.expect("done").await?;
    daemon.end().await
}

async fn wait_for_walsender(source: &Source) {
    let active = async || source.walsender(SLOT).await;
    walcast_testkit::eventually("the slot is read", walcast_testkit::LIMIT, active).await;
}

/// Waits until everything has arrived, or nothing will any more.
async fn wait_for_rest(times: &Times) {
    let started = Instant::now();
    let missing = || times.received.iter().any(|time| time.load(Ordering::Relaxed) == 0);
    while missing() && started.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes all transactions, each at its time or as soon after it as a session is free.
async fn write(source: &Source, rate: u64, times: &Arc<Times>) -> Outcome<()> {
    let (due, queue) = mpsc::unbounded_channel::<u64>();
    let queue = Arc::new(Mutex::new(queue));
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let session = TestSession::connect(&source.url()).await;
        let statement = session.prepare("INSERT INTO public.latency VALUES ($1, $2)").await?;
        let (queue, times) = (Arc::clone(&queue), Arc::clone(times));
        writers.push(tokio::spawn(async move {
            loop {
                let Some(number) = queue.lock().await.recv().await else { return Outcome::Ok(()) };
                let note = format!("SEQ:{number:010} abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz");
                session.execute(&statement, &[&number.cast_signed(), &note]).await?;
                Times::set(&times.committed, number, now_nanos());
            }
        }));
    }
    let schedule = std::thread::spawn({
        let times = Arc::clone(times);
        move || {
            let (started, started_nanos) = (Instant::now(), now_nanos());
            for number in 0..times.due.len() as u64 {
                let at = Duration::from_nanos(number * 1_000_000_000 / rate);
                std::thread::sleep(at.saturating_sub(started.elapsed()));
                Times::set(
                    &times.due,
                    number,
                    started_nanos + u64::try_from(at.as_nanos()).unwrap_or(u64::MAX),
                );
                if due.send(number).is_err() {
                    return;
                }
            }
        }
    });
    for writer in writers {
        writer.await??;
    }
    schedule.join().map_err(|_| "the schedule panicked".into())
}

fn print(rate: u64, consumers: &[Consumer], results: &[Vec<Round>]) {
    println!("\n{rate} transactions/s, milliseconds, median of {ROUNDS} rounds");
    println!(
        "| consumer | after the commit: p50 | p95 | p99 | after the scheduled time: p50 | p95 | p99 | commit p50 | p99 | lost |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (consumer, rounds) in consumers.iter().zip(results) {
        let of = |list: &dyn Fn(&Round) -> &Vec<f64>, percent: f64| {
            let all: Vec<f64> = rounds.iter().map(|round| percentile(list(round), percent)).collect();
            median(&all)
        };
        print!("| {} |", consumer.label());
        for percent in [50.0, 95.0, 99.0] {
            print!(" {:.2} |", of(&|round| &round.after_commit, percent));
        }
        for percent in [50.0, 95.0, 99.0] {
            print!(" {:.2} |", of(&|round| &round.after_due, percent));
        }
        for percent in [50.0, 99.0] {
            print!(" {:.2} |", of(&|round| &round.commit, percent));
        }
        println!(" {} |", rounds.iter().map(|round| round.missing).sum::<usize>());
    }
}
