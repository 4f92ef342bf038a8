//! The composition root: builds the daemon from its settings, runs it, and takes it down in order.
//!
//! ```text
//!               setup ──► Feed ◄── Replicator (slot) ◄── BarrierEmitter (SQL)      Reconciler (publications)
//!                          │
//!                          ├──► Appender (history) ──acknowledge──► Replicator
//!                          └──► Broadcaster ◄── Gate (opened by the first barrier)
//! ```
//!
//! The listener is bound first, so that a mistake in the address is found at once; until the feed is set up it
//! answers `/livez`, and everything else with "not ready".

mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{Broadcaster, Gate, Sources, doors};
use walcast_feed::{Barriers, Feed};
use walcast_history::{Appender, FeedRecord, Reader};
use walcast_model::{Cursor, Lsn};
use walcast_postgres::{ConnectionConfig, ErrorClass, Pool, Session};
use walcast_replication::publication::Reconciler;
use walcast_replication::{BarrierEmitter, RecordTimeline, Replicator, ReplicatorSettings};
use walcast_snapshot::Snapshots;

use tasks::Tasks;

use crate::commands::setup::{Note, SetupError, Target, prepare, require_free_slot};
use crate::settings::ServeSettings;

/// Why the daemon stopped, other than because it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {error}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's words.
        error: std::io::Error,
    },
    /// A mistake in the configuration, of walcast or of a server.
    #[error("{}", told(.0))]
    Setup(#[from] SetupError),
    /// A core task ended.
    #[error("{0}")]
    Task(String),
}

fn told(error: &SetupError) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

/// Runs the daemon until `shutdown`; `listening` is told the address. Returns after everything has been taken down.
pub(crate) async fn serve(
    settings: ServeSettings,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let address = settings.listen;
    let failed = |error| ServeError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);
    let record = tokio::select! {
        record = until_set_up(&settings) => record?,
        () = doors::serve_unprepared(&listener) => return Ok(()),
        () = shutdown.cancelled() => return Ok(()),
    };
    Daemon::start(&settings, record, metrics, listener).run(shutdown).await
}

/// Retries what may pass by itself for ever; a mistake in the configuration is for a person.
async fn until_set_up(settings: &ServeSettings) -> Result<FeedRecord, SetupError> {
    let target = Target {
        source: settings.database.clone(),
        history: settings.history.clone(),
        publication: settings.publication.clone(),
        slot: settings.slot.clone(),
    };
    let mut wait = Duration::from_millis(250);
    loop {
        let prepared = async {
            require_free_slot(&target).await?;
            prepare(&target, false, &mut log_note).await
        };
        let error = match prepared.await {
            Ok(record) => return Ok(record),
            Err(error) if error.class() == ErrorClass::Transient => error,
            Err(error) => return Err(error),
        };
        // Full jitter, so that many daemons do not come back together.
        let pause = wait.mul_f64(rand::random_range(0.5..1.0));
        tracing::warn!(%error, hint = error.hint(), "not set up yet; trying again in {pause:?}");
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(Duration::from_secs(10));
    }
}

fn log_note(note: Note) {
    match note.fix {
        Some(fix) => tracing::warn!(subject = note.subject, fix, "{}", note.message),
        None => tracing::info!(subject = note.subject, "{}", note.message),
    }
}

/// The running daemon: its tasks, and the two signals by which they are told to end.
struct Daemon {
    tasks: Tasks,
    /// First: accept nothing more, tell the clients, let them go.
    drain: CancellationToken,
    /// Then: read nothing more from the source.
    stop_source: CancellationToken,
    /// Then: store what is there, and end.
    stop_history: CancellationToken,
    grace: Duration,
    feed: Feed,
}

impl Daemon {
    fn start(
        settings: &ServeSettings,
        record: FeedRecord,
        metrics: PrometheusHandle,
        listener: TcpListener,
    ) -> Self {
        let (writer, feed) = Feed::new(record.position, settings.feed);
        let (barriers, requests) = Barriers::new();
        // `0/0` acknowledges nothing.
        let (acknowledge, acknowledged) = watch::channel(Lsn::ZERO);
        let mut daemon = Self {
            tasks: Tasks::default(),
            drain: CancellationToken::new(),
            stop_source: CancellationToken::new(),
            stop_history: CancellationToken::new(),
            grace: settings.grace,
            feed: feed.clone(),
        };
        daemon.store(settings, &record, acknowledge);
        let emitter = BarrierEmitter::new(settings.database.clone(), requests);
        let stop = daemon.stop_source.clone();
        daemon.tasks.spawn("barrier emitter", emitter.run(stop).map(Ok));
        let source = replicator(settings, &record);
        let replicator =
            Replicator::new(settings.database.clone(), source, writer, barriers.clone(), acknowledged);
        let stop = daemon.stop_source.clone();
        daemon.tasks.spawn("replicator", replicator.run(stop).map(Ok));
        daemon.publish(settings, &record);
        let gate = Gate::closed();
        let opening = open_gate(gate.clone(), barriers.clone(), feed, daemon.drain.clone());
        daemon.tasks.spawn("gate", opening.map(Ok));
        daemon.open_doors(settings, record, barriers, gate, metrics, listener);
        daemon
    }

