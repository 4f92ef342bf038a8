//! Deterministic simulation: the real decoder, assembler, feed, router and sessions, between a model of Postgres, a model
//! of history's store, and clients that check every message against the log.
//!
//! ```text
//!  source ──pgoutput──► assembler ─► feed ─► router ─► sessions ──frames──► clients, each with the oracle
//!  (transactions,         (real)    (real)   (real)     (real)                │ leave, store, come back
//!   snapshots)                        └─► appender ─► store ──pages──►────────┘
//!                                         (model)    (model)
//! ```
//!
//! Nothing runs by itself and there is no clock: a schedule says who takes the next step. It is drawn from a seed, so
//! a failure is repeated by its seed, and made shorter until nothing can be left out. Faults are steps like others: the
//! connection to the source is cut and goes on from what was acknowledged, commits of history have an unknown outcome
//! and happen late, history is away, retention drops what is old, the daemon is killed, clients leave and come back
//! at what they stored, or do not read.
//!
//! `WALCAST_SIMULATION_SEED` (1) says where to begin. A run of the tests takes [`SCHEDULES`] from there, whatever the machine is
//! like; with `WALCAST_SIMULATION_SECONDS` it goes on for so long.

mod client;
mod daemon;
mod run;
mod schedule;
mod source;
mod store;
mod told;
mod wire;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use run::{Tried, play};
use schedule::Schedule;

/// How many are tried where no time is given: a few seconds of them, and enough for everything to have come up.
const SCHEDULES: u64 = 600;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What went wrong, if anything did; a panic of the code under test is a failure as others are.
fn outcome(schedule: &Schedule) -> Result<Tried, String> {
    catch_unwind(AssertUnwindSafe(|| play(schedule))).unwrap_or_else(|panic| Err(words_of(&*panic)))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default())
}

fn fail(seed: u64, error: &str) -> ! {
    let shortest = Schedule::draw(seed).shrink(|candidate| outcome(candidate).is_err());
    let last = outcome(&shortest).err().unwrap_or_default();
    let steps: Vec<String> =
        shortest.actions.iter().enumerate().map(|(index, action)| format!("{index:4} {action:?}")).collect();
    panic!(
        "WALCAST_SIMULATION_SEED={seed}: {error}\n\nthe shortest that fails, {} clients, {:?}:\n{}\n{last}",
        shortest.clients,
        shortest.sizes,
        steps.join("\n")
    );
}

#[test]
fn every_client_is_told_exactly_the_log_whatever_happens() {
    let first = setting("WALCAST_SIMULATION_SEED").unwrap_or(1);
    let end =
        setting("WALCAST_SIMULATION_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (mut schedules, mut all) = (0_u64, Tried::default());
    let mut seed = first;
    while schedules == 0 || end.map_or(schedules < SCHEDULES, |end| Instant::now() < end) {
        match outcome(&Schedule::draw(seed)) {
            Ok(tried) => all.add(tried),
            Err(error) => fail(seed, &error),
        }
        schedules += 1;
        seed += 1;
    }
    println!("{schedules} schedules from seed {first} on: {all:?}");
    if schedules >= 300 {
        all.assert_thorough();
    }
}
