//! The composition root: builds the daemon from its settings, runs it, and takes it down in order.
//!
//! ```text
//!               setup ──► Feed ◄── Replicator (slot) ◄── BarrierEmitter (SQL)      Reconciler (publications)
//!                          │
//!                          ├──► Appender (history) ──acknowledge──► Replicator      Retention (old partitions)
//!                          └──► Broadcaster ◄── Gate (opened by the first barrier)
//! ```
//!
//! The listener is bound first, so that a mistake in the address is found at once; until the feed is set up it
//! answers `/livez`, and everything else with "not ready".

mod again;
mod entrance;
mod error;
mod identity;
mod images;
mod policies;
mod tasks;
mod upkeep;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{Broadcaster, Gate, Lineage, Sources, doors};
use walcast_feed::{Barriers, Feed, MessageReader};
use walcast_history::{Appender, Clients, FeedRecord, Reader, Retention};
use walcast_model::{Cursor, Lsn};
use walcast_postgres::{ConnectionConfig, ErrorClass, Pool};
use walcast_replication::publication::Reconciler;
use walcast_replication::{BarrierEmitter, Replicator, ReplicatorSettings, WalWatch};
use walcast_snapshot::Snapshots;

use again::{Again, Ending, Why};
use entrance::{Entrance, Keepers};
pub(crate) use error::ServeError;
pub(crate) use identity::origin;
use identity::{HistoryKeeper, Settled, Unproven};
pub(crate) use policies::{PolicyFile, describe};
use tasks::Tasks;

use crate::commands::setup::{Note, SetupError, StartOver, Target, prepare, require_free_slot};
use crate::settings::{OnHole, ServeSettings};

/// Runs the daemon until `shutdown`; `listening` is told the addresses, `reload` tells that keys, certificate or policies
/// have changed. Returns after everything has been taken down.
pub(crate) async fn serve(
    settings: ServeSettings,
    policies: Option<PolicyFile>,
    metrics: PrometheusHandle,
    reload: watch::Receiver<()>,
    shutdown: CancellationToken,
    listening: impl FnOnce(&[String]),
) -> Result<(), ServeError> {
    let target = Target::of(&settings);
    let entrance = match Entrance::open(&settings.entrance).await {
        Ok(entrance) => entrance,
        Err(error) => return Err(error.with_foundations(&target).await),
    };
    let failed = |error| ServeError::Sockets { error };
    listening(&entrance.addresses().map_err(failed)?);
    let keepers = {
        let listeners = entrance.listeners().map_err(failed)?;
        tokio::select! {
            keepers = entrance.keepers(policies) => keepers?,
            ended = doors::serve_unprepared(&listeners) => return ended.map_err(failed),
            () = shutdown.cancelled() => return Ok(()),
        }
    };
    let mut again = None;
    // Once, but for a failover or a restore of the source: then the feed is continued as another one.
    loop {
        let listeners = entrance.listeners().map_err(failed)?;
        let settled = tokio::select! {
            settled = until_set_up(&settings, &target, again.as_ref()) => settled?,
            ended = doors::serve_unprepared(&listeners) => return ended.map_err(failed),
            () = shutdown.cancelled() => return Ok(()),
        };
        let mut daemon = Daemon::start(&settings, settled, metrics.clone(), &keepers, listeners);
        keepers.spawn(&mut daemon.tasks, reload.clone(), &daemon.stop_source);
        // Boxed: it holds everything.
        match Box::pin(daemon.run(&shutdown)).await? {
            Some(told) => again = Some(told),
            None => return Ok(()),
        }
    }
}

/// Sessions that store and read what clients acknowledge.
const CLIENT_SESSIONS_MAX: usize = 2;
/// The longest pause between two tries to set up.
const SETUP_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest pause between two looks whether the slot is free: a part of how long a take-over takes.
const STANDBY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Retries what may pass by itself for ever; a mistake in the configuration is for a person.
async fn until_set_up(
    settings: &ServeSettings,
    target: &Target,
    again: Option<&Again>,
) -> Result<Settled, SetupError> {
    let mut wait = Duration::from_millis(250);
    let has_hole = |feed: &FeedRecord| again.and_then(|again| again.of(feed)) == Some(Why::Hole);
    let start_over = match settings.on_hole {
        OnHole::Stop => StartOver::Never,
        OnHole::StartOver => StartOver::OnHole(&has_hole),
    };
    // Who has the slot is said once: a spare waits for days.
    let mut said = String::new();
    // What each try finds again too, and what is said by who looks after the publications.
    let mut noted = HashSet::new();
    let is_looked_after = settings.publication.manage;
    let mut note = |note: Note| {
        if !(is_looked_after && note.is_standing) && noted.insert(note.clone()) {
            log_note(note);
        }
    };
    loop {
        let prepared = async {
            require_free_slot(target).await?;
            let record = prepare(target, start_over, &mut note).await?;
            identity::settle(target, record, again).await
        };
        let error = match prepared.await {
            Ok(settled) => return Ok(settled),
            Err(error) if error.class() == ErrorClass::Transient || is_overtaken(&error) => error,
            Err(error) => return Err(error),
        };
        let longest = if error.is_slot_in_use() { STANDBY_PAUSE_MAX } else { SETUP_PAUSE_MAX };
        // Full jitter, so that many daemons do not come back together.
        let pause = wait.min(longest).mul_f64(rand::random_range(0.5..1.0));
        let text = error.to_string();
        if error.is_slot_in_use() && said == text {
            tracing::debug!(%error, "still not set up; trying again in {pause:.1?}");
        } else {
            let hint = error.hint(ServeError::COMMAND);
            tracing::warn!(%error, hint, "not set up yet; trying again in {pause:.1?}");
        }
        said = text;
        tokio::time::sleep(pause).await;
        wait = (wait * 2).min(longest);
    }
}

