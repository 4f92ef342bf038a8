//! Initial syncs, each begun again until it reaches its barrier. How many there are at a time is for the caller to say.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};
use walcast_feed::{Backoff, Barriers};
use walcast_filter::Schema;
use walcast_model::{Oid, RelationName};
use walcast_postgres::{ConnectionConfig, ErrorClass, Pool, Session};

use crate::attempt;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::event::{SnapshotEvent, SnapshotTable};
use crate::facts::{Facts, facts};
use crate::limits::SnapshotLimits;
use crate::lookup::{self, FoundRows, Key, Lent};
use crate::metrics::{self, InGauge};
use crate::published::{self, PublishedTable, RowFilters};
use crate::relation::define;

/// The name under which the sessions of initial syncs appear in `pg_stat_activity`.
const APPLICATION_NAME: &str = "walcast snapshot";

/// The same, of those that look rows up by key.
const LOOKUPS_NAME: &str = "walcast rows";

/// Takes initial syncs from one source; cheap to clone.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: ConnectionConfig,
    /// For short questions to the catalog. Initial syncs have sessions of their own, which end with them: so an
    /// initial sync that is given up cannot leave its transaction open in a session that is used again.
    catalog: Pool,
    /// For rows by key.
    lookups: Pool,
    barriers: Barriers,
    publications: Vec<String>,
    limits: SnapshotLimits,
}

impl Snapshots {
    /// Initial syncs from the primary `source`, of what `publications` (by name) publish there, with barriers that
    /// come back through `barriers`' feed. Connects to nothing yet.
    #[must_use]
    pub fn new(
        source: ConnectionConfig,
        barriers: Barriers,
        publications: Vec<String>,
        limits: SnapshotLimits,
    ) -> Self {
        metrics::describe();
        let catalog = Pool::new(source.clone(), APPLICATION_NAME, 1);
        let lookups = Pool::new(source.clone(), LOOKUPS_NAME, limits.rows_max);
        Self { shared: Arc::new(Shared { source, catalog, lookups, barriers, publications, limits }) }
    }

    /// The tables of the feed as the catalog has them now, in the order of their names: what patterns such as
    /// `schema.*` stand for, and which names the stream uses for partitions. One query; nothing is waited out.
    ///
    /// # Errors
    /// When the source cannot be asked, and when two publications list different columns of one table.
    pub async fn published_tables(&self) -> Result<Vec<PublishedTable>, Error> {
        let session = self.shared.catalog.get().await?;
        published::published_tables(&session, &self.shared.publications).await
    }

