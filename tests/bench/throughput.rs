//! From a filled slot to a consumer: every consumer reads the same WAL from a copy of the same slot, one after the other,
//! in rounds, so that a machine that gets busier meanwhile makes all of them slower.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::options::Options;
use crate::peer::{self, Plugin};
use crate::process::{Machine, Usage};
use crate::source::{Load, Source};
use crate::statistics::{median, range};
use crate::{Outcome, client, pipeline};

/// Beyond it a run has failed.
const RUN_MAX: Duration = Duration::from_secs(300);

/// One run of one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    /// Of the consumer; a WebSocket client is not counted in.
    pub(crate) usage: Usage,
    /// CPU of its walsender, in seconds.
    pub(crate) walsender_seconds: f64,
    /// The share of all processors that the hypervisor gave to others meanwhile, from 0 to 1.
    pub(crate) stolen: f64,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Consumer {
    Peer(Plugin),
    Walcast { history: bool, socket: bool },
}

impl Consumer {
    fn parse(name: &str) -> Outcome<Self> {
        Ok(match name {
            "pgoutput" => Self::Peer(Plugin::Pgoutput),
            "wal2json" => Self::Peer(Plugin::Wal2json),
            "wal2json-v2" => Self::Peer(Plugin::Wal2jsonV2),
            "feed" => Self::Walcast { history: false, socket: false },
            "history" => Self::Walcast { history: true, socket: false },
            "socket" => Self::Walcast { history: false, socket: true },
            "socket-history" => Self::Walcast { history: true, socket: true },
            other => return Err(format!("unknown consumer {other}").into()),
        })
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Peer(Plugin::Pgoutput) => "pg_recvlogical, pgoutput → /dev/null",
            Self::Peer(Plugin::Wal2json) => "pg_recvlogical, wal2json → /dev/null",
            Self::Peer(Plugin::Wal2jsonV2) => "pg_recvlogical, wal2json format 2 → /dev/null",
            Self::Walcast { history: false, socket: false } => "walcast (a): feed, stored at once",
            Self::Walcast { history: true, socket: false } => "walcast (b): change_history",
            Self::Walcast { history: false, socket: true } => "walcast (c): one WebSocket client, no history",
            Self::Walcast { history: true, socket: true } => "walcast (d): one WebSocket client and history",
        }
    }
}

/// Measures and prints one table for each size of transaction.
pub(crate) async fn run(source: &Source, options: &Options) -> Outcome<()> {
    let mut consumers = Vec::new();
    for name in &options.consumers {
        let consumer = Consumer::parse(name)?;
        match consumer {
            Consumer::Peer(_) if source.program("pg_recvlogical").is_none() => {
                println!("pg_recvlogical is not installed beside this Postgres: skipped {name}");
            }
            Consumer::Peer(Plugin::Wal2json | Plugin::Wal2jsonV2) if !source.has_wal2json() => {
                println!("wal2json is not installed (Debian: postgresql-15-wal2json): skipped {name}");
            }
            _ => consumers.push(consumer),
        }
    }
    for &size in &options.sizes {
        let load = source.load(size, options.rows_of(size)).await?;
        let mut results = vec![Vec::new(); consumers.len()];
        for _ in 0..options.runs {
            for (consumer, results) in consumers.iter().zip(&mut results) {
                let run = tokio::time::timeout(RUN_MAX, Box::pin(measure(source, &load, *consumer)));
                let measured = run.await.map_err(|_| format!("{} did not end", consumer.label()))??;
                let stolen = measured.stolen * 100.0;
                eprintln!("  {:<46} {:>7.2} s, {stolen:.0} % stolen", consumer.label(), measured.seconds);
                results.push(measured);
            }
        }
        print(size, &load, &consumers, &results);
    }
    Ok(())
}

async fn measure(source: &Source, load: &Load, consumer: Consumer) -> Outcome<Measured> {
    match consumer {
        Consumer::Peer(plugin) => peer::measure(source, load, plugin).await,
        Consumer::Walcast { history, socket } => measure_walcast(source, load, history, socket).await,
    }
}

