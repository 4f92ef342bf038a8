//! How large a run is.

use std::path::PathBuf;

use crate::Outcome;

const HELP: &str = "\
usage: make bench-fanout BENCH=\"[options]\"    or    cargo bench -p walcast-tests --bench fanout -- [options]
  --sockets N,N     (default 100,1000,5000)
  --rounds N        walcast and the floor in turns (default 3)
  --paced N         deliveries a second over all sockets of the paced part (default 20000)
  --seconds N       of the paced part (default 10)
  --flooded N       deliveries of the flooded part (default 2000000)
  --idle N,N        connections of which the memory is measured (default 1000,5000,10000)
  --returning N     clients that come back at once (default 10000)
  --only X,X        of load,memory,returning,stall (default: all)
  --floor-only      the load part without walcast
  --daemon PATH     another build of walcast
What needs more open files than the process may have (ulimit -n) is left out, and said.";

/// See the help.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) sockets: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) paced: usize,
    pub(crate) seconds: usize,
    pub(crate) flooded: usize,
    pub(crate) idle: Vec<usize>,
    pub(crate) returning: usize,
    only: Vec<String>,
    pub(crate) floor_only: bool,
    pub(crate) daemon: Option<PathBuf>,
}

fn numbers(text: &str) -> Outcome<Vec<usize>> {
    Ok(text.split(',').map(|number| number.trim().parse()).collect::<Result<_, _>>()?)
}

impl Options {
    /// `None` when only the help was asked for.
    pub(crate) fn parse(arguments: &[String]) -> Outcome<Option<Self>> {
        let mut options = Self {
            sockets: vec![100, 1000, 5000],
            rounds: 3,
            paced: 20_000,
            seconds: 10,
            flooded: 2_000_000,
            idle: vec![1000, 5000, 10_000],
            returning: 10_000,
            only: Vec::new(),
            floor_only: false,
            daemon: None,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{HELP}"));
            match flag.as_str() {
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                "--sockets" => options.sockets = numbers(value()?)?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--paced" => options.paced = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--flooded" => options.flooded = value()?.parse()?,
                "--idle" => options.idle = numbers(value()?)?,
                "--returning" => options.returning = value()?.parse()?,
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--daemon" => options.daemon = Some(value()?.into()),
                "--floor-only" => options.floor_only = true,
                other => return Err(format!("unknown option {other}\n{HELP}").into()),
            }
        }
        options.fit()?;
        Ok(Some(options))
    }

    /// Whether this part is to be run.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// Leaves out what this process, and those that it starts, may not open.
    fn fit(&mut self) -> Outcome<()> {
        /// Files that a process has open beside its sockets.
        const OTHER_FILES: usize = 200;
        let limits = std::fs::read_to_string("/proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.and_then(|line| line.split_ascii_whitespace().next()).ok_or("no limit of files")?;
        let most = soft.parse::<usize>().unwrap_or(usize::MAX).saturating_sub(OTHER_FILES);
        let fits = |count: &usize| {
            if *count > most {
                println!("{count} sockets are left out: ulimit -n is {soft}");
            }
            *count <= most
        };
        self.sockets.retain(fits);
        self.idle.retain(fits);
        if !fits(&self.returning) {
            self.returning = most;
        }
        Ok(())
    }
}
