//! What `status` and `doctor` ask the history.

use tokio_postgres::Row;
use walcast_model::{Cursor, Seq};
use walcast_postgres::{Pool, Session};

use crate::column::{get, lsn};
use crate::error::Doing;
use crate::{Error, FeedRecord, KnownClient, schema};

/// Clients that are listed.
const CLIENTS_MAX: i64 = 10_000;

const INSPECT: &str = "be inspected";

/// Looks at the history from outside; cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    pool: Pool,
}

/// The state of the history at one moment.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The version of its schema.
    pub schema_version: u32,
    /// The feed it belongs to, with its stored position; `None` before the first one was started.
    pub feed: Option<FeedRecord>,
    /// Bytes on disk, with indexes and out-of-line values.
    pub bytes: u64,
    /// Partitions of `change_history`.
    pub partitions: u32,
    /// Seconds since the oldest partition was made, by the history's clock; `None` without partitions.
    pub oldest_age_seconds: Option<f64>,
    /// The cursor before the first change that is there.
    pub oldest_change: Option<Cursor>,
    /// The cursor before the last change that is there.
    pub newest_change: Option<Cursor>,
    /// What it has beside changes; `None` when its schema is not of this version.
    pub beside: Option<Beside>,
}

/// What a history has beside changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Beside {
    /// Subscriptions of clients of which it is kept what they have acknowledged.
    pub subscriptions: u64,
    /// Tables with last images, as `schema.table`, in this order.
    pub imaged_tables: Vec<String>,
    /// Bytes on disk of all last images, with their index.
    pub image_bytes: u64,
}

impl History {
    /// Over sessions of the history's Postgres.
    #[must_use]
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The clients that have acknowledged something, those that were seen last first; 10,000 at most.
    ///
    /// # Errors
    /// When there is no schema of this version; or when the history's Postgres fails.
    pub async fn clients(&self) -> Result<Vec<KnownClient>, Error> {
        let session = self.pool.get().await.doing(INSPECT)?;
        schema::check(&session).await?;
        KnownClient::all(&session, CLIENTS_MAX).await
    }

    /// How many changes there are, counted up to `most`: costs as much as reading that many.
    ///
    /// # Errors
    /// When there is no schema; or when the history's Postgres fails.
    pub async fn count_changes(&self, most: u64) -> Result<u64, Error> {
        let session = self.pool.get().await.doing(INSPECT)?;
        let sql = "SELECT count(*) FROM (SELECT FROM walcast.change_history LIMIT $1) AS counted";
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let row = session.query_one(sql, &[&most]).await.doing(INSPECT)?;
        Ok(u64::try_from(get::<i64>(&row, 0)?).unwrap_or_default())
    }

    /// Looks at everything once. Takes milliseconds, whatever the size of the history.
    ///
    /// # Errors
    /// [`Error::SchemaMissing`] when there is none; or when the history's Postgres fails.
    pub async fn inspect(&self) -> Result<Inspection, Error> {
        let session = self.pool.get().await.doing(INSPECT)?;
        let schema_version = schema::version(&session).await?.ok_or(Error::SchemaMissing)?;
        let feed = FeedRecord::load_any(&session).await?;
        let sql = "SELECT count(*), coalesce(sum(pg_total_relation_size(p.oid::oid)), 0)::int8,
                          extract(epoch FROM clock_timestamp() - min(r.made_at))::float8
                   FROM walcast.partition AS p LEFT JOIN walcast.partition_record AS r USING (name)";
        let size = session.query_one(sql, &[]).await.doing(INSPECT)?;
        let (partitions, bytes): (i64, i64) = (get(&size, 0)?, get(&size, 1)?);
        let first = "SELECT lsn, seq FROM walcast.change_history ORDER BY lsn, seq LIMIT 1";
        let last = "SELECT lsn, seq FROM walcast.change_history ORDER BY lsn DESC, seq DESC LIMIT 1";
        let cursor = |row: Row| Ok::<_, Error>(Cursor::new(lsn(&row, 0)?, Seq::new(get(&row, 1)?)));
        Ok(Inspection {
            schema_version,
            feed,
            bytes: u64::try_from(bytes).unwrap_or_default(),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            oldest_age_seconds: get(&size, 2)?,
            oldest_change: session.query_opt(first, &[]).await.doing(INSPECT)?.map(cursor).transpose()?,
            newest_change: session.query_opt(last, &[]).await.doing(INSPECT)?.map(cursor).transpose()?,
            beside: if schema_version == schema::LATEST { Some(beside(&session).await?) } else { None },
        })
    }
}

async fn beside(session: &Session) -> Result<Beside, Error> {
    let sql = "SELECT (SELECT count(*) FROM walcast.client),
                      ARRAY(SELECT schema_name || '.' || table_name FROM walcast.imaged_table ORDER BY 1),
                      pg_total_relation_size('walcast.last_image')";
    let row = session.query_one(sql, &[]).await.doing(INSPECT)?;
    let (subscriptions, bytes): (i64, i64) = (get(&row, 0)?, get(&row, 2)?);
    Ok(Beside {
        subscriptions: u64::try_from(subscriptions).unwrap_or_default(),
        imaged_tables: get(&row, 1)?,
        image_bytes: u64::try_from(bytes).unwrap_or_default(),
    })
}
