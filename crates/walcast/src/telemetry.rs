//! Logs to standard error, metrics for Prometheus.

use std::io::{self, IsTerminal};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::output::Failure;
use crate::settings::{LogFormat, LogSettings};

/// What is logged when nothing is said: by the daemon.
pub(crate) const DAEMON: &str = "info";
/// … and by every other command, which prints what it has to say.
pub(crate) const COMMAND: &str = "warn";

/// Bounds of histograms of time, in seconds: from what memory takes to what a disk in trouble takes.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counters of histograms are folded this often, so that memory stays bounded when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Starts logging. Only once in a process; what is logged goes to standard error.
pub(crate) fn log(settings: &LogSettings, default: &str) {
    // Checked when it was read; the default is a level.
    let filter = EnvFilter::new(settings.filter.as_deref().unwrap_or(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match settings.format {
        LogFormat::Human => builder.with_ansi(io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Starts counting, within the runtime; the handle renders what `/metrics` shows.
///
/// # Errors
/// When something counts already.
pub(crate) fn count() -> Result<PrometheusHandle, Failure> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let recorder = builder.map_err(|error| Failure::because(&error))?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| Failure::new(error.to_string()))?;
    walcast_feed::metrics::describe();
    walcast_replication::metrics::describe();
    walcast_history::metrics::describe();
    crate::app::describe();
    Ok(handle)
}

/// Keeps the metrics' memory bounded, for ever.
pub(crate) async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}
