//! The replication slot: created after the publications, and never passed over when it is lost.

use std::fmt;
use std::time::Duration;

use walcast_model::{Cursor, Lsn};
use walcast_postgres::Session;

use crate::error::Error;

mod holder;

pub use holder::{Client, Holder, holder};

/// How the slot is made.
#[derive(Debug, Clone)]
pub struct SlotSettings {
    /// Its name: 1 to 63 of `a-z`, `0-9` and `_`. Slots are named per cluster.
    pub name: String,
    /// Whether standbys are to keep it (`FAILOVER`); from PostgreSQL 17 on. Default true there.
    pub failover: bool,
    /// How long one try to create it may wait for open transactions. Default 10 s. While it waits the half-made slot
    /// holds back WAL, so it is given up and tried again.
    pub lock_timeout: Duration,
}

impl SlotSettings {
    /// The defaults, under this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), failover: true, lock_timeout: Duration::from_secs(10) }
    }
}

/// A slot as `pg_replication_slots` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// `None` for a physical slot.
    pub plugin: Option<String>,
    /// The database it decodes.
    pub database: Option<String>,
    /// Ends with its session.
    pub temporary: bool,
    /// Sends prepared transactions at PREPARE; walcast's does not.
    pub two_phase: bool,
    /// Kept by standbys (17+).
    pub failover: bool,
    /// The process that streams from it or creates it.
    pub active_pid: Option<i32>,
    /// Everything before it was acknowledged; `None` while it is being created.
    pub confirmed_flush: Option<Lsn>,
    /// WAL from here on is kept for it.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that may still be written before it is lost; `None` when there is no limit.
    pub safe_wal_bytes: Option<i64>,
    /// Why it is lost (17+).
    pub invalidation_reason: Option<String>,
    /// Bytes of WAL that it holds back.
    pub retained_bytes: Option<i64>,
}

const FACTS: &str = "
SELECT plugin::text, database::text, temporary, coalesce((to_jsonb(s)->>'two_phase')::bool, false),
       coalesce((to_jsonb(s)->>'failover')::bool, false), active_pid,
       confirmed_flush_lsn::text, restart_lsn::text, wal_status, safe_wal_size, to_jsonb(s)->>'invalidation_reason',
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::int8
FROM pg_replication_slots s WHERE slot_name = $1";

/// Looks at a slot; `None` when there is none of this name.
///
/// # Errors
/// Those of the session.
pub async fn inspect(session: &Session, name: &str) -> Result<Option<SlotFacts>, Error> {
    let Some(row) = session.query_opt(FACTS, &[&name]).await? else { return Ok(None) };
    let lsn = |index| row.get::<_, Option<&str>>(index).and_then(|text| text.parse().ok());
    Ok(Some(SlotFacts {
        plugin: row.get(0),
        database: row.get(1),
        temporary: row.get(2),
        two_phase: row.get(3),
        failover: row.get(4),
        active_pid: row.get(5),
        confirmed_flush: lsn(6),
        restart: lsn(7),
        wal_status: row.get(8),
        safe_wal_bytes: row.get(9),
        invalidation_reason: row.get(10),
        retained_bytes: row.get(11),
    }))
}

/// Whether a feed that has reached `position` can go on from the slot: nothing that it lacks may be gone.
///
/// # Errors
/// What is in the way; a slot in use is not, because its holder may be a connection of ours that is about to end.
pub fn check(facts: Option<&SlotFacts>, name: &str, database: &str, position: Cursor) -> Result<(), Error> {
    let slot = || name.to_owned();
    let Some(facts) = facts else { return Err(Error::SlotMissing { slot: slot(), position }) };
    serves(facts, name, database)?;
    if let Some(reason) = lost(facts) {
        return Err(Error::SlotLost { slot: slot(), reason, position });
    }
    match facts.confirmed_flush {
        // walcast acknowledges only what is in history, so somebody else did.
        Some(confirmed) if confirmed > position.lsn() => {
            Err(Error::SlotAhead { slot: slot(), confirmed, position })
        }
        Some(_) => Ok(()),
        None => Err(Error::SlotInUse { slot: slot(), holder: facts.active_pid.map(Holder::unknown) }),
    }
}