    /// A table of the feed as filters are bound to it, in the definition that the catalog has now; `None` when it is not
    /// published. Nothing is waited out.
    ///
    /// # Errors
    /// When the source cannot be asked, and as [`Snapshots::published_tables`].
    pub async fn schema(&self, name: &RelationName) -> Result<Option<Schema>, Error> {
        let session = self.shared.catalog.get().await?;
        let names = std::slice::from_ref(name);
        let published =
            published::read(&session, &self.shared.publications, Some(names), RowFilters::Unread).await?;
        let Some(table) = published.into_iter().next() else { return Ok(None) };
        let relation = match define(&session, &table).await {
            Ok((relation, _)) => relation,
            // Dropped, or altered, since it was listed.
            Err(Error::UnknownTable { .. } | Error::UnknownColumn { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(facts(&session, table.oid).await?.schema(relation)))
    }

    /// What filters have to know of a table and only the source has, as it is now.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn facts(&self, table: Oid) -> Result<Facts, Error> {
        let session = self.shared.catalog.get().await?;
        facts(&session, table).await
    }

    /// Rows of `table` by key, as the source has them now, in the order of the keys. Waits for a place first
    /// ([`SnapshotLimits::rows_max`]). Cancel-safe: dropped at any point, its session and transaction end at once.
    ///
    /// # Errors
    /// As [`Snapshots::run`]; [`Error::Key`] when the keys are not of this table, [`Error::TooLarge`].
    pub async fn rows(&self, table: &SnapshotTable, keys: &[Key]) -> Result<FoundRows, Error> {
        let shared = &self.shared;
        let lent = Lent::new(shared.lookups.get().await?);
        let found = lookup::read(lent.session()?, &shared.publications, table, keys, &shared.limits).await?;
        lent.give_back();
        Ok(found)
    }

    /// Takes an initial sync of `tables`, all of them as of one moment, and sends it to `events`; the last event is
    /// [`SnapshotEvent::Done`]. It has a session of its own on the source. Waits for as long as the source is away: it then
    /// begins again by itself, for ever. The bound of `events` is how many chunks may wait for the client.
    ///
    /// Ends without an error, too, when `events` is closed. Cancel-safe: dropped at any point, its session and
    /// transaction end at once.
    ///
    /// # Errors
    /// When it cannot be had without somebody acting (see [`Error`]), and when the client takes nothing for
    /// [`SnapshotLimits::stall_max`].
    pub async fn run(
        &self,
        tables: Vec<SnapshotTable>,
        events: mpsc::Sender<SnapshotEvent>,
    ) -> Result<(), Error> {
        let mut consumer = Consumer::new(events, self.shared.limits.stall_max);
        let limits = &self.shared.limits;
        let mut backoff = Backoff::new(limits.retry_delay_min, limits.retry_delay_max);
        loop {
            match self.attempt(&tables, &mut consumer).await {
                Ok(()) => return Ok(()),
                Err(Stop::Gone) => return Ok(()),
                Err(Stop::Failed(error)) => {
                    let lost =
                        matches!(&error, Error::Source(cause) if cause.class() == ErrorClass::Transient);
                    if !lost {
                        if matches!(error, Error::Stalled { .. }) {
                            ::metrics::counter!(metrics::STALLED).increment(1);
                        }
                        return Err(error);
                    }
                    if consumer.restart() {
                        backoff.reset();
                    }
                    let delay = backoff.wait();
                    warn!(%error, ?delay, "an initial sync lost its session and begins again");
                    ::metrics::counter!(metrics::RESTARTED).increment(1);
                    // Nothing is lost when cancelled here. A consumer that leaves need not wait the pause out.
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = consumer.gone() => return Ok(()),
                    }
                }
            }
        }
    }

    async fn attempt(&self, tables: &[SnapshotTable], consumer: &mut Consumer) -> Result<(), Stop> {
        let shared = &self.shared;
        let running = InGauge::enter(metrics::RUNNING);
        let mut session = Session::connect(&shared.source, APPLICATION_NAME).await.map_err(Error::from)?;
        let snapshot =
            attempt::read(&mut session, &shared.publications, tables, &shared.limits, consumer).await?;
        let mut barrier = shared.barriers.register();
        // The same session: that it is still there proves that no crash recovery came between the rows and the
        // barrier, which could have taken back an asynchronous commit that the rows contain.
        attempt::write_barrier(&session, barrier.id()).await?;
        drop(running);
        // It is kept: when the server is lost before the barrier has come back (a standby took
        // over that never had it), nobody else would say so, and the rows may be of commits that are gone.
        let ended = session.closed();
        let position = tokio::select! {
            biased;
            // All are cancel-safe; the barrier is forgotten when it is dropped.
            position = barrier.passed() => position,
            () = consumer.gone() => return Err(Stop::Gone),
            _ = ended => return Err(Error::Source(walcast_postgres::Error::Closed).into()),
        };
        drop(session);
        consumer.send(SnapshotEvent::Done { snapshot, barrier: position }).await?;
        ::metrics::counter!(metrics::COMPLETED).increment(1);
        info!(tables = tables.len(), rows = consumer.rows(), barrier = %position, "an initial sync is complete");
        Ok(())
    }
}

/// Why an attempt ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody takes its events any more.
    Gone,
    /// It failed.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}
