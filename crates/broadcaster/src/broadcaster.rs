//! The composition: what the doors serve.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use walcast_feed::{Barriers, Feed, SourceState};
use walcast_history::KnownClient;
use walcast_model::{Cursor, DatabaseMessage, FeedId};
use walcast_policy::Rights;
use walcast_protocol::{ClientList, ClientState, ErrorCode};

use crate::acks::{Acks, ClientPositions};
use crate::catalog::Catalog;
use crate::channels::{Channels, Memberships};
use crate::gate::Gate;
use crate::hindrance;
use crate::limits::Limits;
use crate::lineage::Lineage;
use crate::lookup::{Looked, Lookup};
use crate::metrics;
use crate::past::{InitialSync, PastPages};
use crate::reach::Reach;
use crate::reading::Reading;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::router::Router;
use crate::scans::Scans;
use crate::session::World;
use crate::subscription::{Client, Services, Subscription};
use crate::turns::{Applicant, Turns};

/// Clients that give back many subscriptions at once, at a time; the others wait for their turn.
const LEAVING_MAX: usize = 4;

/// How often it is asked how far history reaches back, for `welcome`.
const OLDEST_INTERVAL: Duration = Duration::from_secs(10);

/// How soon it is asked again while history does not answer.
const OLDEST_RETRY: Duration = Duration::from_secs(2);

/// Who gets what, from where. Cheap to clone; [`Broadcaster::run`] has to run once for all clones.
#[derive(Clone, Debug)]
pub struct Broadcaster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: Arc<World>,
    services: Arc<Services>,
    channels: Channels,
    /// Turns to give back many subscriptions: [`LEAVING_MAX`].
    leaving: Semaphore,
    // Read and written whole.
    oldest: Mutex<Option<Cursor>>,
}

/// What a broadcaster needs of the rest of walcast.
#[derive(Debug)]
pub struct Sources {
    /// The feed's id.
    pub feed_id: FeedId,
    /// The feeds that it continues.
    pub lineage: Lineage,
    /// The feed.
    pub feed: Feed,
    /// Barriers through the feed's source.
    pub barriers: Barriers,
    /// History: a [`walcast_history::Reader`].
    pub past: Arc<dyn PastPages>,
    /// Initial syncs: [`walcast_snapshot::Snapshots`].
    pub source: Arc<dyn InitialSync>,
    /// What clients acknowledge: [`walcast_history::Clients`].
    pub clients: Arc<dyn ClientPositions>,
    /// Opened when the initial poll is done.
    pub gate: Gate,
}

impl Broadcaster {
    /// A broadcaster that serves what `sources` has. Must be made where a Tokio runtime runs.
    #[must_use]
    pub fn new(sources: Sources, limits: Limits) -> Self {
        metrics::describe();
        let Sources { feed_id, lineage, feed, barriers, past, source, clients, gate } = sources;
        let router = Router::new(feed.clone(), limits);
        let catalog = Catalog::new(Arc::clone(&source));
        let folds = Arc::new(Semaphore::new(limits.folds_max));
        let turns = Turns::new(limits.snapshots_max, limits.snapshots_per_user_max);
        let lookups = Turns::new(limits.rows_max, limits.rows_per_user_max);
        let acks = Acks::new(clients, limits.ack_interval, feed.outages().clone());
        let past: Arc<dyn PastPages> = Arc::new(Reading::new(past, feed.outages()));
        let tasks = TaskTracker::new();
        let reach = Reach::new(Arc::clone(&past), tasks.clone());
        let services =
            Services { past, source, turns, lookups, catalog, reach, barriers, acks, folds, tasks };
        let scans = Scans::new(limits.scans_per_user_max);
        let world = World { feed_id, lineage, feed, gate, router, scans, limits };
        let (world, services) = (Arc::new(world), Arc::new(services));
        let (channels, leaving) = (Channels::new(limits), Semaphore::new(LEAVING_MAX));
        Self { shared: Arc::new(Shared { world, services, channels, leaving, oldest: Mutex::default() }) }
    }