    fn store(&mut self, settings: &ServeSettings, record: &FeedRecord, acknowledge: watch::Sender<Lsn>) {
        let (history, feed) = (settings.history.clone(), self.feed.clone());
        let appender = Appender::new(history, record.clone(), feed, settings.append, acknowledge);
        let stop = self.stop_history.clone();
        let run = async move { appender.run(stop).await.map_err(|error| error.to_string()) };
        self.tasks.spawn("appender", run);
    }

    fn publish(&mut self, settings: &ServeSettings, record: &FeedRecord) {
        if !settings.publication.manage {
            return;
        }
        let secret = record.secret.reveal().to_owned();
        let reconciler = Reconciler::new(settings.database.clone(), settings.publication.clone(), secret);
        let stop = self.stop_source.clone();
        self.tasks.spawn("publications", reconciler.run(stop).map(Ok));
    }

    fn open_doors(
        &mut self,
        settings: &ServeSettings,
        record: FeedRecord,
        barriers: Barriers,
        gate: Gate,
        metrics: PrometheusHandle,
        listener: TcpListener,
    ) {
        let pool = Pool::new(settings.history.clone(), "walcast history", settings.history_readers_max);
        let publications = settings.publication.names();
        let snapshots =
            Snapshots::new(settings.database.clone(), barriers.clone(), publications, settings.snapshot);
        let sources = Sources {
            feed_id: record.id,
            feed: self.feed.clone(),
            barriers,
            past: Arc::new(Reader::new(pool)),
            source: Arc::new(snapshots),
            gate,
        };
        let broadcaster = Broadcaster::new(sources, settings.broadcast);
        let doors = doors::serve(listener, broadcaster, Some(metrics), self.drain.clone());
        self.tasks.spawn("doors", doors.map(|ended| ended.map_err(|error| error.to_string())));
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = self.tasks.first_to_end() => Some(ended),
        };
        if let Some(ended) = &ended {
            tracing::error!("{ended}; shutting down");
        }
        self.shut_down().await;
        ended.map_or(Ok(()), |ended| Err(ServeError::Task(ended.to_string())))
    }

    /// In this order: clients are told and let go; the source is read no further; history stores what the feed has,
    /// persists the position and acknowledges it; the replicator passes that on and says goodbye.
    async fn shut_down(self) {
        tracing::info!(position = %self.feed.head(), "shutting down");
        self.drain.cancel();
        self.stop_source.cancel();
        self.stop_history.cancel();
        self.tasks.join(self.grace).await;
        tracing::info!(stored = %self.feed.stored(), "shut down");
    }
}

fn replicator(settings: &ServeSettings, record: &FeedRecord) -> ReplicatorSettings {
    let mut replicator = ReplicatorSettings::new(
        settings.slot.name.clone(),
        settings.publication.names(),
        record.secret.reveal(),
        record.system_identifier.clone(),
        u32::try_from(record.timeline).unwrap_or(u32::MAX),
    );
    replicator.part_bytes_max = settings.part_bytes_max;
    replicator.record_timeline = Some(record_timeline(settings.history.clone(), record.clone()));
    replicator
}

/// Stores the source's new timeline with the feed before anything of it enters the feed.
fn record_timeline(history: ConnectionConfig, record: FeedRecord) -> RecordTimeline {
    Arc::new(move |timeline| {
        let (history, mut record) = (history.clone(), record.clone());
        async move {
            let session =
                Session::connect(&history, "walcast timeline").await.map_err(|error| error.to_string())?;
            record.move_to_timeline(&session, u64::from(timeline)).await.map_err(|error| error.to_string())
        }
        .boxed()
    })
}

/// The initial poll: everything that was committed before the daemon came must be in history before anybody is served.
async fn open_gate(gate: Gate, barriers: Barriers, feed: Feed, stop: CancellationToken) {
    let poll = async {
        let started = tokio::time::Instant::now();
        // `None` only when the daemon goes down.
        let position = barriers.pass().await.unwrap_or(Cursor::MAX);
        let mut stored = feed.watch_stored();
        // Fails only when the feed is gone, with the daemon.
        if stored.wait_for(|stored| *stored >= position).await.is_ok() {
            gate.open();
            tracing::info!(%position, seconds = started.elapsed().as_secs_f64(), "the initial poll is done; serving");
        }
        // A task that ends is a task that failed: this one is done, and waits for the end.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = poll => {}
        () = stop.cancelled() => {}
    }
}
