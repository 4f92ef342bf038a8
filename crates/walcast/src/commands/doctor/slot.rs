//! walcast's slot: whether the feed can go on from it, and what it keeps.

use walcast_model::{Cursor, Lsn};
use walcast_postgres::{Session, quote_literal};
use walcast_replication::slot::{self, SlotFacts};
use walcast_replication::{Error, START_OVER};

use super::finding::Finding;
use super::fix::Fix;
use super::size;

/// Retained WAL from which on it is pointed out, in bytes.
const RETAINED_BYTES_NOTABLE: i64 = 10 << 30;

/// The feed in the history that the slot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StoredFeed {
    /// The history cannot be asked, so there may be one.
    Unknown,
    /// There is none.
    None,
    /// Stored up to here.
    To(Cursor),
}

/// The slot, and who is about it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) facts: Option<SlotFacts>,
    /// The database that walcast follows.
    pub(crate) database: String,
    /// `application_name` of who streams it.
    pub(crate) application: Option<String>,
    /// The end of the WAL.
    pub(crate) end: Lsn,
}

impl Slot {
    /// Asks for the slot of this name, in the database of the session.
    pub(crate) async fn gather(session: &Session, name: &str) -> Result<Self, Error> {
        let facts = slot::inspect(session, name).await?;
        let pid = facts.as_ref().and_then(|facts| facts.active_pid);
        let row = session
            .query_one(
                "SELECT current_database()::text,
                        (SELECT application_name FROM pg_stat_activity WHERE pid = $1),
                        CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text",
                &[&pid],
            )
            .await?;
        let end: Option<String> = row.try_get(2)?;
        Ok(Self {
            name: name.to_owned(),
            facts,
            database: row.try_get(0)?,
            application: row.try_get(1)?,
            end: end.and_then(|end| end.parse().ok()).unwrap_or_default(),
        })
    }

    /// WAL that was not acknowledged, in bytes; `None` while it has no position.
    pub(crate) fn lag_bytes(&self) -> Option<u64> {
        let confirmed = self.facts.as_ref()?.confirmed_flush?;
        Some(self.end.bytes_since(confirmed))
    }

    /// Whether it was acknowledged past what is stored, if that is known.
    pub(crate) fn is_ahead_of(&self, stored: Option<Cursor>) -> bool {
        let acknowledged = self.facts.as_ref().and_then(|facts| facts.confirmed_flush);
        acknowledged.zip(stored).is_some_and(|(acknowledged, stored)| acknowledged > stored.lsn())
    }

    /// What it means for the feed.
    pub(crate) fn findings(&self, feed: StoredFeed) -> Vec<Finding> {
        let name = &self.name;
        let Some(facts) = &self.facts else {
            return vec![match feed {
                StoredFeed::To(position) => failure(&Error::SlotMissing { slot: name.clone(), position }),
                StoredFeed::Unknown => Finding::warning(
                    "slot",
                    format!("there is no replication slot {name:?}; whether a feed lacks it is not known"),
                    "mend first what keeps the history from being asked",
                ),
                StoredFeed::None => {
                    Finding::note("slot", format!("there is no replication slot {name:?} yet"))
                }
            }];
        };
        // Without a feed only what makes the slot useless for any feed is looked for.
        let from = if let StoredFeed::To(position) = feed { position } else { Cursor::MAX };
        if let Some(finding) = self.unfinished(facts) {
            return vec![finding];
        }
        if let Err(error) = slot::check(Some(facts), name, &self.database, from) {
            return vec![failure(&error)];
        }
        if feed == StoredFeed::None {
            return vec![failure(&slot::without_feed(facts, name, &self.database))];
        }
        let mut findings = vec![self.activity(facts)];
        findings.extend(self.unreserved(facts));
        findings.push(self.retained(facts));
        findings
    }

    fn unfinished(&self, facts: &SlotFacts) -> Option<Finding> {
        let name = &self.name;
        if facts.confirmed_flush.is_some() || facts.plugin.as_deref() != Some("pgoutput") {
            return None;
        }
        Some(match facts.active_pid {
            Some(pid) => Finding::warning(
                "slot",
                format!("slot {name:?} is being created (process {pid}): it waits for open transactions"),
                "end the transactions named under open_transactions",
            ),
            None if facts.wal_status.as_deref() == Some("lost") => return None,
            None => Finding::error(
                "slot",
                format!("slot {name:?} was left half-made"),
                Fix::sql(format!("SELECT pg_drop_replication_slot({});", quote_literal(name)))
                    .then(Fix::run("walcast setup")),
            ),
        })
    }

    fn activity(&self, facts: &SlotFacts) -> Finding {
        let name = &self.name;
        match (facts.active_pid, self.application.as_deref()) {
            (Some(pid), Some(application)) if !application.starts_with("walcast") => Finding::error(
                "slot",
                format!("slot {name:?} is read by {application:?} (process {pid})"),
                Fix::from("stop that program; only if it is gone for good, end its session:")
                    .then(Fix::sql(format!("SELECT pg_terminate_backend({pid});"))),
            ),
            (Some(pid), _) => {
                Finding::ok("slot", format!("slot {name:?} is streamed by walcast (process {pid})"))
            }
            (None, _) => Finding::ok("slot", format!("slot {name:?} is in order; nobody streams it now")),
        }
    }