/// Another daemon that starts at the same time has continued the feed under another id.
const fn is_overtaken(error: &SetupError) -> bool {
    matches!(error, SetupError::History(walcast_history::Error::FeedGone { .. }))
}

fn log_note(note: Note) {
    match note.fix {
        Some(fix) => tracing::warn!(subject = note.subject, fix, "{}", note.message),
        None => tracing::info!(subject = note.subject, "{}", note.message),
    }
}

/// Who is let in, from when on, and to what.
struct Entry {
    gate: Gate,
    lineage: Lineage,
    clients: Clients,
    /// What the source says to channels.
    messages: MessageReader,
    entrance: doors::EntranceSettings,
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
    /// Told when the feed cannot go on as it is.
    again: watch::Receiver<Option<Again>>,
}

impl Daemon {
    fn start(
        settings: &ServeSettings,
        settled: Settled,
        metrics: PrometheusHandle,
        keepers: &Keepers,
        listeners: Vec<doors::Listener>,
    ) -> Self {
        let Settled { record, origin, lineage, unproven } = settled;
        let (writer, feed) = Feed::new(record.position, settings.feed);
        let (barriers, requests) = Barriers::new();
        // `0/0` acknowledges nothing.
        let (acknowledge, acknowledged) = watch::channel(Lsn::ZERO);
        let history = settings.history.clone();
        let appender = Appender::new(history, record.clone(), feed.clone(), settings.append, acknowledge)
            .with_images(images::imaged(&settings.last_images));
        let (ending, again) = Ending::new(record.clone(), appender.writer());
        let mut daemon = Self {
            tasks: Tasks::default(),
            drain: CancellationToken::new(),
            stop_source: CancellationToken::new(),
            stop_history: CancellationToken::new(),
            grace: settings.grace,
            feed: feed.clone(),
            again,
        };
        let (has_slot, held) = watch::channel(false);
        let clients = daemon.store(settings, &record, appender, held, ending.clone());
        let emitter = BarrierEmitter::new(settings.database.clone(), requests);
        let stop = daemon.stop_source.clone();
        daemon.tasks.spawn("barrier emitter", emitter.run(stop).map(Ok));
        let mut source = replicator(settings, &record);
        source.origin = origin;
        source.must_compare = unproven.is_some();
        source.last_images = images::kept(settings);
        let (said, messages) = walcast_feed::messages();
        source.messages = Some(said);
        source.keeper = Some(identity::shared(HistoryKeeper {
            history: settings.history.clone(),
            record: record.clone(),
            unproven: unproven.clone(),
            on_hole: settings.on_hole,
            has_slot,
            ending,
        }));
        let replicator =
            Replicator::new(settings.database.clone(), source, writer, barriers.clone(), acknowledged);
        let stop = daemon.stop_source.clone();
        daemon.tasks.spawn("replicator", replicator.run(stop).map(Ok));
        daemon.publish(settings, &record);
        daemon.watch_wal(settings);
        let gate = Gate::closed();
        let proof = {
            let (history, record, lineage) = (settings.history.clone(), record.clone(), lineage.clone());
            async move { prove(history, record, lineage, unproven).await }
        };
        let opening = open_gate(gate.clone(), barriers.clone(), feed, proof, daemon.drain.clone());
        daemon.tasks.spawn("gate", opening.map(Ok));
        daemon.open_doors(
            settings,
            record,
            Entry { gate, lineage, clients, messages, entrance: keepers.entrance() },
            barriers,
            metrics,
            listeners,
        );
        daemon
    }

