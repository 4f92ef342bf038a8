//! `walcast status`: where the feed stands, as the source, the history and the daemon say.

mod clients;
mod daemon;
mod problem;
mod report;
#[cfg(test)]
mod tests;

use serde::Serialize;
use walcast_history::{ClientName, History, Hole, Inspection};
use walcast_model::{Cursor, Lsn};
use walcast_postgres::{Pool, Session};
use walcast_replication::{Error, START_OVER, slot};

use super::doctor::{Slot, WalCost};
use super::setup::Target;

use clients::ClientStatus;
pub(crate) use daemon::{Daemon, Listener};
pub(crate) use problem::Problems;

const APPLICATION_NAME: &str = "walcast status";

/// Where the feed stands. What could not be asked is absent, and named in `problems`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// The database that was asked about, without a password.
    pub(crate) database: String,
    /// The feed's id.
    pub(crate) feed: Option<String>,
    /// Everything before it is in history.
    pub(crate) stored: Option<Cursor>,
    /// No cursor before it can be served.
    pub(crate) oldest: Option<Cursor>,
    /// The source's end of WAL.
    pub(crate) source: Option<Lsn>,
    /// WAL between what is stored and the source's end, in bytes. Not all of it is for the feed.
    pub(crate) behind_bytes: Option<u64>,
    /// The slot; absent when there is none.
    pub(crate) slot: Option<SlotStatus>,
    /// The history.
    pub(crate) history: Option<HistoryStatus>,
    /// Those in `keep_clients`; with `--clients`, all that have acknowledged something, 10,000 at most.
    pub(crate) clients: Vec<ClientStatus>,
    /// The daemon at the address that `serve` listens on.
    pub(crate) daemon: Daemon,
    /// What is wrong, once for each cause: what could not be asked among it.
    pub(crate) problems: Problems,
    /// The feed cannot go on from its slot.
    #[serde(skip)]
    has_hole: bool,
    /// Why the feed cannot go on although its slot is there.
    #[serde(skip)]
    hole: Option<Hole>,
}

/// The slot, as the source has it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SlotStatus {
    /// Its name.
    pub(crate) name: String,
    /// The server process that streams from it.
    pub(crate) active_pid: Option<i32>,
    /// Everything before it was acknowledged.
    pub(crate) acknowledged: Option<Lsn>,
    /// WAL that was not acknowledged, in bytes.
    pub(crate) lag_bytes: Option<u64>,
    /// WAL that is kept for it, in bytes.
    pub(crate) retained_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: Option<String>,
    /// WAL until the server gives the slot up (`safe_wal_size`), in bytes; absent when it never does.
    pub(crate) safe_bytes: Option<i64>,
    /// The setting `wal_budget`, in bytes; absent without one.
    pub(crate) budget_bytes: Option<u64>,
    /// WAL that the source writes in a second, in bytes; measured for a second.
    pub(crate) wal_bytes_per_second: f64,
    /// Until the budget or the server's limit is reached if the slot does not move; absent when never.
    pub(crate) seconds_left: Option<u64>,
}

/// The history, as its Postgres has it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HistoryStatus {
    /// Version of its schema.
    pub(crate) schema_version: u32,
    /// Size on disk in bytes.
    pub(crate) bytes: u64,
    /// Number of partitions.
    pub(crate) partitions: u32,
    /// Age of its oldest partition in seconds.
    pub(crate) oldest_age_seconds: Option<u64>,
    /// Where its first change is.
    pub(crate) oldest_change: Option<Cursor>,
    /// Where its last change is.
    pub(crate) newest_change: Option<Cursor>,
    /// Subscriptions of which it is kept what they have acknowledged; absent when its schema is of another version.
    pub(crate) subscriptions: Option<u64>,
    /// The newest rows of keys that it keeps; absent as above.
    pub(crate) last_images: Option<ImagesStatus>,
}

/// What history keeps to complete changes with (`last_images`).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ImagesStatus {
    /// Of which tables there are images.
    pub(crate) tables: Vec<String>,
    /// Size on disk in bytes.
    pub(crate) bytes: u64,
}