    fn unreserved(&self, facts: &SlotFacts) -> Option<Finding> {
        (facts.wal_status.as_deref() == Some("unreserved")).then(|| {
            let message =
                format!("slot {:?} is about to be lost: it is over max_slot_wal_keep_size", self.name);
            Finding::error("slot_wal", message, "start walcast serve now, or raise max_slot_wal_keep_size")
        })
    }

    fn retained(&self, facts: &SlotFacts) -> Finding {
        let retained = facts.retained_bytes.unwrap_or_default().max(0);
        let lag = self.lag_bytes().unwrap_or_default();
        let message =
            format!("the slot keeps {} of WAL; {} are not acknowledged", size(retained as u64), size(lag));
        if retained < RETAINED_BYTES_NOTABLE {
            return Finding::ok("slot_retained_wal", message);
        }
        let fix = match facts.active_pid {
            Some(_) => {
                "look for old transactions (open_transactions), and whether history keeps up (walcast status)"
            }
            None => "start walcast serve, or give the feed up with walcast teardown",
        };
        Finding::warning("slot_retained_wal", message, fix)
    }
}

fn failure(error: &Error) -> Finding {
    Finding::error("slot", error.to_string(), error.hint().unwrap_or_else(|| START_OVER.to_owned()))
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn};
    use walcast_replication::slot::SlotFacts;

    use super::{Slot, StoredFeed};
    use crate::commands::doctor::finding::Severity;

    const POSITION: StoredFeed = StoredFeed::To(Cursor::new(Lsn::new(1000), walcast_model::Seq::FIRST));

    fn healthy() -> SlotFacts {
        SlotFacts {
            plugin: Some("pgoutput".into()),
            database: Some("shop".into()),
            temporary: false,
            two_phase: false,
            failover: false,
            active_pid: None,
            confirmed_flush: Some(Lsn::new(900)),
            restart: Some(Lsn::new(800)),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            invalidation_reason: None,
            retained_bytes: Some(1 << 20),
        }
    }

    fn slot(facts: Option<SlotFacts>, application: Option<&str>) -> Slot {
        Slot {
            name: "walcast".into(),
            facts,
            database: "shop".into(),
            application: application.map(str::to_owned),
            end: Lsn::new(2000),
        }
    }

    fn troubles(slot: &Slot, feed: StoredFeed) -> Vec<(&'static str, Severity)> {
        let bad = slot.findings(feed).into_iter().filter(|finding| finding.severity != Severity::Ok);
        bad.map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_slot_that_walcast_streams_or_left_in_order_gives_no_trouble() {
        assert_eq!(troubles(&slot(Some(healthy()), None), POSITION), []);
        let streamed = SlotFacts { active_pid: Some(7), ..healthy() };
        assert_eq!(troubles(&slot(Some(streamed), Some("walcast")), POSITION), []);
        assert_eq!(slot(Some(healthy()), None).lag_bytes(), Some(1100));
    }

    #[test]
    fn each_fault_of_a_slot_is_found() {
        type Break = fn(&mut SlotFacts);
        let cases: [(Break, &str, Severity); 9] = [
            (|f| f.plugin = Some("wal2json".into()), "slot", Severity::Error),
            (|f| f.database = Some("other".into()), "slot", Severity::Error),
            (|f| f.wal_status = Some("lost".into()), "slot", Severity::Error),
            (|f| f.active_pid = Some(7), "slot", Severity::Error),
            (|f| f.confirmed_flush = None, "slot", Severity::Error),
            (|f| f.confirmed_flush = Some(Lsn::new(1001)), "slot", Severity::Error),
            (|f| f.wal_status = Some("unreserved".into()), "slot_wal", Severity::Error),
            (|f| f.retained_bytes = Some(20 << 30), "slot_retained_wal", Severity::Warning),
            (|f| f.two_phase = true, "slot", Severity::Error),
        ];
        for (index, (damage, check, severity)) in cases.into_iter().enumerate() {
            let mut facts = healthy();
            damage(&mut facts);
            assert_eq!(
                troubles(&slot(Some(facts), Some("psql")), POSITION),
                [(check, severity)],
                "case {index}"
            );
        }
    }

    #[test]
    fn a_slot_and_a_feed_belong_together() {
        let nothing = StoredFeed::None;
        assert_eq!(troubles(&slot(None, None), nothing), [("slot", Severity::Note)]);
        assert_eq!(troubles(&slot(None, None), POSITION), [("slot", Severity::Error)]);
        let missing = &slot(None, None).findings(POSITION)[0].message;
        assert!(missing.contains(&Lsn::new(1000).to_string()), "up to where the feed is complete: {missing}");
        assert_eq!(troubles(&slot(Some(healthy()), None), nothing), [("slot", Severity::Error)]);
        // Its feed may be a healthy one: what would end it is no step of its own, and comes last.
        let unknown = &slot(Some(healthy()), None).findings(nothing)[0];
        let fix = unknown.fix.as_deref().unwrap();
        assert!(fix.starts_with("name the history that has its feed with --history-url"), "{fix}");
        assert!(fix.contains("only if that feed is to be given up: stop walcast first"), "{fix}");
        assert_eq!(unknown.fix_steps.len(), 1, "{unknown:?}");
        // Nothing is concluded about a feed that cannot be asked for.
        assert_eq!(troubles(&slot(Some(healthy()), None), StoredFeed::Unknown), []);
        assert_eq!(troubles(&slot(None, None), StoredFeed::Unknown), [("slot", Severity::Warning)]);
    }
}
