//! How large a run is.

use std::time::Duration;

use crate::Outcome;

const HELP: &str = "\
usage: make bench-memory BENCH=\"[options]\"    or    cargo bench -p walcast-tests --bench memory -- [options]
  --only X,X      of idle,transaction,row,clients,tables,stall (default: all)
  --rows N        rows of the large transaction (default 5000000)
  --row-mib N     size of the large row (default 200)
  --clients N     clients that do not read (default 10000)
  --tables N      tables (default 10000)
  --seconds N     how long history stalls (default 120)";

/// See the help.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    only: Vec<String>,
    pub(crate) rows: u64,
    pub(crate) row_mib: u64,
    pub(crate) clients: usize,
    pub(crate) tables: usize,
    pub(crate) stall: Duration,
}

impl Options {
    /// `None` when only the help was asked for.
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Outcome<Option<Self>> {
        let mut options = Self {
            only: Vec::new(),
            rows: 5_000_000,
            row_mib: 200,
            clients: 10_000,
            tables: 10_000,
            stall: Duration::from_secs(120),
        };
        // cargo says so to every bench.
        let mut rest = arguments.filter(|argument| argument != "--bench");
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{HELP}"));
            match flag.as_str() {
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--rows" => options.rows = value()?.parse()?,
                "--row-mib" => options.row_mib = value()?.parse()?,
                "--clients" => options.clients = value()?.parse()?,
                "--tables" => options.tables = value()?.parse()?,
                "--seconds" => options.stall = Duration::from_secs(value()?.parse()?),
                other => return Err(format!("unknown option {other}\n{HELP}").into()),
            }
        }
        Ok(Some(options))
    }

    /// Whether this case is to be run.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == case)
    }
}
