//! `make bench-memory`: how much memory the real daemon has resident at most, under what could make it need much.
//!
//! ```text
//! main ──► case     a Postgres, a database and a daemon for each: what is done to it
//!          ├─ client    plain WebSockets that count, or that do not read
//!          └─ resident  what the operating system says of the daemon, from /proc
//! ```
//!
//! The table that it prints stands in docs/performance.md.

mod case;
mod client;
mod options;
mod resident;

use std::error::Error;

use options::Options;
use walcast_testkit::{Installation, cluster_builder};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let Some(options) = Options::parse(std::env::args().skip(1))? else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(Box::pin(run(&options)))
}

async fn run(options: &Options) -> Outcome<()> {
    let installation = Installation::newest()?;
    println!("Postgres {}, {} CPUs", installation.version(), std::thread::available_parallelism()?);
    println!("| what is done | bounded by | peak RSS, MiB | seconds |\n| --- | --- | ---: | ---: |");
    for case in case::ALL.iter().filter(|case| options.wants(case.name)) {
        // Room for what some cases need: WAL that waits, locks on many tables.
        let cluster = cluster_builder(&installation)
            .setting("max_wal_size", "4GB")
            .setting("max_locks_per_transaction", 256)
            .setting("autovacuum", "off")
            .start()
            .await?;
        for measured in Box::pin((case.run)(options.clone(), &cluster)).await? {
            println!(
                "| {} | {} | {:.0} | {:.0} |",
                measured.what,
                measured.bound,
                measured.peak as f64 / f64::from(1 << 20),
                measured.seconds
            );
        }
    }
    Ok(())
}