/// What the history has of the feed that is asked about.
#[derive(Clone, Copy, Debug)]
enum Past {
    /// Its record.
    Known,
    /// The feed of another slot.
    Another,
    /// None, surely; in words.
    Empty(&'static str),
    /// It cannot be asked.
    Unknown,
}

impl Status {
    /// Asks all three at once; each may be away. `listen`: where `walcast serve` listens.
    pub(crate) async fn gather(target: &Target, listen: &str, wal_budget: Option<u64>) -> Self {
        let past_of = History::new(Pool::new(target.history.clone(), APPLICATION_NAME, 1));
        // Boxed: connecting is large.
        let (daemon, source, history) = tokio::join!(
            Box::pin(Daemon::ask(listen)),
            Box::pin(Self::slot(target, wal_budget)),
            Box::pin(past_of.inspect())
        );
        let mut status = Self { database: target.source.to_string(), daemon, ..Self::default() };
        let (no_source, no_history) = if target.source == target.history {
            ("the database cannot be asked", "the database cannot be asked")
        } else {
            ("the source cannot be asked", "the history cannot be asked")
        };
        let mut slot = None;
        match source {
            Ok((found, cost)) => {
                status.set_slot(&found, cost.as_ref());
                slot = Some(found);
            }
            Err(error) => status.problems.add(no_source, error.to_string(), error.hint()),
        }
        let past = match history {
            Ok(inspection) => status.set_history(&inspection, target),
            Err(walcast_history::Error::SchemaMissing) => {
                Past::Empty("the history's database has no schema walcast of walcast's making")
            }
            Err(error) => {
                let is_postgres = matches!(error, walcast_history::Error::Postgres { .. });
                let effect = if is_postgres { no_history } else { "" };
                status.problems.add(effect, error.cause(), error.hint());
                Past::Unknown
            }
        };
        // What the last walcast stored before it let go of the slot may have come after history was asked.
        if slot.as_ref().is_some_and(|slot| slot.is_ahead_of(status.stored))
            && let Ok(inspection) = Box::pin(past_of.inspect()).await
        {
            status.stored = inspection.feed.map(|feed| feed.position).or(status.stored);
        }
        match (slot, past) {
            (Some(slot), past) => status.check_slot(&slot, past),
            (None, Past::Empty(what)) => status.problems.push(format!("{what}: run walcast setup")),
            (None, Past::Known | Past::Another | Past::Unknown) => {}
        }
        status.behind_bytes =
            status.source.zip(status.stored).map(|(end, stored)| end.bytes_since(stored.lsn()));
        status.set_daemon(matches!(past, Past::Empty(_) | Past::Another));
        status
    }

    /// What it says is of the feed that was asked about, or of another one. `has_none`: there is none, surely.
    fn set_daemon(&mut self, has_none: bool) {
        self.daemon.same_feed = match (self.daemon.feed(), &self.feed) {
            (Some(served), Some(asked)) => Some(served.as_str() == asked),
            (Some(_), None) if has_none => Some(false),
            _ => None,
        };
        if self.is_doubtful() {
            self.problems.push(format!(
                "the walcast at {} does not say here which feed it serves, and nobody reads this database's slot; {}",
                self.daemon.address,
                self.daemon.elsewhere()
            ));
        }
        // The daemon that has found it says it too.
        if let Some(hole) = self.hole.clone().filter(|_| !(self.is_ours() && self.daemon.is_interrupted())) {
            self.problems.add("", hole.to_string(), Some(START_OVER.to_owned()));
        }
        if self.is_ours() && self.daemon.complains() {
            self.daemon.reasons().for_each(|reason| self.problems.heard(&reason));
        }
        if self.daemon.same_feed != Some(false) {
            return;
        }
        let Some(served) = self.daemon.feed() else { return };
        let address = &self.daemon.address;
        let asked = self.feed.as_deref().map_or_else(|| "none".to_owned(), |feed| format!("feed {feed}"));
        self.problems.push(format!(
            "the walcast at {address} serves feed {served}, and this database has {asked}: name this one's address with \
             --daemon, or the other one's database with --database-url"
        ));
    }

    /// A daemon that is ready reads its slot; one that tells strangers nothing more may be another feed's.
    fn is_doubtful(&self) -> bool {
        let is_read = self.slot.as_ref().is_some_and(|slot| slot.active_pid.is_some());
        self.daemon.ready && self.daemon.feed().is_none() && self.source.is_some() && !is_read
    }

    async fn slot(target: &Target, wal_budget: Option<u64>) -> Result<(Slot, Option<WalCost>), Error> {
        let session = Session::connect(&target.source, APPLICATION_NAME).await?;
        let slot = Slot::gather(&session, &target.slot.name).await?;
        let cost = WalCost::measure(&session, &slot, wal_budget).await?;
        Ok((slot, cost))
    }

