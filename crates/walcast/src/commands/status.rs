//! `walcast status`: where the feed stands, as the source, the history and the daemon say.

mod clients;
mod daemon;

use serde::Serialize;
use walcast_history::{ClientName, History, Inspection};
use walcast_model::{Cursor, Lsn};
use walcast_postgres::{Pool, Session};

use super::doctor::{Slot, WalCost, size, span};
use super::setup::Target;

use clients::ClientStatus;
pub(crate) use daemon::Daemon;

const APPLICATION_NAME: &str = "walcast status";

/// Where the feed stands. What could not be asked is absent, and named in `problems`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
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
    /// What could not be asked, and why.
    pub(crate) problems: Vec<String>,
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
}

impl Status {
    /// Asks all three; each may be away. `listen`: where `walcast serve` listens.
    pub(crate) async fn gather(target: &Target, listen: &str, wal_budget: Option<u64>) -> Self {
        let mut status = Self { daemon: Daemon::ask(listen).await, ..Self::default() };
        match Self::slot(target, wal_budget).await {
            Ok((slot, cost)) => status.set_slot(&slot, cost.as_ref()),
            Err(error) => status.problems.push(format!("the source: {error}")),
        }
        let history = History::new(Pool::new(target.history.clone(), APPLICATION_NAME, 1));
        match history.inspect().await {
            Ok(inspection) => status.set_history(&inspection, &target.slot.name),
            Err(error) => status.problems.push(format!("the history: {error}")),
        }
        status.behind_bytes =
            status.source.zip(status.stored).map(|(end, stored)| end.bytes_since(stored.lsn()));
        status
    }

    async fn slot(
        target: &Target,
        wal_budget: Option<u64>,
    ) -> Result<(Slot, Option<WalCost>), walcast_replication::Error> {
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
        if self.slot.is_none() {
            self.problems.push(format!("there is no slot {:?}: run walcast setup", slot.name));
        }
    }

    fn set_history(&mut self, inspection: &Inspection, slot: &str) {
        match &inspection.feed {
            Some(feed) if feed.slot == slot => {
                self.feed = Some(feed.id.to_string());
                self.stored = Some(feed.position);
                self.oldest = Some(feed.oldest);
            }
            Some(feed) => self.problems.push(format!("the history holds the feed of slot {:?}", feed.slot)),
            None => self.problems.push("the history has no feed yet: run walcast setup".to_owned()),
        }
        self.history = Some(HistoryStatus {
            schema_version: inspection.schema_version,
            bytes: inspection.bytes,
            partitions: inspection.partitions,
            oldest_age_seconds: inspection.oldest_age_seconds.map(|seconds| seconds.max(0.0) as u64),
            oldest_change: inspection.oldest_change,
            newest_change: inspection.newest_change,
        });
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
            Err(error) => self.problems.push(format!("the clients: {error}")),
        }
    }

    /// Lines of two columns, for people.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        let cursor = |value: Option<Cursor>| text(value.map(|value| value.to_string()));
        let mut lines = vec![
            ("feed", text(self.feed.clone())),
            ("source", text(self.source.map(|lsn| lsn.to_string()))),
            ("stored", cursor(self.stored)),
            ("behind", text(self.behind_bytes.map(size))),
            ("oldest", cursor(self.oldest)),
        ];
        if let Some(slot) = &self.slot {
            let streamed =
                slot.active_pid.map_or_else(|| "not streamed".to_owned(), |pid| format!("streamed by {pid}"));
            let wal_status = slot.wal_status.as_deref().unwrap_or("unknown");
            lines.push(("slot", format!("{} ({streamed}, WAL {wal_status})", slot.name)));
            lines.push(("slot lag", text(slot.lag_bytes.map(size))));
            let retained = slot.retained_bytes.and_then(|bytes| u64::try_from(bytes).ok());
            let budget = slot.budget_bytes.map(|bytes| format!(" of wal_budget {}", size(bytes)));
            let safe = slot.safe_bytes.map(|bytes| {
                format!(", {} until the server's limit", size(u64::try_from(bytes).unwrap_or_default()))
            });
            let left = slot.seconds_left.map(|seconds| format!(", {} left at this rate", span(seconds)));
            let rate = format!("; the source writes {} a second", size(slot.wal_bytes_per_second as u64));
            let more = [budget, safe, Some(rate), left].into_iter().flatten().collect::<String>();
            lines.push(("WAL retained", format!("{}{more}", text(retained.map(size)))));
        }
        if let Some(history) = &self.history {
            let partitions = history.partitions;
            let age = history.oldest_age_seconds.map(|seconds| format!(", the oldest {} old", span(seconds)));
            let age = age.unwrap_or_default();
            lines.push(("history", format!("{} in {partitions} partitions{age}", size(history.bytes))));
        }
        lines.extend(self.clients.iter().map(|client| ("client", client.to_string())));
        lines.push(("daemon", self.daemon.to_string()));
        lines.extend(self.problems.iter().map(|problem| ("problem", problem.clone())));
        lines
    }
}
