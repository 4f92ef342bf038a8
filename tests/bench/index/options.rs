//! How large a run is.

use crate::Outcome;

const HELP: &str = "\
usage: make bench-index BENCH=\"[options]\"    or    cargo bench -p walcast-tests --bench index -- [options]
  --counts N,N       subscriptions; the first is what the others are compared with (default 10,1000,100000)
  --rounds N         of all counts in turns (default 3)
  --changes N        of the throughput part (default 200000)
  --rate N           transactions a second of the latency part (default 2000)
  --seconds N        of the latency part (default 5)
  --only inside|same|daemon
  --connections N    of the daemon part, with 64 subscriptions each (default 1600)";

/// See the help.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) counts: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) changes: usize,
    pub(crate) rate: usize,
    pub(crate) seconds: usize,
    pub(crate) connections: usize,
    pub(crate) inside: bool,
    pub(crate) same: bool,
    pub(crate) daemon: bool,
}

impl Options {
    /// `None` when only the help was asked for.
    pub(crate) fn parse(arguments: &[String]) -> Outcome<Option<Self>> {
        let mut options = Self {
            counts: vec![10, 1000, 100_000],
            rounds: 3,
            changes: 200_000,
            rate: 2000,
            seconds: 5,
            connections: 1600,
            inside: true,
            same: true,
            daemon: true,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{HELP}"));
            match flag.as_str() {
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                "--counts" => {
                    let numbers = value()?.split(',').map(|number| number.trim().parse());
                    options.counts = numbers.collect::<Result<_, _>>()?;
                }
                "--rounds" => options.rounds = value()?.parse()?,
                "--changes" => options.changes = value()?.parse()?,
                "--rate" => options.rate = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--connections" => options.connections = value()?.parse()?,
                "--only" => {
                    let only = value()?.as_str();
                    if !["inside", "same", "daemon"].contains(&only) {
                        return Err(format!("--only {only}\n{HELP}").into());
                    }
                    (options.inside, options.same, options.daemon) =
                        (only == "inside", only == "same", only == "daemon");
                }
                other => return Err(format!("unknown option {other}\n{HELP}").into()),
            }
        }
        Ok(Some(options))
    }
}
