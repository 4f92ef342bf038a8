//! `make bench`: how fast changes come out of a slot, beside `pg_recvlogical`, and how late they arrive.
//!
//! ```text
//! main ──► source     a Postgres of its own: fsync on, one table, one slot that is copied for every run
//!      ├─► throughput every consumer reads the same WAL, in turns
//!      │     ├─ peer      pg_recvlogical with pgoutput, with wal2json, to /dev/null
//!      │     └─ pipeline  this binary again, with walcast's own crates: (a) feed, (b) history, (c) and (d) WebSocket
//!      │          └─ client    this binary again: reads frames and counts changes
//!      └─► latency    commit → client, with scheduled send times
//! ```
//!
//! Consumers are processes of their own, so that their CPU and memory can be told apart. Method and results:
//! docs/performance.md.

mod client;
mod latency;
mod options;
mod peer;
mod pipeline;
mod process;
mod source;
mod statistics;
mod throughput;

use std::error::Error;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo says so to every bench.
    arguments.retain(|argument| argument != "--bench");
    match arguments.first().map(String::as_str) {
        Some(pipeline::COMMAND) => pipeline::main(&arguments[1..]),
        Some(client::COMMAND) => client::main(&arguments[1..]),
        _ => {
            let Some(options) = options::Options::parse(&arguments)? else { return Ok(()) };
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(Box::pin(run(&options)))
        }
    }
}

async fn run(options: &options::Options) -> Outcome<()> {
    let source = source::Source::start(options.tcp).await?;
    println!("{}", source.description().await?);
    if options.throughput {
        Box::pin(throughput::run(&source, options)).await?;
    }
    if options.latency {
        Box::pin(latency::run(&source, options)).await?;
    }
    Ok(())
}