async fn measure_walcast(source: &Source, load: &Load, history: bool, socket: bool) -> Outcome<Measured> {
    const SLOT: &str = "bench_walcast";
    source.copy_slot(SLOT, "pgoutput").await?;
    let task = pipeline::Task {
        url: source.url(),
        slot: SLOT.into(),
        from: load.from.clone(),
        to: load.to.clone(),
        changes: load.rows,
        system_identifier: source.system_identifier().await?,
        history,
        socket,
    };
    let mut daemon = Process::start(&task.arguments())?;
    let port = daemon.expect("ready").await?;
    let mut reader = None;
    if socket {
        let mut process = Process::start(&client::counting(&port, &load.from, load.rows))?;
        process.expect("subscribed").await?;
        reader = Some(process);
    }
    let before = Usage::of(daemon.pid()).unwrap_or_default();
    let (machine, started) = (Machine::now(), Instant::now());
    daemon.say("go").await?;
    let delivery = async {
        if let Some(reader) = &mut reader {
            loop {
                let line = reader.line().await?;
                // History keeps its own account of what is stored.
                if line.starts_with("cursor ") && !history {
                    daemon.say(&line).await?;
                } else if line.starts_with("done ") {
                    break;
                }
            }
            daemon.say("end").await?;
        }
        let done = daemon.expect("done").await?;
        Outcome::Ok((started.elapsed().as_secs_f64(), done))
    };
    let sender = std::sync::Mutex::new(Usage::default());
    let watching = async {
        let mut walsender = None;
        loop {
            if walsender.is_none() {
                walsender = source.walsender(SLOT).await;
            }
            if let (Some(usage), Ok(mut sender)) = (walsender.and_then(Usage::of), sender.lock()) {
                *sender = sender.max(usage);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (seconds, done) = tokio::select! {
        delivered = delivery => delivered?,
        () = watching => return Err("watching does not end".into()),
    };
    let stolen = machine.stolen_since();
    let numbers: Vec<f64> = done.split(' ').map(|number| number.parse().unwrap_or(0.0)).collect();
    let [_, _, cpu_seconds, peak_kib] = numbers.as_slice() else { return Err(done.into()) };
    let usage = Usage { cpu_seconds: *cpu_seconds, peak_kib: *peak_kib as u64 } - before;
    daemon.end().await?;
    source.drop_slot(SLOT).await?;
    let walsender_seconds = sender.lock().map_or(0.0, |usage| usage.cpu_seconds);
    Ok(Measured { rows: load.rows, seconds, usage, walsender_seconds, stolen })
}

/// This binary again, with a subcommand, and its lines.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) fn start(arguments: &[String]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self { input: child.stdin.take(), output: BufReader::new(output).lines(), child })
    }

    fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    pub(crate) async fn line(&mut self) -> Outcome<String> {
        self.output.next_line().await?.ok_or_else(|| "a process of the measurement has ended early".into())
    }

    /// The next line, which begins with this word: what comes after it.
    pub(crate) async fn expect(&mut self, word: &str) -> Outcome<String> {
        let line = self.line().await?;
        let rest = line.strip_prefix(word).ok_or_else(|| format!("{line:?} instead of {word}"))?;
        Ok(rest.trim().to_owned())
    }

    pub(crate) async fn say(&mut self, line: &str) -> Outcome<()> {
        let input = self.input.as_mut().ok_or("no input")?;
        input.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(input.flush().await?)
    }

    /// Closes its input, at which it ends.
    pub(crate) async fn end(mut self) -> Outcome<()> {
        drop(self.input.take());
        self.child.wait().await?;
        Ok(())
    }
}

fn print(size: u64, load: &Load, consumers: &[Consumer], results: &[Vec<Measured>]) {
    let rate = |measured: &Measured| measured.rows as f64 / measured.seconds;
    let column =
        |index: usize, of: &dyn Fn(&Measured) -> f64| -> Vec<f64> { results[index].iter().map(of).collect() };
    // Of each round by itself: what made one consumer slow in it did so to all.
    let ratio = |index: usize, peer: Plugin| {
        let peer = consumers.iter().position(|consumer| *consumer == Consumer::Peer(peer))?;
        let pairs = results[index].iter().zip(&results[peer]);
        Some(median(&pairs.map(|(ours, theirs)| rate(ours) / rate(theirs)).collect::<Vec<_>>()))
    };
    let text = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
    println!("\n{} changes in transactions of {size}", load.rows);
    println!(
        "| consumer | changes/s | from – to | × pgoutput | × wal2json | CPU-s/million | walsender CPU-s/million | peak RSS MiB | stolen % |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (index, consumer) in consumers.iter().enumerate() {
        let rates = column(index, &rate);
        let (low, high) = range(&rates);
        let million = load.rows as f64 / 1e6;
        println!(
            "| {} | {:.0}k | {:.0}k – {:.0}k | {} | {} | {:.2} | {:.2} | {:.0} | {:.0} |",
            consumer.label(),
            median(&rates) / 1e3,
            low / 1e3,
            high / 1e3,
            text(ratio(index, Plugin::Pgoutput)),
            text(ratio(index, Plugin::Wal2json)),
            median(&column(index, &|measured| measured.usage.cpu_seconds)) / million,
            median(&column(index, &|measured| measured.walsender_seconds)) / million,
            median(&column(index, &|measured| measured.usage.peak_kib as f64)) / 1024.0,
            median(&column(index, &|measured| measured.stolen)) * 100.0,
        );
    }
}
