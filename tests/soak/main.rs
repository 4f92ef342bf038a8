//! `make soak MINUTES=n SEED=s`: workloads and faults against the oracle, for as long as is asked (see
//! `walcast_testkit::Soak`, and docs/reliability.md for what is promised and how it is kept).
//!
//! ```text
//! soak [--minutes N] [--seed N] [--pg MAJOR] [--rows N] [--short]
//! soak --idle-minutes N [--pg MAJOR]
//! ```
//!
//! With several versions in `--pg` (`14,18`) the time is shared among them.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walcast_testkit::{IdleWatch, Installation, Soak};

const HELP: &str = "\
usage: make soak MINUTES=n SEED=s PG=14,18    or    cargo bench -p walcast-tests --bench soak -- [options]
  --minutes N   how long (default 10); a round that has begun is finished
  --seed N      decides statements, flags and faults (default: the clock)
  --pg N,N      major versions of Postgres; the time is shared among them (default: the newest that is here)
  --rows N      rows of the largest transaction (default 1000000)
  --short       the small rounds that `make test` runs
  --idle-minutes N   nothing of that, but a feed that is idle for so long, beside a busy database and alone";

struct Options {
    time: Duration,
    seed: u64,
    installations: Vec<Installation>,
    rows_max: Option<u32>,
    short: bool,
    /// Nothing but this, when it is given.
    idle: Option<Duration>,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (mut minutes, mut seed, mut versions, mut rows_max, mut short) =
        (10.0, now, String::new(), None, false);
    let mut idle_minutes: Option<f64> = None;
    // cargo says so to every bench.
    let mut rest = arguments.filter(|argument| argument != "--bench");
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{HELP}"));
        match flag.as_str() {
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(None);
            }
            "--minutes" => minutes = value()?.parse()?,
            "--seed" => seed = value()?.parse()?,
            "--pg" => versions = value()?,
            "--rows" => rows_max = Some(value()?.parse()?),
            "--short" => short = true,
            "--idle-minutes" => idle_minutes = Some(value()?.parse()?),
            other => return Err(format!("unknown option {other}\n{HELP}").into()),
        }
    }
    let named = versions.split([',', ' ']).filter(|name| !name.is_empty());
    let mut installations = named
        .map(|name| Ok(Installation::with_version(name.parse()?)?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    if installations.is_empty() {
        installations.push(Installation::newest()?);
    }
    let time = Duration::from_secs_f64(minutes * 60.0 / installations.len() as f64);
    let idle = idle_minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    Ok(Some(Options { time, seed, installations, rows_max, short, idle }))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(options) = parse(std::env::args().skip(1))? else { return Ok(ExitCode::SUCCESS) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for installation in options.installations {
        if let Some(time) = options.idle {
            let version = installation.version();
            match runtime.block_on(Box::pin(IdleWatch { time, installation }.run())) {
                Ok(report) => println!("Postgres {version}, {report}"),
                Err(failure) => {
                    println!("Postgres {version}: {failure}");
                    return Ok(ExitCode::FAILURE);
                }
            }
            continue;
        }
        let mut soak = if options.short {
            Soak { verbose: true, ..Soak::short(installation, options.seed, options.time) }
        } else {
            Soak::long(installation, options.seed, options.time)
        };
        soak.rows_max = options.rows_max.unwrap_or(soak.rows_max);
        match runtime.block_on(Box::pin(soak.run())) {
            Ok(report) => println!("\n{report}"),
            Err(failure) => {
                println!("\n{failure}");
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
