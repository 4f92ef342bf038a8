//! Which feed the history belongs to, and where it stands.

use std::fmt;

use tokio_postgres::{IsolationLevel, Row};
use walcast_model::{Cursor, FeedId, Lsn, RelationName, Seq};
use walcast_postgres::Session;

use crate::Error;
use crate::column::{get, lsn, optional_lsn, parameter};
use crate::error::Doing;
use crate::hole::Hole;
use crate::last_image::FORGET_ALL;

/// Proves that a message in the WAL was written by walcast. Its `Debug` form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself: 64 hexadecimal digits. Not for logs.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn random() -> Self {
        // From the process's cryptographic generator.
        Self(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a new feed is made from.
#[derive(Clone, Debug)]
pub struct NewFeed {
    /// The slot it is read from.
    pub slot: String,
    /// The source database.
    pub database: String,
    /// The source cluster, as `IDENTIFY_SYSTEM` prints it.
    pub system_identifier: String,
    /// The source cluster's timeline.
    pub timeline: u64,
    /// Where it starts: the slot's consistent point.
    pub position: Lsn,
}

/// One life of the source's cluster: what was written in it can have been taken back only by another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The timeline.
    pub timeline: u64,
    /// Where it left the timeline before it; `None` for the first one, and where that is not known.
    pub began: Option<Lsn>,
    /// When the server was started: microseconds since 1970, by its own clock. `None` where that is not known.
    pub server_run: Option<i64>,
}

/// The feed that the history belongs to, as it was when this was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedRecord {
    /// Under which cursors are comparable.
    pub id: FeedId,
    /// Shared by the replicators of this feed, for the messages that they write into the WAL.
    pub secret: Secret,
    /// The slot it is read from.
    pub slot: String,
    /// The source database.
    pub database: String,
    /// The source cluster, as `IDENTIFY_SYSTEM` prints it.
    pub system_identifier: String,
    /// Which life of the source it was last read from.
    pub line: Line,
    /// No cursor before it can be served.
    pub oldest: Cursor,
    /// Every change before it is stored, none at or after it.
    pub position: Cursor,
    /// The last change that was stored; `None` before the first, and where an older walcast stored it.
    pub last: Option<Cursor>,
    /// Which process has claimed the feed: the position moves for no other.
    pub writer: i64,
    /// Changes that are missing from it for good, as who read its slot has found.
    pub hole: Option<Hole>,
}

/// What came last is read so that a schema that is older has it too, as nothing: `walcast status` shows that one as well.
pub(crate) const COLUMNS: &str = "feed_id, secret, slot_name, database, system_identifier, timeline, oldest_lsn, position_lsn, \
                       position_seq, timeline_began, server_run, last_lsn, last_seq, writer, \
                       (to_jsonb(feed) ->> 'hole_at')::timestamptz, (to_jsonb(feed) ->> 'hole_lsn')::pg_lsn, \
                       to_jsonb(feed) ->> 'hole_publication', to_jsonb(feed) ->> 'hole_reason'";

impl FeedRecord {
    /// The feed of this slot; `None` when the history has none yet.
    ///
    /// # Errors
    /// When the history holds the feed of another slot, has no schema, or its Postgres fails.
    pub async fn load(session: &Session, slot: &str) -> Result<Option<Self>, Error> {
        match Self::load_any(session).await? {
            Some(record) if record.slot != slot => Err(Error::SlotDiffers { slot: record.slot }),
            found => Ok(found),
        }
    }

