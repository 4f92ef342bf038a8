//! Tables for docs/performance.md.

use crate::Outcome;
use crate::inside::{self, Measured};
use crate::options::Options;
use crate::statistics::{median, range};

pub(crate) fn head() {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{cpus} CPUs, load {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
}

/// Measures all counts in turns, and prints the median of each figure, with the slowest and the fastest.
pub(crate) fn rounds(
    what: &str,
    options: &Options,
    measure: impl Fn(usize) -> Outcome<Measured>,
) -> Outcome<()> {
    let mut all: Vec<Vec<Measured>> = vec![Vec::new(); options.counts.len()];
    for _ in 0..options.rounds {
        for (runs, count) in all.iter_mut().zip(&options.counts) {
            runs.push(measure(*count)?);
        }
    }
    println!("\n{what}, median of {} (from – to), × the first\n", options.rounds);
    let counts: Vec<String> = options.counts.iter().map(ToString::to_string).collect();
    println!("| | {} |", counts.join(" | "));
    println!("| --- |{}", " ---: |".repeat(counts.len()));
    let names: Vec<&String> =
        all.first().and_then(|runs| runs.first()).into_iter().flat_map(|one| one.keys()).collect();
    for name in names {
        let values = |runs: &[Measured]| -> Vec<f64> {
            runs.iter().filter_map(|measured| measured.get(name).copied()).collect()
        };
        let first = values(&all[0]);
        let cells = all.iter().map(|runs| {
            let values = values(runs);
            // Within each round: what else the machine does changes slowly.
            let ratios: Vec<f64> = values.iter().zip(&first).map(|(value, first)| value / first).collect();
            let (low, high) = range(&values);
            format!("{} ({} – {}) ×{:.2}", short(median(&values)), short(low), short(high), median(&ratios))
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

/// Subscriptions that all want the same.
pub(crate) fn same(options: &Options) -> Outcome<()> {
    rounds("all want the same", options, |count| inside::measure_same(count, options))
}

fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
