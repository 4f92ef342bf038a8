//! Changes that are missing from the feed for good, and that nobody can see but who reads its slot.

use std::fmt;

use tokio_postgres::{GenericClient, Row};
use walcast_model::{FeedId, Lsn, Timestamp};
use walcast_postgres::Session;

use crate::column::{get, optional_lsn, optional_timestamp, parameter};
use crate::error::Doing;
use crate::{Error, FeedRecord};

const FORGET: &str =
    "UPDATE walcast.feed SET hole_at = NULL, hole_lsn = NULL, hole_publication = NULL, hole_reason = NULL";

/// A hole that was found in the slot's stream, kept so that all know of it who do not read the slot. Only another feed can
/// go on, so its record goes with the feed's; or with the life of the source that it was found in. The slot is acknowledged
/// up to before it, so who reads that finds it again wherever it is real, also when it was forgotten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hole {
    /// When it was recorded, by the history's clock.
    pub found_at: Timestamp,
    /// Up to here the feed is complete.
    pub complete_to: Lsn,
    /// The publication that was missing when they were written. For who does not read it nothing is missing.
    pub publication: String,
    /// Why, for people: what follows "changes are missing: ".
    pub reason: String,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found_at, complete_to, reason, .. } = self;
        write!(f, "changes after {complete_to} are missing: {reason}; found at {found_at}")
    }
}

impl Hole {
    /// From four columns, of which the first is at `index`.
    pub(crate) fn from_row(row: &Row, index: usize) -> Result<Option<Self>, Error> {
        let Some(found_at) = optional_timestamp(row, index)? else { return Ok(None) };
        Ok(Some(Self {
            found_at,
            complete_to: optional_lsn(row, index + 1)?.unwrap_or_default(),
            publication: get::<Option<String>>(row, index + 2)?.unwrap_or_default(),
            reason: get::<Option<String>>(row, index + 3)?.unwrap_or_default(),
        }))
    }

    /// Forgets what was found in another life of the source than the one that is read now. Where that one left it is not
    /// compared: what is missing was written somewhere after [`complete_to`](Hole::complete_to).
    pub(crate) async fn heal(
        client: &impl GenericClient,
        feed: &FeedId,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = format!("{FORGET} WHERE feed_id = $1");
        client.execute(&sql, &[&feed.as_str()]).await.map(drop)
    }
}

impl FeedRecord {
    /// The hole that keeps the slot from being read with these publications.
    #[must_use]
    pub fn hole_with(&self, publications: &[String]) -> Option<&Hole> {
        self.hole.as_ref().filter(|hole| publications.contains(&hole.publication))
    }

    /// Keeps that changes after `complete_to` are missing. What was kept before of the same publication stays as it is, unless
    /// the feed has come further since.
    /// Returns whether it is kept: it is not for a process that has not claimed the feed as `writer`.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn keep_hole(
        &self,
        session: &Session,
        writer: i64,
        complete_to: Lsn,
        publication: &str,
        reason: &str,
    ) -> Result<bool, Error> {
        const DOING: &str = "record that changes are missing";
        // local: see the crate's documentation. Who asks does not wait for long, and a server that waits for a lock does not
        // notice that he has gone.
        const SETTINGS: &str = "SET synchronous_commit = local; SET lock_timeout = '4s'";
        session.batch_execute(SETTINGS).await.doing(DOING)?;
        let feed = self.id.as_str();
        let sql = "UPDATE walcast.feed SET hole_at = clock_timestamp(), hole_lsn = $3, hole_publication = $4, hole_reason = $5 \
                   WHERE feed_id = $1 AND writer = $2 AND (hole_publication IS DISTINCT FROM $4 OR hole_lsn < $3)";
        session
            .execute(sql, &[&feed, &writer, &parameter(complete_to), &publication, &reason])
            .await
            .doing(DOING)?;
        let sql = "SELECT EXISTS (SELECT FROM walcast.feed WHERE feed_id = $1 AND writer = $2 AND hole_publication = $3)";
        let row = session.query_one(sql, &[&feed, &writer, &publication]).await.doing(DOING)?;
        get(&row, 0)
    }

    /// Forgets this hole, which the slot was read past without finding it again. One that was found after it stays.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn forget_hole(&mut self, session: &Session, hole: &Hole) -> Result<(), Error> {
        let sql = format!("{FORGET} WHERE feed_id = $1 AND hole_lsn = $2 AND hole_publication = $3");
        let (feed, at) = (self.id.as_str(), parameter(hole.complete_to));
        session
            .execute(&sql, &[&feed, &at, &hole.publication])
            .await
            .doing("forget that changes were missing")?;
        self.hole = None;
        Ok(())
    }
}
