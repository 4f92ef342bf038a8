//! The server: whether it can feed anybody, and whether it has room for one more.

use walcast_postgres::{Error, Session};

use super::finding::Finding;
use super::fix::Fix;
use super::platform::Platform;

/// What is asked of the server.
#[derive(Clone, Debug)]
pub(crate) struct ServerFacts {
    pub(crate) platform: Platform,
    /// `server_version_num`.
    pub(crate) version_num: u32,
    /// `server_version`, for people.
    pub(crate) version: String,
    pub(crate) in_recovery: bool,
    pub(crate) wal_level: String,
    pub(crate) fsync: bool,
    pub(crate) full_page_writes: bool,
    pub(crate) encoding: String,
    pub(crate) slots_max: i64,
    pub(crate) slots_used: i64,
    pub(crate) senders_max: i64,
    pub(crate) senders_used: i64,
    /// Whether walcast's slot is one of those in use.
    pub(crate) has_our_slot: bool,
    /// Whether walcast's slot is being streamed, by one of the senders in use.
    pub(crate) has_our_sender: bool,
    /// MiB, -1 for no limit.
    pub(crate) slot_wal_keep_size_mb: i64,
    /// Seconds, 0 for never (18 and later).
    pub(crate) idle_slot_timeout_s: i64,
    /// Slots that must have confirmed before walcast sees anything (17 and later), as they are set.
    pub(crate) synchronized_standby_slots: String,
    /// Those of them that are missing or inactive.
    pub(crate) standby_slots_away: Vec<String>,
}