    /// The feed that the history holds, whatever its slot.
    ///
    /// # Errors
    /// When the history has no schema, or its Postgres fails.
    pub async fn load_any(session: &Session) -> Result<Option<Self>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM walcast.feed");
        let row = session.query_opt(&sql, &[]).await.doing("read its feed")?;
        row.as_ref().map(Self::from_row).transpose()
    }

    /// The tables of which there has been a change in this history, in the order of their names; what retention has dropped
    /// too.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn tables(session: &Session) -> Result<Vec<RelationName>, Error> {
        let sql = "SELECT DISTINCT schema_name, table_name FROM walcast.relation ORDER BY 1, 2";
        let rows = session.query(sql, &[]).await.doing("be asked for its tables")?;
        rows.iter().map(|row| Ok(RelationName::new(get::<String>(row, 0)?, get::<String>(row, 1)?))).collect()
    }

    /// Says that the slot is about to be created for a feed that is not there yet. When setup is interrupted between
    /// the slot and the feed's record, the slot that is then found is known to be walcast's own ([`Self::is_slot_planned`]).
    ///
    /// # Errors
    /// When the history has no schema, or its Postgres fails.
    pub async fn plan_slot(session: &Session, slot: &str) -> Result<(), Error> {
        let sql = "INSERT INTO walcast.planned_slot (slot_name) VALUES ($1) ON CONFLICT DO NOTHING";
        session.execute(sql, &[&slot]).await.doing("plan a slot")?;
        Ok(())
    }

    /// Whether a setup has begun to create this slot, and has not come to the feed's record.
    ///
    /// # Errors
    /// When the history has no schema, or its Postgres fails.
    pub async fn is_slot_planned(session: &Session, slot: &str) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT FROM walcast.planned_slot WHERE slot_name = $1)";
        let row = session.query_one(sql, &[&slot]).await.doing("look for a planned slot")?;
        get(&row, 0)
    }

    /// Starts a feed: with a new id, a new secret and an empty history. What a former feed of the same slot left is
    /// dropped, because its cursors are not comparable with those of the new one.
    ///
    /// # Errors
    /// When the history holds the feed of another slot, has no schema, or its Postgres fails; nothing was changed then.
    pub async fn create(session: &mut Session, new: &NewFeed) -> Result<Self, Error> {
        const DOING: &str = "start a feed";
        let id = random_id()?;
        let secret = Secret::random();
        let builder =
            session.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
        let transaction = builder.start().await.doing(DOING)?;
        // A reader of the former feed that does not end ends this with an error; it is not waited for.
        let lock = "SET LOCAL lock_timeout = '10s'; LOCK TABLE walcast.feed IN ACCESS EXCLUSIVE MODE";
        transaction.batch_execute(lock).await.doing(DOING)?;
        if let Some(row) =
            transaction.query_opt("SELECT slot_name FROM walcast.feed", &[]).await.doing(DOING)?
        {
            let slot: String = get(&row, 0)?;
            if slot != new.slot {
                return Err(Error::SlotDiffers { slot });
            }
        }
        for row in transaction.query("SELECT name FROM walcast.partition", &[]).await.doing(DOING)? {
            let name = walcast_postgres::quote_identifier(get(&row, 0)?);
            transaction.batch_execute(&format!("DROP TABLE walcast.{name}")).await.doing(DOING)?;
        }
        transaction
            .batch_execute(
                "DELETE FROM walcast.relation; DELETE FROM walcast.feed; DELETE FROM walcast.planned_slot; \
                 DELETE FROM walcast.lineage; DELETE FROM walcast.partition_record",
            )
            .await
            .doing(DOING)?;
        transaction.batch_execute(FORGET_ALL).await.doing(DOING)?;
        let sql = format!(
            "INSERT INTO walcast.feed (feed_id, secret, slot_name, database, system_identifier, timeline, oldest_lsn, \
             position_lsn) VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING {COLUMNS}"
        );
        let timeline = i64::try_from(new.timeline).unwrap_or(i64::MAX);
        let position = parameter(new.position);
        let row = transaction
            .query_one(
                &sql,
                &[
                    &id.as_str(),
                    &secret.0,
                    &new.slot,
                    &new.database,
                    &new.system_identifier,
                    &timeline,
                    &position,
                ],
            )
            .await
            .doing(DOING)?;
        let record = Self::from_row(&row)?;
        transaction.commit().await.doing(DOING)?;
        Ok(record)
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        let id: String = get(row, 0)?;
        let timeline: i64 = get(row, 5)?;
        Ok(Self {
            id: id.parse().map_err(|_| Error::Unreadable { what: "feed id", problem: id.clone() })?,
            secret: Secret(get(row, 1)?),
            slot: get(row, 2)?,
            database: get(row, 3)?,
            system_identifier: get(row, 4)?,
            line: Line {
                timeline: u64::try_from(timeline).unwrap_or_default(),
                began: optional_lsn(row, 9)?,
                server_run: get(row, 10)?,
            },
            oldest: lsn(row, 6)?.into(),
            position: Cursor::new(lsn(row, 7)?, Seq::new(get(row, 8)?)),
            last: optional_lsn(row, 11)?
                .zip(get::<Option<i64>>(row, 12)?)
                .map(|(lsn, seq)| Cursor::new(lsn, Seq::new(seq))),
            writer: get(row, 13)?,
            hole: Hole::from_row(row, 14)?,
        })
    }
}

/// An id that no feed had before.
pub(crate) fn random_id() -> Result<FeedId, Error> {
    format!("{:016x}", rand::random::<u64>())
        .parse()
        .map_err(|error| Error::Unreadable { what: "feed id", problem: format!("{error}") })
}
