//! The status as lines for people.

use walcast_model::Cursor;

use super::{Daemon, HistoryStatus, Listener, SlotStatus, Status};
use crate::commands::doctor::{size, span};
use crate::output::{count, foreign};

/// Tables that are named; there may be hundreds.
const NAMED_MAX: usize = 3;

/// One line: its name, empty where it goes on about what the line before is about, and what it says.
pub(crate) type Line = (&'static str, String);

impl Status {
    /// Lines of two columns: at first whether all is well, at last what is not.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![("state", self.state()), ("feed", self.feed_line())];
        let end = self.source.map(|end| format!(", WAL up to {end}")).unwrap_or_default();
        lines.push(("database", format!("{}{end}", self.database)));
        lines.extend(self.lag());
        lines.extend(self.slot.iter().flat_map(SlotStatus::lines));
        let from = self.oldest.zip(self.stored);
        lines.extend(self.history.iter().flat_map(|history| history.lines(from)));
        lines.extend(self.clients_lines());
        lines.push(("daemon", self.daemon.line()));
        lines.extend(self.news().map(|reason| ("", reason)));
        lines.extend(self.problems.texts().into_iter().map(|problem| ("problem", problem)));
        lines
    }

    /// What one wants to know first.
    fn state(&self) -> String {
        let daemon = &self.daemon;
        let address = &daemon.address;
        let is_ours = self.is_ours();
        let is_streamed = self.slot.as_ref().is_some_and(|slot| slot.active_pid.is_some());
        // That the source has none is known only when it was asked.
        let lacks_slot = self.source.is_some() && self.slot.is_none();
        match () {
            () if is_ours && daemon.ready && daemon.is_interrupted() => {
                "serving what history has; the source is not read".to_owned()
            }
            () if is_ours && daemon.ready => "serving".to_owned(),
            () if is_ours && daemon.is_stopping() == Some(true) => {
                "stopping: nobody is let in any more".to_owned()
            }
            () if self.has_hole && lacks_slot => "the feed cannot go on: its slot is gone".to_owned(),
            () if self.has_hole => "the feed cannot go on: its slot is lost".to_owned(),
            () if self.hole.is_some() => "the feed cannot go on: changes are missing".to_owned(),
            () if lacks_slot => "not set up".to_owned(),
            () if is_ours && daemon.is_stopping().is_none() => {
                "starting or stopping: nobody is let in".to_owned()
            }
            () if is_ours && daemon.is_interrupted() => {
                "starting: nobody is served yet; the source is not read".to_owned()
            }
            () if is_ours => "starting: nobody is served yet".to_owned(),
            () if is_streamed && daemon.listener == Listener::Silent => format!(
                "running, and nothing answers at {address}: it is going down, is stuck, or listens elsewhere (say where \
                 with --daemon)"
            ),
            () if is_streamed => format!("running, but not at {address}: say where with --daemon"),
            () if self.slot.is_some() => "stopped: nobody reads the slot, which keeps WAL".to_owned(),
            () => "unknown".to_owned(),
        }
    }

    /// Whether the daemon is this feed's, as far as is known.
    pub(super) fn is_ours(&self) -> bool {
        self.daemon.listener == Listener::Walcast
            && self.daemon.same_feed != Some(false)
            && !self.is_doubtful()
    }

    /// What the daemon says of itself that is no problem.
    fn news(&self) -> impl Iterator<Item = String> {
        self.daemon.reasons().filter(|_| self.daemon.same_feed != Some(false) && !self.daemon.complains())
    }

    fn feed_line(&self) -> String {
        let served =
            || Some(format!("{}, as the daemon says", self.daemon.feed().filter(|_| self.is_ours())?));
        known(self.feed.clone().or_else(served))
    }

    /// What history lacks: of what was read, which the daemon knows, and of the WAL, of which most may be for others.
    fn lag(&self) -> Vec<Line> {
        let read = self.daemon.said("/history/lag_bytes").and_then(serde_json::Value::as_u64);
        let read = read
            .filter(|_| self.is_ours())
            .map(|bytes| format!("{} read and not in history yet", size(bytes)));
        let wal = self
            .behind_bytes
            .map(|bytes| format!("{} of WAL since what is stored, not all of it for the feed", size(bytes)));
        let texts: Vec<String> = read.into_iter().chain(wal).collect();
        if texts.is_empty() {
            return vec![("lag", known(None))];
        }
        texts
            .into_iter()
            .enumerate()
            .map(|(index, text)| (if index == 0 { "lag" } else { "" }, text))
            .collect()
    }

    fn clients_lines(&self) -> Vec<Line> {
        let all = self.history.as_ref().and_then(|history| history.subscriptions);
        let mut lines = Vec::new();
        if let Some(all) = all {
            let listed = self.clients.len() as u64;
            let hint = if all > listed { "; status --clients lists them" } else { "" };
            lines.push((
                "clients",
                format!("{} with acknowledged positions{hint}", count(all, "subscription")),
            ));
        }
        lines.extend(self.clients.iter().map(|client| ("client", client.to_string())));
        lines
    }
}