impl ServerFacts {
    /// Asks the server; `slot` is walcast's.
    pub(crate) async fn gather(session: &Session, slot: &str) -> Result<Self, Error> {
        let platform = Platform::detect(session).await?;
        let row = session
            .query_one(
                "SELECT current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
                        current_setting('wal_level'), current_setting('fsync') = 'on',
                        current_setting('full_page_writes') = 'on', current_setting('server_encoding'),
                        current_setting('max_replication_slots')::int8,
                        (SELECT count(*) FROM pg_catalog.pg_replication_slots),
                        current_setting('max_wal_senders')::int8,
                        (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'walsender'),
                        EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1),
                        EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = $1 AND active),
                        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'),
                        coalesce((SELECT setting::int8 FROM pg_catalog.pg_settings
                                  WHERE name = 'idle_replication_slot_timeout'), 0),
                        coalesce(current_setting('synchronized_standby_slots', true), '')",
                &[&slot],
            )
            .await?;
        let synchronized_standby_slots: String = row.try_get(14)?;
        let away = session
            .query(
                "SELECT trim(name) FROM unnest(string_to_array($1::text, ',')) AS name
                 LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = trim(name)
                 WHERE trim(name) <> '' AND s.active IS DISTINCT FROM true ORDER BY 1",
                &[&synchronized_standby_slots],
            )
            .await?;
        Ok(Self {
            platform,
            version_num: session.server_version(),
            version: row.try_get(0)?,
            in_recovery: row.try_get(1)?,
            wal_level: row.try_get(2)?,
            fsync: row.try_get(3)?,
            full_page_writes: row.try_get(4)?,
            encoding: row.try_get(5)?,
            slots_max: row.try_get(6)?,
            slots_used: row.try_get(7)?,
            senders_max: row.try_get(8)?,
            senders_used: row.try_get(9)?,
            has_our_slot: row.try_get(10)?,
            has_our_sender: row.try_get(11)?,
            slot_wal_keep_size_mb: row.try_get(12)?,
            idle_slot_timeout_s: row.try_get(13)?,
            synchronized_standby_slots,
            standby_slots_away: away.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
        })
    }

    /// What they mean.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings =
            vec![self.version(), self.primary(), self.wal_level(), self.slots(), self.senders()];
        findings.push(self.encoding());
        findings.extend(self.durability());
        findings.push(self.wal_keep());
        findings.extend(self.idle_slot());
        findings.extend(self.standbys());
        findings
    }

    fn version(&self) -> Finding {
        let message = format!("Postgres {}", self.version);
        match self.version_num {
            0..140_000 => Finding::error("version", message, "upgrade to Postgres 14 or later"),
            140_000..150_000 => Finding::warning(
                "version",
                format!(
                    "{message}: its last minor version came out in November 2026; no row filters or column lists"
                ),
                "plan the upgrade to a supported version",
            ),
            150_000..190_000 => Finding::ok("version", message),
            _ => Finding::warning(
                "version",
                format!("{message} is newer than what walcast was tested with (14 to 18)"),
                "look for a newer walcast",
            ),
        }
    }

    fn primary(&self) -> Finding {
        if self.in_recovery {
            let message = "the source is a standby: no barriers, no consistent initial sync";
            return Finding::error("primary", message, "let --database-url name the primary");
        }
        Finding::ok("primary", "the source is a primary")
    }

    fn wal_level(&self) -> Finding {
        let message = format!("wal_level is {}", self.wal_level);
        if self.wal_level == "logical" {
            return Finding::ok("wal_level", message);
        }
        Finding::error("wal_level", message, self.platform.set_and_restart("wal_level", "logical"))
    }

    fn slots(&self) -> Finding {
        let message = format!("replication slots: {} of {} in use", self.slots_used, self.slots_max);
        if self.slots_used < self.slots_max || self.has_our_slot {
            return Finding::ok("replication_slots", message);
        }
        let more = (self.slots_max + 4).max(10).to_string();
        Finding::error(
            "replication_slots",
            message,
            self.platform.set_and_restart("max_replication_slots", &more),
        )
    }

    fn senders(&self) -> Finding {
        let message = format!("WAL senders: {} of {} in use", self.senders_used, self.senders_max);
        if self.senders_used < self.senders_max || self.has_our_sender {
            return Finding::ok("wal_senders", message);
        }
        let more = (self.senders_max + 4).max(10).to_string();
        Finding::error("wal_senders", message, self.platform.set_and_restart("max_wal_senders", &more))
    }

    fn encoding(&self) -> Finding {
        let message = format!("the database's encoding is {}", self.encoding);
        if self.encoding == "SQL_ASCII" {
            let message = format!("{message}: texts that are not UTF-8 cannot be JSON");
            return Finding::warning("encoding", message, "move to a database created with ENCODING 'UTF8'");
        }
        Finding::ok("encoding", message)
    }

    fn durability(&self) -> Option<Finding> {
        let off = [("fsync", self.fsync), ("full_page_writes", self.full_page_writes)];
        let (name, _) = off.into_iter().find(|(_, on)| !on)?;
        let message = format!("{name} is off: a crash of the server may take back what was delivered");
        Some(Finding::warning("durability", message, self.platform.set(name, "on")))
    }

    fn wal_keep(&self) -> Finding {
        let name = "max_slot_wal_keep_size";
        match self.slot_wal_keep_size_mb {
            ..0 => Finding::warning(
                name,
                format!("{name} is not limited: while walcast is away, WAL can fill the disk"),
                Fix::from("watch walcast status, or set a limit:").then(self.platform.set(name, "50GB")),
            ),
            size @ 0..1024 => Finding::warning(
                name,
                format!(
                    "{name} is {size} MB: the slot is lost, and the feed starts over, once walcast is that far behind"
                ),
                self.platform.set(name, "50GB"),
            ),
            size => Finding::ok(name, format!("{name} is {size} MB")),
        }
    }

    fn idle_slot(&self) -> Option<Finding> {
        let name = "idle_replication_slot_timeout";
        let seconds = self.idle_slot_timeout_s;
        (seconds > 0).then(|| {
            let message = format!("{name} is {seconds} s: the slot is lost when walcast is away for longer");
            Finding::warning(name, message, self.platform.set(name, "0"))
        })
    }

    fn standbys(&self) -> Option<Finding> {
        let name = "synchronized_standby_slots";
        (!self.standby_slots_away.is_empty()).then(|| {
            let away = self.standby_slots_away.join(", ");
            let message = format!("{name} names {away}, which nobody streams: the feed waits for them");
            Finding::error(
                name,
                message,
                format!(
                    "bring the standby back, or take it out of {name} ({})",
                    self.synchronized_standby_slots
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ServerFacts;
    use crate::commands::doctor::finding::Severity;
    use crate::commands::doctor::platform::Platform;

    fn healthy() -> ServerFacts {
        ServerFacts {
            platform: Platform::OwnServer,
            version_num: 150_018,
            version: "15.18".into(),
            in_recovery: false,
            wal_level: "logical".into(),
            fsync: true,
            full_page_writes: true,
            encoding: "UTF8".into(),
            slots_max: 10,
            slots_used: 3,
            senders_max: 10,
            senders_used: 3,
            has_our_slot: false,
            has_our_sender: false,
            slot_wal_keep_size_mb: 50_000,
            idle_slot_timeout_s: 0,
            synchronized_standby_slots: String::new(),
            standby_slots_away: Vec::new(),
        }
    }

    fn troubles(facts: &ServerFacts) -> Vec<(&'static str, Severity)> {
        let bad = facts.findings().into_iter().filter(|finding| finding.severity != Severity::Ok);
        bad.map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn a_healthy_server_gives_no_trouble() {
        assert_eq!(troubles(&healthy()), []);
    }

    #[test]
    fn each_fault_is_found_by_its_own_check() {
        type Break = fn(&mut ServerFacts);
        let cases: [(Break, &str, Severity); 11] = [
            (|f| f.version_num = 130_012, "version", Severity::Error),
            (|f| f.version_num = 140_023, "version", Severity::Warning),
            (|f| f.in_recovery = true, "primary", Severity::Error),
            (|f| f.wal_level = "replica".into(), "wal_level", Severity::Error),
            (|f| f.slots_used = 10, "replication_slots", Severity::Error),
            (|f| f.senders_used = 10, "wal_senders", Severity::Error),
            (|f| f.encoding = "SQL_ASCII".into(), "encoding", Severity::Warning),
            (|f| f.fsync = false, "durability", Severity::Warning),
            (|f| f.slot_wal_keep_size_mb = -1, "max_slot_wal_keep_size", Severity::Warning),
            (|f| f.idle_slot_timeout_s = 60, "idle_replication_slot_timeout", Severity::Warning),
            (|f| f.standby_slots_away = vec!["s1".into()], "synchronized_standby_slots", Severity::Error),
        ];
        for (damage, check, severity) in cases {
            let mut facts = healthy();
            damage(&mut facts);
            assert_eq!(troubles(&facts), [(check, severity)]);
        }
    }

    #[test]
    fn a_full_server_that_has_our_slot_already_has_room_for_it() {
        let mut facts = ServerFacts { slots_used: 10, senders_used: 10, ..healthy() };
        (facts.has_our_slot, facts.has_our_sender) = (true, true);
        assert_eq!(troubles(&facts), []);
    }
}