    fn set_slot(&mut self, slot: &Slot, cost: Option<&WalCost>) {
        self.source = Some(slot.end);
        let lag_bytes = slot.lag_bytes();
        self.slot = slot.facts.as_ref().map(|facts| SlotStatus {
            name: slot.name.clone(),
            active_pid: facts.active_pid,
            acknowledged: facts.confirmed_flush,
            lag_bytes,
            retained_bytes: facts.retained_bytes,
            wal_status: facts.wal_status.clone(),
            safe_bytes: facts.safe_wal_bytes,
            budget_bytes: cost.and_then(|cost| cost.budget_bytes),
            wal_bytes_per_second: cost.map_or(0.0, |cost| cost.bytes_per_second.round()),
            seconds_left: cost.and_then(WalCost::left).map(|left| left.as_secs()),
        });
    }

    /// Whether the feed can go on from the slot, as far as that is certain: slot and history are not asked at one moment, so
    /// a slot that is read may well look as if it were past what history has.
    fn check_slot(&mut self, found: &Slot, past: Past) {
        let (facts, name) = (found.facts.as_ref(), &found.name);
        if facts.is_none() && self.feed.is_none() {
            self.problems.push(match past {
                Past::Empty(what) => format!("there is no slot {name:?}, and {what}: run walcast setup"),
                // Whose slot it would be was said.
                Past::Another | Past::Known => format!("there is no slot {name:?}"),
                Past::Unknown => format!(
                    "there is no slot {name:?}: run walcast setup, or, if the history that cannot be asked has a feed of it, \
                     stop walcast first, then run \
                     walcast setup --start-over --yes"
                ),
            });
            return;
        }
        let acknowledged = facts.and_then(|facts| facts.confirmed_flush).map(Cursor::from);
        let position = self.stored.or(acknowledged).unwrap_or_default();
        match (slot::check(facts, name, &found.database, position), past) {
            (Err(error @ Error::SlotForeign { .. }), past) => {
                // What it keeps, and who reads it, is not of this feed.
                self.slot = None;
                self.problems.add("", error.to_string(), error.hint());
                if let Past::Empty(what) = past {
                    self.problems.push(what);
                }
            }
            // What it was acknowledged for is not known, so nothing goes on from it.
            (_, Past::Empty(what)) => self.problems.push(format!(
                "slot {name:?} exists, and {what}: name the history that has its feed with --history-url, or {START_OVER}"
            )),
            (Ok(()) | Err(Error::SlotInUse { .. }), _) => {}
            (Err(Error::SlotAhead { .. }), _) if facts.is_some_and(|facts| facts.active_pid.is_some()) => {}
            (Err(error), _) => {
                self.has_hole = error.is_hole();
                self.problems.add("", error.to_string(), error.hint());
            }
        }
    }

    fn set_history(&mut self, inspection: &Inspection, target: &Target) -> Past {
        let slot = &target.slot.name;
        let past = match &inspection.feed {
            Some(feed) if feed.slot == *slot => {
                self.hole = feed.hole_with(&target.publication.names()).cloned();
                self.feed = Some(feed.id.to_string());
                self.stored = Some(feed.position);
                self.oldest = Some(feed.oldest);
                Past::Known
            }
            Some(feed) => {
                self.problems.push(format!(
                    "the history holds the feed of slot {:?}, and slot {slot:?} was asked about: name the other one with \
                     --slot, or the other history with --history-url",
                    feed.slot
                ));
                Past::Another
            }
            None => Past::Empty("the history has no feed yet"),
        };
        self.history = Some(HistoryStatus {
            schema_version: inspection.schema_version,
            bytes: inspection.bytes,
            partitions: inspection.partitions,
            oldest_age_seconds: inspection.oldest_age_seconds.map(|seconds| seconds.max(0.0) as u64),
            oldest_change: inspection.oldest_change,
            newest_change: inspection.newest_change,
            subscriptions: inspection.beside.as_ref().map(|beside| beside.subscriptions),
            last_images: inspection.beside.as_ref().map(|beside| ImagesStatus {
                tables: beside.imaged_tables.clone(),
                bytes: beside.image_bytes,
            }),
        });
        past
    }

    /// Adds the clients that `keep` names, or `all`.
    pub(crate) async fn set_clients(&mut self, target: &Target, keep: &[ClientName], all: bool) {
        if self.history.is_none() || !all && keep.is_empty() {
            return;
        }
        let history = History::new(Pool::new(target.history.clone(), APPLICATION_NAME, 1));
        match history.clients().await {
            Ok(known) => {
                let stored = self.stored.unwrap_or_default();
                let clients = known.iter().map(|client| ClientStatus::new(client, keep, stored));
                self.clients = clients.filter(|client| all || client.kept).collect();
            }
            Err(error) => self.problems.add("the clients cannot be listed", error.cause(), error.hint()),
        }
    }
}
