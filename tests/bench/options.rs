//! What a run measures, and how long.

use std::time::Duration;

use crate::Outcome;

const HELP: &str = "\
usage: make bench BENCH=\"[options]\"    or    cargo bench -p walcast-tests --bench pipeline -- [options]
  --runs N              rounds of every consumer, in turns (default 3)
  --rows N              changes in each load of 1,000-row and 10-row transactions (default 400000)
  --single-rows N       changes in the load of 1-row transactions (default 200000)
  --sizes N,N           rows a transaction (default 1000,10,1)
  --consumers X,X       of pgoutput,wal2json,wal2json-v2,feed,history,socket,socket-history (default: all but wal2json-v2)
  --rates N,N           transactions a second of the latency part (default 500,2000)
  --seconds N           of each latency run (default 5)
  --only throughput|latency
  --tcp                 everybody reads from Postgres over TCP (default: its Unix socket, as pg_recvlogical does)
  --long                --runs 7 --rows 3000000 --single-rows 1000000 --seconds 30";

/// See the help.
pub(crate) struct Options {
    pub(crate) runs: usize,
    pub(crate) rows: u64,
    pub(crate) single_rows: u64,
    pub(crate) sizes: Vec<u64>,
    pub(crate) consumers: Vec<String>,
    pub(crate) rates: Vec<u64>,
    pub(crate) latency_time: Duration,
    pub(crate) throughput: bool,
    pub(crate) latency: bool,
    pub(crate) tcp: bool,
}

impl Options {
    /// `None` when only the help was asked for.
    pub(crate) fn parse(arguments: &[String]) -> Outcome<Option<Self>> {
        let consumers = ["pgoutput", "wal2json", "feed", "history", "socket", "socket-history"];
        let mut options = Self {
            runs: 3,
            rows: 400_000,
            single_rows: 200_000,
            sizes: vec![1000, 10, 1],
            consumers: consumers.map(str::to_owned).to_vec(),
            rates: vec![500, 2000],
            latency_time: Duration::from_secs(5),
            throughput: true,
            latency: true,
            tcp: false,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value\n{HELP}"));
            match flag.as_str() {
                "--help" | "-h" => {
                    println!("{HELP}");
                    return Ok(None);
                }
                "--runs" => options.runs = value()?.parse()?,
                "--rows" => options.rows = value()?.parse()?,
                "--single-rows" => options.single_rows = value()?.parse()?,
                "--seconds" => options.latency_time = Duration::from_secs(value()?.parse()?),
                "--sizes" => options.sizes = list(value()?)?,
                "--rates" => options.rates = list(value()?)?,
                "--consumers" => options.consumers = value()?.split(',').map(str::to_owned).collect(),
                "--only" => match value()?.as_str() {
                    "throughput" => options.latency = false,
                    "latency" => options.throughput = false,
                    other => return Err(format!("--only {other}\n{HELP}").into()),
                },
                "--tcp" => options.tcp = true,
                "--long" => {
                    (options.runs, options.rows, options.single_rows) = (7, 3_000_000, 1_000_000);
                    options.latency_time = Duration::from_secs(30);
                }
                other => return Err(format!("unknown option {other}\n{HELP}").into()),
            }
        }
        Ok(Some(options))
    }

    /// Changes in the load of transactions of this size.
    pub(crate) const fn rows_of(&self, size: u64) -> u64 {
        let rows = if size == 1 { self.single_rows } else { self.rows };
        rows / size * size
    }
}

fn list(text: &str) -> Outcome<Vec<u64>> {
    text.split(',').map(|number| Ok(number.trim().parse()?)).collect()
}
