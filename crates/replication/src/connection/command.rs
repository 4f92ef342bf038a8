//! The replication commands (protocol chapter "Streaming Replication Protocol").

use std::time::Duration;

use walcast_model::Lsn;
use walcast_postgres::{Error, TextRows, quote_identifier};

use super::ReplicationConnection;

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemIdentity {
    /// What all copies of one cluster share, in decimal.
    pub system_identifier: String,
    /// Goes up with each promotion.
    pub timeline: u32,
    /// Up to here the WAL is flushed.
    pub flushed: Lsn,
    /// The database the connection belongs to.
    pub database: String,
}

/// What becomes of the snapshot that a new slot starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SlotSnapshot {
    /// It is not kept.
    #[default]
    Nothing,
    /// Other sessions can take it over until the next command on this connection.
    Export,
    /// The transaction that is open on this connection takes it over.
    Use,
}

/// How to create a slot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotOptions {
    /// Gone with the connection.
    pub temporary: bool,
    /// Kept on standbys too. From 17 on; earlier servers refuse it (42601).
    pub failover: bool,
    /// What becomes of the snapshot.
    pub snapshot: SlotSnapshot,
    /// How long to wait for each transaction that is open, before giving up with 55P03. Zero = for ever.
    pub lock_timeout: Duration,
}

impl Default for SlotOptions {
    fn default() -> Self {
        let lock_timeout = Duration::from_secs(10);
        Self { temporary: false, failover: false, snapshot: SlotSnapshot::default(), lock_timeout }
    }
}

/// The answer to `CREATE_REPLICATION_SLOT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedSlot {
    /// The slot's name.
    pub name: String,
    /// The slot streams every transaction that commits from here on, and no other.
    pub consistent_point: Lsn,
    /// The exported snapshot's name.
    pub snapshot: Option<String>,
}

/// One line of a timeline's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimelineSwitch {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where it was left.
    pub at: Lsn,
}

impl ReplicationConnection {
    /// Asks who the server is.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let rows = self.wire.simple_query("IDENTIFY_SYSTEM").await?;
        Ok(SystemIdentity {
            system_identifier: cell(&rows, 0)?.to_owned(),
            timeline: parsed(&rows, 1)?,
            flushed: parsed(&rows, 2)?,
            database: cell(&rows, 3)?.to_owned(),
        })
    }

    /// A setting as it is in force on this walsender.
    ///
    /// # Errors
    /// 42704 when there is no such setting.
    pub async fn show(&mut self, name: &str) -> Result<String, Error> {
        let rows = self.wire.simple_query(&format!("SHOW {}", quote_identifier(name))).await?;
        Ok(cell(&rows, 0)?.to_owned())
    }

    /// Creates a logical slot with the plugin `pgoutput`. Waits for every transaction of the whole cluster that is open
    /// and has written something, prepared ones too, up to `lock_timeout` each.
    ///
    /// # Errors
    /// 42710 when it exists, 42602 for a bad name, 55P03 after `lock_timeout` (the slot is gone then), 53400 when there
    /// is no room for another, 55000 when `wal_level` is not `logical`.
    pub async fn create_slot(&mut self, name: &str, options: &SlotOptions) -> Result<CreatedSlot, Error> {
        let timeout = options.lock_timeout.as_millis();
        self.wire.simple_query(&format!("SET lock_timeout = {timeout}")).await?;
        let created =
            self.wire.simple_query(&create_replication_slot(self.server_version, name, options)).await;
        // Inside a transaction that failed (`SlotSnapshot::Use`) nothing can be set; it ends with the transaction.
        let reset = self.wire.simple_query("SET lock_timeout = 0").await;
        let rows = created?;
        reset?;
        Ok(CreatedSlot {
            name: cell(&rows, 0)?.to_owned(),
            consistent_point: parsed(&rows, 1)?,
            snapshot: rows.first().and_then(|row| row.get(2).cloned().flatten()),
        })
    }

    /// Drops a slot; with `wait`, waits without limit while it is in use.
    ///
    /// # Errors
    /// 42704 when there is none, 55006 when it is in use (the message has the PID).
    pub async fn drop_slot(&mut self, name: &str, wait: bool) -> Result<(), Error> {
        let wait = if wait { " WAIT" } else { "" };
        self.wire.simple_query(&format!("DROP_REPLICATION_SLOT {}{wait}", quote_identifier(name))).await?;
        Ok(())
    }

    /// Where earlier timelines were left, oldest first; empty for timeline 1, which has no history.
    ///
    /// # Errors
    /// 58P01 when the server does not have the timeline's history file.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<TimelineSwitch>, Error> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.wire.simple_query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        Ok(parse_history(cell(&rows, 1)?))
    }
}

