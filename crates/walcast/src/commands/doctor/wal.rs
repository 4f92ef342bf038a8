//! What the slot costs the source: WAL, measured against the budget and the server's own limit.

use std::time::{Duration, Instant};

use walcast_model::Lsn;
use walcast_postgres::{Error, Session};
use walcast_replication::slot::SlotFacts;
use walcast_replication::time_left;

use super::finding::Finding;
use super::{Slot, size};

/// How long it is looked how fast WAL is written.
const MEASURE: Duration = Duration::from_secs(1);
/// When less time than this is left it is pointed out.
const LEFT_NOTABLE: Duration = Duration::from_secs(6 * 3600);

/// What the slot keeps, and where that leads.
#[derive(Clone, Debug)]
pub(crate) struct WalCost {
    /// WAL that is kept, in bytes.
    pub(crate) retained_bytes: u64,
    /// WAL until the server gives the slot up, in bytes; `None` when it never does.
    pub(crate) safe_bytes: Option<i64>,
    /// The setting `wal_budget`, in bytes.
    pub(crate) budget_bytes: Option<u64>,
    /// Bytes of WAL that the source writes in a second.
    pub(crate) bytes_per_second: f64,
    /// Whether somebody streams from the slot.
    pub(crate) is_streamed: bool,
}

impl WalCost {
    /// Looks for a second how fast WAL is written. `None` without a slot.
    pub(crate) async fn measure(
        session: &Session,
        slot: &Slot,
        budget_bytes: Option<u64>,
    ) -> Result<Option<Self>, Error> {
        let Some(facts) = &slot.facts else { return Ok(None) };
        let (started, before) = (Instant::now(), end_of_wal(session).await?);
        tokio::time::sleep(MEASURE).await;
        let after = end_of_wal(session).await?;
        let bytes_per_second = after.bytes_since(before) as f64 / started.elapsed().as_secs_f64();
        Ok(Some(Self::new(facts, budget_bytes, bytes_per_second)))
    }

    fn new(facts: &SlotFacts, budget_bytes: Option<u64>, bytes_per_second: f64) -> Self {
        Self {
            retained_bytes: u64::try_from(facts.retained_bytes.unwrap_or_default()).unwrap_or_default(),
            safe_bytes: facts.safe_wal_bytes,
            budget_bytes,
            bytes_per_second,
            is_streamed: facts.active_pid.is_some(),
        }
    }

    /// Until the budget or the server's limit is reached if the slot does not move; `None` when never.
    pub(crate) fn left(&self) -> Option<Duration> {
        time_left(self.budget_bytes, self.retained_bytes, self.safe_bytes, self.bytes_per_second)
    }

    /// What it means.
    pub(crate) fn finding(&self) -> Finding {
        const CHECK: &str = "wal_budget";
        let fix = if self.is_streamed {
            "look for old transactions (open_transactions), and whether history keeps up (walcast status)"
        } else {
            "start walcast serve, or give the feed up with walcast teardown"
        };
        let limits = [
            self.budget_bytes.map(|bytes| format!("{} of wal_budget", size(bytes))),
            self.safe_bytes.map(|bytes| {
                format!("{} until the server's limit", size(u64::try_from(bytes).unwrap_or_default()))
            }),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        let limits = if limits.is_empty() { "no limit".to_owned() } else { limits.join(", ") };
        let rate = size(self.bytes_per_second.max(0.0) as u64);
        // How much it keeps now is said by `slot_retained_wal`.
        let mut message = format!("what the slot may keep: {limits}; the source writes {rate} a second");
        if self.budget_bytes.is_some_and(|budget| self.retained_bytes > budget) {
            return Finding::error(CHECK, format!("the slot keeps more than wal_budget; {message}"), fix);
        }
        match self.left() {
            Some(left) if left < LEFT_NOTABLE && !self.is_streamed => {
                message.push_str(&format!(", which leaves {}", span(left.as_secs())));
                Finding::warning(CHECK, message, fix)
            }
            Some(left) => {
                message.push_str(&format!(
                    ", which would leave {} if the slot stood still",
                    span(left.as_secs())
                ));
                Finding::ok(CHECK, message)
            }
            None => Finding::ok(CHECK, message),
        }
    }
}

async fn end_of_wal(session: &Session) -> Result<Lsn, Error> {
    let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text";
    let row = session.query_one(sql, &[]).await?;
    let end: Option<String> = row.try_get(0)?;
    Ok(end.and_then(|end| end.parse().ok()).unwrap_or_default())
}

/// A time for people: its two largest units.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut left = seconds;
    let mut parts = Vec::new();
    for (unit, name) in UNITS {
        if left >= unit {
            parts.push(format!("{} {name}", left / unit));
            left %= unit;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::{WalCost, span};

    fn cost(retained: u64, budget: Option<u64>, safe: Option<i64>, rate: f64, is_streamed: bool) -> WalCost {
        WalCost {
            retained_bytes: retained,
            safe_bytes: safe,
            budget_bytes: budget,
            bytes_per_second: rate,
            is_streamed,
        }
    }

    #[test]
    fn times_have_two_units() {
        let shown = [0, 59, 60, 3661, 90_061, 10 * 86_400].map(span);
        assert_eq!(shown, ["0 s", "59 s", "1 min", "1 h 1 min", "1 d 1 h", "10 d"]);
    }

    #[test]
    fn more_than_the_budget_is_an_error_and_little_time_a_warning_while_nobody_streams() {
        const MIB: u64 = 1 << 20;
        let severity = |cost: WalCost| cost.finding().severity;
        assert_eq!(severity(cost(11 * MIB, Some(10 * MIB), None, 0.0, true)), Severity::Error);
        assert_eq!(severity(cost(9 * MIB, Some(10 * MIB), None, 0.0, false)), Severity::Ok);
        assert_eq!(severity(cost(9 * MIB, Some(10 * MIB), None, 1000.0, false)), Severity::Warning);
        assert_eq!(severity(cost(9 * MIB, Some(10 * MIB), None, 1000.0, true)), Severity::Ok);
        assert_eq!(severity(cost(9 * MIB, None, Some(1000), 1000.0, false)), Severity::Warning);
        assert_eq!(severity(cost(u64::MAX, None, None, 1000.0, false)), Severity::Ok);
        let message = cost(9 * MIB, Some(10 * MIB), None, 1024.0, false).finding().message;
        assert!(
            message.contains("10.0 MiB of wal_budget") && message.contains("leaves 17 min 4 s"),
            "{message}"
        );
    }
}
