//! `pg_recvlogical`, the reader that comes with Postgres.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{Machine, Usage};
use crate::source::{Load, PUBLICATION, Source};
use crate::throughput::Measured;

/// Its output plugin, and how it is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plugin {
    Pgoutput,
    /// One JSON document for a transaction: its default.
    Wal2json,
    /// One JSON document for a change.
    Wal2jsonV2,
}

impl Plugin {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pgoutput => "pgoutput",
            Self::Wal2json | Self::Wal2jsonV2 => "wal2json",
        }
    }

    fn options(self) -> Vec<String> {
        match self {
            Self::Pgoutput => vec!["proto_version=1".into(), format!("publication_names={PUBLICATION}")],
            Self::Wal2json => vec!["add-tables=public.*".into()],
            Self::Wal2jsonV2 => vec!["add-tables=public.*".into(), "format-version=2".into()],
        }
    }
}

/// Starts it on a slot, writing to `file`; it ends at `end` if there is one.
pub(crate) fn start(
    program: PathBuf,
    url: &str,
    slot: &str,
    plugin: Plugin,
    file: &str,
    end: Option<&str>,
) -> Outcome<Child> {
    let mut command = Command::new(program);
    command.args(["--start", "--no-loop", "-d", url, "-S", slot, "-f", file]);
    for option in plugin.options() {
        command.args(["-o", &option]);
    }
    if let Some(end) = end {
        command.args(["--endpos", end]);
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// Reads a load to `/dev/null`.
pub(crate) async fn measure(source: &Source, load: &Load, plugin: Plugin) -> Outcome<Measured> {
    const SLOT: &str = "bench_peer";
    let program = source.program("pg_recvlogical").ok_or("pg_recvlogical is not installed")?;
    source.copy_slot(SLOT, plugin.name()).await?;
    let (machine, started) = (Machine::now(), Instant::now());
    let mut child = start(program, &source.url(), SLOT, plugin, "/dev/null", Some(&load.to))?;
    let (mut usage, mut walsender, mut sender_usage) = (Usage::default(), None, Usage::default());
    let status = loop {
        // Before it is waited for: a process that has ended still says what it has used.
        usage = usage.max(Usage::of(child.id()).unwrap_or_default());
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if walsender.is_none() {
            walsender = source.walsender(SLOT).await;
        }
        sender_usage = sender_usage.max(walsender.and_then(Usage::of).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let (seconds, stolen) = (started.elapsed().as_secs_f64(), machine.stolen_since());
    if !status.success() {
        return Err(format!("pg_recvlogical ended with {status}").into());
    }
    source.drop_slot(SLOT).await?;
    Ok(Measured { rows: load.rows, seconds, usage, walsender_seconds: sender_usage.cpu_seconds, stolen })
}