    fn store(
        &mut self,
        settings: &ServeSettings,
        record: &FeedRecord,
        appender: Appender,
        mut held: watch::Receiver<bool>,
        ending: Ending,
    ) -> Clients {
        let stop = self.stop_history.clone();
        let pool = Pool::new(settings.history.clone(), "walcast clients", CLIENT_SESSIONS_MAX);
        let clients = Clients::new(pool, record, appender.writer(), settings.clients.clone());
        let (history, limits) = (settings.history.clone(), settings.retention);
        let source = upkeep::source_snapshot(settings.database.clone());
        let retention = Retention::new(history, record, appender.writer(), limits, source)
            .keeping(settings.clients.keep_clients.clone());
        self.tasks.spawn("retention", retention.run(stop.clone()).map(Ok));
        let run = async move {
            let held = async move {
                if held.wait_for(|held| *held).await.is_err() {
                    // The replicator has ended without it: so does everything.
                    std::future::pending().await
                }
            };
            match appender.run(held, stop.clone()).await {
                Ok(()) => Ok(()),
                // It was told to end, and could not store the rest: nothing is lost by that.
                Err(error) if stop.is_cancelled() => {
                    let hint = error.hint();
                    tracing::warn!(%error, hint, "not everything is in history; the slot sends the rest at the next start");
                    Ok(())
                }
                Err(error) if ending.history(&error) => {
                    stop.cancelled().await;
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            }
        };
        self.tasks.spawn("appender", run);
        clients
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

    fn watch_wal(&mut self, settings: &ServeSettings) {
        let (source, slot) = (settings.database.clone(), settings.slot.name.clone());
        let watch = WalWatch::new(source, slot, settings.wal_budget, self.feed.clone());
        let stop = self.stop_source.clone();
        self.tasks.spawn("wal budget", watch.run(stop).map(Ok));
    }

    fn open_doors(
        &mut self,
        settings: &ServeSettings,
        record: FeedRecord,
        entry: Entry,
        barriers: Barriers,
        metrics: PrometheusHandle,
        listeners: Vec<doors::Listener>,
    ) {
        let pool = Pool::new(settings.history.clone(), "walcast history", settings.history_readers_max);
        let publications = settings.publication.names();
        let snapshots =
            Snapshots::new(settings.database.clone(), barriers.clone(), publications, settings.snapshot);
        let past = Reader::new(pool, record.id.clone());
        let sources = Sources {
            feed_id: record.id,
            lineage: entry.lineage,
            feed: self.feed.clone(),
            barriers,
            past: Arc::new(past),
            source: Arc::new(snapshots),
            clients: Arc::new(entry.clients),
            gate: entry.gate,
        };
        let broadcaster = Broadcaster::new(sources, settings.broadcast);
        let (teller, stop, mut messages) = (broadcaster.clone(), self.drain.clone(), entry.messages);
        let tell = async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    message = messages.next() => teller.say(message),
                }
                // A queue that is full would keep others from the processor.
                tokio::task::consume_budget().await;
            }
        };
        self.tasks.spawn("messages to channels", tell);
        let doors = doors::serve(listeners, broadcaster, entry.entrance, Some(metrics), self.drain.clone());
        self.tasks.spawn("doors", doors.map(|ended| ended.map_err(|error| error.to_string())));
    }

    /// Returns why the feed has to be set up anew; `None` when it was told to end.
    async fn run(mut self, shutdown: &CancellationToken) -> Result<Option<Again>, ServeError> {
        let mut again = self.again.clone();
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(None),
            ended = self.tasks.first_to_end() => Err(ended),
            // Its senders live in tasks that are waited for.
            told = async { again.wait_for(Option::is_some).await.map_or(None, |told| told.clone()) } => Ok(told),
        };
        if let Err(ended) = &ended {
            tracing::error!("{ended}; shutting down");
        }
        self.shut_down().await;
        ended.map_err(|ended| ServeError::Task(ended.to_string()))
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
    let origin = origin(record);
    let mut replicator = ReplicatorSettings::new(
        settings.slot.name.clone(),
        settings.publication.names(),
        record.secret.reveal(),
        origin.system_identifier,
        origin.timeline,
    );
    replicator.part_bytes_max = settings.part_bytes_max;
    replicator
}

/// What is still to be found out about a source before anybody is served.
async fn prove(history: ConnectionConfig, record: FeedRecord, lineage: Lineage, unproven: Option<Unproven>) {
    if let Some(unproven) = unproven {
        identity::prove(&history, record, &lineage, &unproven).await;
    }
}

/// The initial poll: everything that was committed before the daemon came must be in history before anybody is served.
/// `proof` runs when it is.
async fn open_gate(
    gate: Gate,
    barriers: Barriers,
    feed: Feed,
    proof: impl Future<Output = ()>,
    stop: CancellationToken,
) {
    let poll = async {
        let started = tokio::time::Instant::now();
        // `None` only when the daemon goes down.
        let position = barriers.pass().await.unwrap_or(Cursor::MAX);
        let mut stored = feed.watch_stored();
        // Fails only when the feed is gone, with the daemon.
        if stored.wait_for(|stored| *stored >= position).await.is_ok() {
            proof.await;
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