    /// Follows the feed for all sessions, until it is cancelled: without it they hear of nothing new.
    /// [`crate::doors::serve`] runs it.
    pub async fn run(&self, cancel: CancellationToken) {
        let router = Arc::clone(&self.shared.world.router);
        let oldest = async {
            loop {
                let found = self.shared.services.past.oldest().await;
                let pause = if found.is_ok() { OLDEST_INTERVAL } else { OLDEST_RETRY };
                if let Ok(oldest) = found {
                    *self.shared.oldest.lock().unwrap_or_else(PoisonError::into_inner) = Some(oldest);
                }
                tokio::time::sleep(pause).await;
            }
        };
        let (catalog, acks) = (&self.shared.services.catalog, &self.shared.services.acks);
        // A task of its own: the feed is not to wait while channels are told who is there.
        let channels = self.shared.channels.clone();
        let presence = self.shared.services.tasks.spawn(async move { channels.follow().await });
        let presence = AbortOnDropHandle::new(presence);
        tokio::select! {
            // Both end when they are told to, or not at all.
            ((), ()) = async { tokio::join!(router.follow(catalog, cancel.clone()), acks.run(cancel.clone())) } => {}
            () = oldest => {}
            ended = presence => tracing::error!(?ended, "nobody is told any more who is in channels"),
        }
    }

    /// A subscription of a client that has these rights.
    pub(crate) fn subscribe(
        &self,
        request: Request,
        rights: &Arc<Rights>,
        client: &Client<'_>,
    ) -> Result<Subscription, Refusal> {
        let tables_max = self.limits().tables_max;
        if request.tables.len() > tables_max {
            let message = format!("tables in one subscription (tables_max): at most {tables_max}");
            return Err(Refusal::new(ErrorCode::LimitExceeded, message)
                .hint("ask for fewer at a time, or for schema.* or *"));
        }
        Subscription::new(request, rights, client, &self.shared.world, &self.shared.services)
    }

    /// Tells whoever is in its channel what the database says. What it said before the initial poll was done was said to
    /// nobody, and is dropped: the slot may hold hours of it.
    pub fn say(&self, message: DatabaseMessage) {
        if self.gate().is_open() {
            self.shared.channels.say_for_database(message);
        } else {
            ::metrics::counter!(metrics::DATABASE_MESSAGES_EARLY).increment(1);
        }
    }

    /// The channels of one connection: none at first.
    pub(crate) fn memberships(&self) -> Memberships {
        Memberships::new(self.shared.channels.clone())
    }

    /// What the clients of a user have acknowledged.
    pub(crate) fn clients_of(&self, user: String) -> AbortOnDropHandle<Result<ClientList, Refusal>> {
        let (acks, head) = (self.shared.services.acks.clone(), self.feed().head());
        let list = async move {
            let state = |known: KnownClient| ClientState {
                client_id: known.key.name.client_id,
                id: known.key.subscription,
                tables: known.tables,
                feed: known.feed,
                lag_bytes: head.lsn().bytes_since(known.cursor.lsn()),
                cursor: known.cursor,
                seen_at: known.seen_at,
            };
            let clients = acks.of_user(&user).await?.into_iter().map(state).collect();
            Ok(ClientList { clients })
        };
        AbortOnDropHandle::new(self.shared.services.tasks.spawn(list))
    }

    /// Rows by key for a client that has these rights.
    pub(crate) async fn look_up(
        &self,
        lookup: Lookup,
        rights: &Rights,
        applicant: Applicant,
    ) -> Result<Looked, Refusal> {
        lookup.run(rights, applicant, &self.shared.world, &self.shared.services).await
    }

    /// Turns of clients that go to give back their subscriptions.
    pub(crate) fn leaving(&self) -> &Semaphore {
        &self.shared.leaving
    }

    /// Why something was not had in time, of which `late` says what.
    pub(crate) fn hindrance(&self, late: &str) -> Refusal {
        hindrance::late(late, &self.shared.world)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.world.limits
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.shared.world.feed
    }

    pub(crate) fn feed_id(&self) -> &FeedId {
        &self.shared.world.feed_id
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.shared.world.gate
    }

    /// How far history reaches back, as it was lately; the feed's own memory while that is not known.
    pub(crate) fn oldest(&self) -> Cursor {
        let oldest = *self.shared.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        let in_memory = self.feed().oldest();
        oldest.map_or(in_memory, |oldest| oldest.min(in_memory))
    }

    /// How the source is doing.
    pub(crate) fn source(&self) -> tokio::sync::watch::Receiver<SourceState> {
        self.feed().source()
    }
}
