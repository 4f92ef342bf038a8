//! The running daemon: what is wired to what, and the order in which it is taken down.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{Broadcaster, Gate, Lineage, Sources, doors};
use walcast_feed::{Barriers, Feed, MessageReader};
use walcast_history::{Appender, Clients, FeedRecord, Reader, Retention};
use walcast_model::Lsn;
use walcast_postgres::Pool;
use walcast_replication::publication::Reconciler;
use walcast_replication::{BarrierEmitter, Replicator, ReplicatorSettings, WalWatch};
use walcast_snapshot::Snapshots;

use super::again::{Again, Ending};
use super::entrance::Keepers;
use super::gate::{open_gate, prove};
use super::identity::{self, HistoryKeeper, Settled, origin};
use super::tasks::Tasks;
use super::{ServeError, images, upkeep};
use crate::settings::ServeSettings;

/// Sessions that store and read what clients acknowledge.
const CLIENT_SESSIONS_MAX: usize = 2;

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
pub(super) struct Daemon {
    pub(super) tasks: Tasks,
    /// First: accept nothing more, tell the clients, let them go.
    drain: CancellationToken,
    /// Then: read nothing more from the source.
    pub(super) stop_source: CancellationToken,
    /// Then: store what is there, and end.
    stop_history: CancellationToken,
    grace: Duration,
    pub(super) feed: Feed,
    /// Told when the feed cannot go on as it is.
    again: watch::Receiver<Option<Again>>,
}

impl Daemon {
    pub(super) fn start(
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
        let emitter = BarrierEmitter::new(settings.database.clone(), requests).telling(feed.outages());
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
            .keeping(settings.clients.keep_clients.clone())
            .telling(self.feed.outages());
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
                // It was told to end, and could not store the rest.
                Err(error) if stop.is_cancelled() => {
                    let hint = error.hint();
                    tracing::warn!(%error, hint, "not everything is in history; {}", of_the_rest(&error));
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
        let secret = record.secret.reveal().to_owned();
        let reconciler = Reconciler::new(settings.database.clone(), settings.publication.clone(), secret)
            .telling(self.feed.outages());
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
    pub(super) async fn run(mut self, shutdown: &CancellationToken) -> Result<Option<Again>, ServeError> {
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

/// What becomes of what is not in history when this process ends, having failed with `error`.
const fn of_the_rest(error: &walcast_history::Error) -> &'static str {
    if error.ends_the_feed() {
        "this walcast could not store any more of its feed, and whoever starts next finds out how it goes on"
    } else {
        "the slot sends the rest at the next start"
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

#[cfg(test)]
mod tests {
    use walcast_history::Error;
    use walcast_model::Cursor;

    use super::of_the_rest;

    #[test]
    fn the_rest_is_promised_only_while_the_feed_goes_on() {
        let feed: walcast_model::FeedId = "f1".parse().unwrap();
        let (expected, found) = (Cursor::MAX, Cursor::default());
        let broken = walcast_postgres::Error::Closed;
        let promise = "the slot sends the rest";
        assert!(of_the_rest(&Error::Postgres { doing: "be written", source: broken }).starts_with(promise));
        for over in [
            Error::Fenced { feed: feed.clone(), expected, found },
            Error::MovedOn { feed: feed.clone(), expected, found },
            Error::WentBack { feed: feed.clone(), expected, found },
            Error::FeedGone { feed: feed.clone() },
            Error::Missing { feed },
        ] {
            assert!(!of_the_rest(&over).contains(promise), "{over}");
        }
    }
}