/// Lines of `timeline <tab> LSN <tab> reason`; `#` starts a comment.
fn parse_history(content: &str) -> Vec<TimelineSwitch> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let timeline = words.next()?.parse().ok()?;
        Some(TimelineSwitch { timeline, at: words.next()?.parse().ok()? })
    };
    content.lines().filter_map(line).collect()
}

fn create_replication_slot(server_version: u32, name: &str, options: &SlotOptions) -> String {
    let name = quote_identifier(name);
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let list_form = server_version >= 150_000;
    let mut words = vec![match (options.snapshot, list_form) {
        (SlotSnapshot::Nothing, true) => "SNAPSHOT 'nothing'",
        (SlotSnapshot::Export, true) => "SNAPSHOT 'export'",
        (SlotSnapshot::Use, true) => "SNAPSHOT 'use'",
        (SlotSnapshot::Nothing, false) => "NOEXPORT_SNAPSHOT",
        (SlotSnapshot::Export, false) => "EXPORT_SNAPSHOT",
        (SlotSnapshot::Use, false) => "USE_SNAPSHOT",
    }];
    if options.failover {
        words.push("FAILOVER");
    }
    let words = if list_form { format!("({})", words.join(", ")) } else { words.join(" ") };
    format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput {words}")
}

pub(super) fn start_replication(slot: &str, from: Lsn, publications: &[impl AsRef<str>]) -> String {
    // One string that holds a list of identifiers. The walsender's grammar has no escapes but the doubled quote.
    let names: Vec<String> = publications.iter().map(|name| quote_identifier(name.as_ref())).collect();
    let names = names.join(",").replace('\'', "''");
    format!(
        "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names '{names}', messages 'true')",
        quote_identifier(slot)
    )
}

fn cell(rows: &TextRows, column: usize) -> Result<&str, Error> {
    let cell = rows.first().and_then(|row| row.get(column)).and_then(Option::as_deref);
    cell.ok_or_else(|| Error::Protocol(format!("column {} of a command's answer is missing", column + 1)))
}

fn parsed<T: std::str::FromStr>(rows: &TextRows, column: usize) -> Result<T, Error> {
    let text = cell(rows, column)?;
    text.parse().map_err(|_| Error::Protocol(format!("{text:?} in a command's answer")))
}

#[cfg(test)]
mod tests {
    use walcast_model::Lsn;

    use super::{SlotOptions, TimelineSwitch, create_replication_slot, parse_history, start_replication};

    #[test]
    fn names_are_quoted_for_the_walsender() {
        assert_eq!(
            start_replication("s", Lsn::new(0x16_B374_D848), &["a\"b", "it's", "C:\\"]),
            "START_REPLICATION SLOT \"s\" LOGICAL 0/16B374D848 (proto_version '1', \
             publication_names '\"a\"\"b\",\"it''s\",\"C:\\\"', messages 'true')"
                .replace("0/16B374D848", "16/B374D848")
        );
    }

    #[test]
    fn the_form_of_the_options_follows_the_version() {
        let options = SlotOptions { failover: true, temporary: true, ..SlotOptions::default() };
        assert_eq!(
            create_replication_slot(170_004, "s", &options),
            "CREATE_REPLICATION_SLOT \"s\" TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER)"
        );
        assert_eq!(
            create_replication_slot(140_023, "s", &SlotOptions::default()),
            "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput NOEXPORT_SNAPSHOT"
        );
    }

    #[test]
    fn a_timeline_history_is_read_without_its_comments() {
        let text = "# made by a test\n1\t0/1AEEFF38\tno recovery target specified\n\n2\t1/0\tx\n";
        let switch = |timeline, at| TimelineSwitch { timeline, at: Lsn::new(at) };
        assert_eq!(parse_history(text), [switch(1, 0x1AEE_FF38), switch(2, 1 << 32)]);
    }
}
