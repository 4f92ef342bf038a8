//! `make bench-index`: what many subscriptions with filters cost, beside a few in the same run.
//!
//! ```text
//! main ──► inside   this binary again, for each count of subscriptions in turns: the real feed, router, sessions and
//!      │     │      frames in one process, without sockets
//!      │     ├─ world     the feed's source, made up: parts, barriers, a catalog
//!      │     ├─ clients   tasks that read frames, 64 subscriptions each, as a connection has
//!      │     └─ floor     the same tasks, given frames that are ready by who knows them
//!      └─► daemon   the real daemon on a real Postgres, with as many subscriptions over WebSockets
//! ```
//!
//! Method and results: docs/performance.md.

mod clients;
mod daemon;
mod floor;
mod inside;
mod options;
#[path = "../statistics.rs"]
mod statistics;
mod table;
mod world;

use std::error::Error;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // cargo says so to every bench.
    arguments.retain(|argument| argument != "--bench");
    if arguments.first().is_some_and(|argument| argument == inside::COMMAND) {
        return inside::main(&arguments[1..]);
    }
    let Some(options) = options::Options::parse(&arguments)? else { return Ok(()) };
    table::head();
    if options.inside {
        table::rounds("in one process", &options, |count| inside::measure(count, &options))?;
        if options.same {
            table::same(&options)?;
        }
    }
    if options.daemon {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(Box::pin(daemon::run(&options)))?;
    }
    Ok(())
}