/// Whether the slot is one that walcast can read at all.
fn serves(facts: &SlotFacts, name: &str, database: &str) -> Result<(), Error> {
    let foreign = |reason: String| Err(Error::SlotForeign { slot: name.to_owned(), reason });
    match (facts.plugin.as_deref(), facts.database.as_deref()) {
        (Some("pgoutput"), Some(its)) if its == database => {}
        (Some("pgoutput"), Some(its)) => return foreign(format!("it belongs to database {its:?}")),
        (Some(plugin), _) => return foreign(format!("its output plugin is {plugin:?} instead of pgoutput")),
        (None, _) => return foreign("it is a physical slot".to_owned()),
    }
    if facts.two_phase {
        return foreign("it was made with TWO_PHASE".to_owned());
    }
    if facts.temporary {
        return foreign("it is temporary".to_owned());
    }
    Ok(())
}

/// Why the slot can never be read again, when that is so.
fn lost(facts: &SlotFacts) -> Option<String> {
    if let Some(reason) = &facts.invalidation_reason {
        return Some(reason.clone());
    }
    let lost = facts.wal_status.as_deref() == Some("lost");
    lost.then(|| "WAL that it needs was removed, see max_slot_wal_keep_size".to_owned())
}

/// A transaction that keeps the slot from being created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// A session with an open transaction that has written.
    Session {
        /// Its server process.
        pid: i32,
        /// Its role.
        user: String,
        /// Its `application_name`.
        application: String,
        /// What it does: `idle in transaction`, `active`, ….
        state: String,
        /// How long the transaction has been open, in seconds.
        seconds: i64,
    },
    /// A prepared transaction.
    Prepared {
        /// Its name.
        gid: String,
        /// Its database.
        database: String,
        /// How long ago it was prepared, in seconds.
        seconds: i64,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { pid, user, application, state, seconds } => {
                write!(f, "process {pid} of {user} ({application:?}, {state}) for {seconds} s")
            }
            Self::Prepared { gid, database, seconds } => {
                write!(f, "prepared transaction {gid:?} in database {database} for {seconds} s")
            }
        }
    }
}

impl Blocker {
    /// What ends it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Session { pid, .. } => {
                format!("end the transaction, or run SELECT pg_terminate_backend({pid});")
            }
            Self::Prepared { gid, database, .. } => {
                let gid = walcast_postgres::quote_literal(gid);
                format!("in database {database} run COMMIT PREPARED {gid}; or ROLLBACK PREPARED {gid};")
            }
        }
    }
}

/// Open transactions with a transaction id, in any database of the cluster, oldest first.
const BLOCKERS: &str = "
SELECT pid, usename::text, application_name, coalesce(state, ''), NULL, NULL,
       extract(epoch FROM clock_timestamp() - xact_start)::int8 AS seconds
FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
UNION ALL
SELECT NULL, NULL, NULL, NULL, gid, database::text, extract(epoch FROM clock_timestamp() - prepared)::int8
FROM pg_prepared_xacts
ORDER BY seconds DESC NULLS LAST LIMIT 5";

/// Creates the slot, after the publications that it is to read: the position from which it has everything.
///
/// Waits up to `lock_timeout` for transactions that are open in any database of the cluster.
///
/// # Errors
/// [`Error::SlotBlocked`] when they did not end in time; nothing is left behind then, try again. Otherwise what the
/// server says. When dropped before it is done, the server may still complete it.
pub async fn create(session: &Session, settings: &SlotSettings) -> Result<Lsn, Error> {
    let timeout = settings.lock_timeout.as_millis().max(1);
    session.batch_execute(&format!("SET lock_timeout = {timeout}")).await?;
    let failover =
        if session.server_version() >= 170_000 { ", failover => $2" } else { " , twophase => $2 AND false" };
    let create = format!(
        "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput', temporary => false{failover})"
    );
    let created = session.query_one(&create, &[&settings.name, &settings.failover]).await;
    session.batch_execute("SET lock_timeout = 0").await?;
    let row = match created.map_err(walcast_postgres::Error::from) {
        Ok(row) => row,
        Err(error) if error.sqlstate() == Some("55P03") => {
            let blockers = blockers(session).await?;
            return Err(Error::SlotBlocked { slot: settings.name.clone(), blockers });
        }
        Err(error) => return Err(error.into()),
    };
    let lsn: &str = row.get(0);
    lsn.parse()
        .map_err(|_| walcast_postgres::Error::Protocol(format!("{lsn:?} is not a WAL position")).into())
}