impl SlotStatus {
    fn lines(&self) -> Vec<Line> {
        let streamed = self
            .active_pid
            .map_or_else(|| "read by nobody".to_owned(), |pid| format!("read by process {pid}"));
        let lag = known(self.lag_bytes.map(size));
        let retained = known(self.retained_bytes.and_then(|bytes| u64::try_from(bytes).ok()).map(size));
        let budget = self.budget_bytes.map(|bytes| format!(" of wal_budget {}", size(bytes)));
        let status = self.wal_status.as_deref().unwrap_or("unknown");
        let left = self.seconds_left.map(|seconds| format!("; unread, that lasts {}", span(seconds)));
        let rate = format!("the source writes {} a second", size(self.wal_bytes_per_second as u64));
        let mut lines = vec![
            ("slot", format!("{}, {streamed}, {lag} not acknowledged", self.name)),
            ("WAL retained", format!("{retained}{}, {status}", budget.unwrap_or_default())),
        ];
        lines.extend(self.safe_bytes.map(|bytes| {
            let bytes = u64::try_from(bytes).unwrap_or_default();
            ("", format!("{} until the server's limit", size(bytes)))
        }));
        lines.push(("", format!("{rate}{}", left.unwrap_or_default())));
        lines
    }
}

impl HistoryStatus {
    /// `range`: no cursor before it can be served, and up to where everything is stored.
    fn lines(&self, range: Option<(Cursor, Cursor)>) -> Vec<Line> {
        let age = self.oldest_age_seconds.map(|seconds| format!(", the oldest {} old", span(seconds)));
        let disk = format!("{} in {}", size(self.bytes), count(self.partitions.into(), "partition"));
        let disk = format!("{disk}{}", age.unwrap_or_default());
        let mut lines = Vec::new();
        match range {
            Some((oldest, stored)) => {
                lines.push(("history", format!("from {oldest} to {stored}")));
                lines.push(("", disk));
            }
            None => lines.push(("history", disk)),
        }
        lines.extend(self.last_images.as_ref().map(|images| {
            let named = images.tables.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = images.tables.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let none = "none are kept";
            let text = if named.is_empty() {
                none.to_owned()
            } else {
                format!("{} of {named}{more}", size(images.bytes))
            };
            ("last images", text)
        }));
        lines
    }
}

impl Daemon {
    fn line(&self) -> String {
        let address = &self.address;
        let problem = self.problem.as_deref().map(|problem| format!(": {problem}")).unwrap_or_default();
        let text = |place: &str| self.said(place).and_then(serde_json::Value::as_str).map(foreign);
        let state = match (self.listener, self.ready, self.feed().filter(|_| self.same_feed == Some(false))) {
            (Listener::Nobody | Listener::Silent | Listener::Stranger, ..) => {
                return format!("none at {address}{problem}");
            }
            (Listener::Walcast, _, Some(other)) => return format!("{address} serves another feed, {other}"),
            (Listener::Walcast, true, None) => "ready",
            (Listener::Walcast, false, None) => "not ready",
        };
        let source = text("/source/state").map(|state| format!(", source {state}"));
        // It is asked in a way that strangers can ask too.
        let silent = (self.report.is_some() && self.feed().is_none())
            .then(|| format!(", and does not say here which feed it serves; {}", self.elsewhere()));
        let more: String = [source, silent].into_iter().flatten().collect();
        format!("{state} at {address}{more}{problem}")
    }
}

fn known(value: Option<String>) -> String {
    value.unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests;
