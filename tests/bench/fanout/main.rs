//! `make bench-fanout`: what a delivery costs, beside a floor that does nothing but write, in the same run.
//!
//! ```text
//! main ──► load      the floor and the daemon in turns: paced, flooded
//!      ├─► crowd     memory of idle connections; clients that come back at once; one that does not read
//!      │    └─ subject   a daemon on a database of its own, or the floor, and what they are made to send
//!      ├── receiver  (a process: this binary again) sockets that count frames
//!      └── floor     (a process: this binary again) writes ready-made frames to as many sockets
//! ```
//!
//! Sender and receiver are processes of their own, so that the sender's CPU time is the operating system's account of one
//! process. Method and results: docs/performance.md.

mod child;
mod crowd;
mod floor;
mod load;
mod options;
#[path = "../process.rs"]
#[expect(dead_code, reason = "the memory that it reads is another one than is meant here")]
mod process;
mod receiver;
#[path = "../statistics.rs"]
mod statistics;
mod subject;
mod wire;

use std::error::Error;

use options::Options;
use walcast_testkit::{Installation, cluster_builder};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo says so to every bench.
    arguments.retain(|argument| argument != "--bench");
    match arguments.first().map(String::as_str) {
        Some(floor::COMMAND) => return floor::main(),
        Some(receiver::COMMAND) => return receiver::main(),
        _ => {}
    }
    let Some(options) = Options::parse(&arguments)? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(Box::pin(run(&options)))
}

async fn run(options: &Options) -> Outcome<()> {
    let installation = Installation::newest()?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let machine = process::Machine::now();
    println!(
        "Postgres {}, {} CPUs, load {load} before",
        installation.version(),
        std::thread::available_parallelism()?
    );
    let cluster = cluster_builder(&installation)
        .setting("max_wal_size", "4GB")
        .setting("autovacuum", "off")
        .start()
        .await?;
    if options.wants("load") {
        Box::pin(load::run(options, &cluster)).await?;
    }
    if options.wants("memory") {
        Box::pin(crowd::memory(options, &cluster)).await?;
    }
    if options.wants("returning") {
        Box::pin(crowd::returning(options, &cluster)).await?;
    }
    if options.wants("stall") {
        Box::pin(crowd::stall(options, &cluster)).await?;
    }
    println!("\nstolen by the hypervisor: {:.1} %", machine.stolen_since() * 100.0);
    Ok(())
}