/// The transactions that a new slot would have to wait for, oldest first, at most five.
///
/// # Errors
/// Those of the session.
pub async fn blockers(session: &Session) -> Result<Vec<Blocker>, Error> {
    let rows = session.query(BLOCKERS, &[]).await?;
    let text = |row: &tokio_postgres::Row, index| row.get::<_, Option<String>>(index).unwrap_or_default();
    let blocker = |row: &tokio_postgres::Row| {
        let seconds = row.get::<_, Option<i64>>(6).unwrap_or_default();
        match row.get::<_, Option<i32>>(0) {
            Some(pid) => Blocker::Session {
                pid,
                user: text(row, 1),
                application: text(row, 2),
                state: text(row, 3),
                seconds,
            },
            None => Blocker::Prepared { gid: text(row, 4), database: text(row, 5), seconds },
        }
    };
    Ok(rows.iter().map(blocker).collect())
}

/// What [`ensure`] found or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// The feed goes on from the slot.
    Existing,
    /// The slot is new, and so must the feed be: it begins here.
    Created(Lsn),
}

/// Has a slot for a feed: an existing one for a feed that has reached `position`, a new one for a feed that there is not
/// yet (`None`). The publications must exist.
///
/// # Errors
/// As [`check`] and [`create`]. A slot that exists without a feed is [`Error::SlotWithoutFeed`]: what it was acknowledged
/// for is not known, so starting over has to be asked for.
pub async fn ensure(
    session: &Session,
    settings: &SlotSettings,
    database: &str,
    position: Option<Cursor>,
) -> Result<Ensured, Error> {
    let facts = inspect(session, &settings.name).await?;
    match (facts, position) {
        (facts, Some(position)) => {
            check(facts.as_ref(), &settings.name, database, position).map(|()| Ensured::Existing)
        }
        (None, None) => create(session, settings).await.map(Ensured::Created),
        (Some(facts), None) => Err(without_feed(&facts, &settings.name, database)),
    }
}

/// Why nothing begins at a slot that exists, and for which the history has no feed: [`Error::SlotForeign`] where it can
/// have none anywhere, else [`Error::SlotWithoutFeed`].
#[must_use]
pub fn without_feed(facts: &SlotFacts, name: &str, database: &str) -> Error {
    let unknown = || Error::SlotWithoutFeed { slot: name.to_owned() };
    serves(facts, name, database).err().unwrap_or_else(unknown)
}

/// As [`ensure`], and tries again for as long as open transactions keep the slot from being created; `blocked` is told
/// each time, with the error that names them. Give up by dropping the future.
///
/// # Errors
/// As [`ensure`], without [`Error::SlotBlocked`].
pub async fn ensure_patiently(
    session: &Session,
    settings: &SlotSettings,
    database: &str,
    position: Option<Cursor>,
    mut blocked: impl FnMut(&Error),
) -> Result<Ensured, Error> {
    loop {
        match ensure(session, settings, database, position).await {
            Err(error @ Error::SlotBlocked { .. }) => blocked(&error),
            ended => return ended,
        }
    }
}

/// Drops the slot; that there is none is as good.
///
/// # Errors
/// [`Error::SlotInUse`] while somebody streams from it; otherwise what the server says.
pub async fn drop(session: &Session, name: &str) -> Result<(), Error> {
    let dropped = session.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await;
    match dropped.map_err(walcast_postgres::Error::from) {
        Ok(_) => Ok(()),
        Err(error) => match error.sqlstate() {
            Some("42704") => Ok(()),
            Some("55006") => {
                let holder = holder(session, name).await?;
                Err(Error::SlotInUse { slot: name.to_owned(), holder })
            }
            _ => Err(error.into()),
        },
    }
}
