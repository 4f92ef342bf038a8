//! Reading the history from any cursor.

mod assembly;
mod definitions;
mod latest;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt;
use metrics::counter;
use postgres_types::{ToSql, Type};
use tokio_postgres::{Client, Row};
use walcast_model::{Cursor, FeedId, Part, Relation, RelationDigest, Snapshot, Xid};
use walcast_postgres::{ErrorClass, Pool, PooledSession};

use crate::column::{get, optional_lsn, parameter};
use crate::error::Doing;
use crate::kept::Kept;
use crate::metrics as names;
use crate::{Error, stored_relation};
use assembly::Assembly;
pub use definitions::Without;
pub use latest::LatestPage;

const READ: &str = "be read";

/// The bounds of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Bytes of key, row and old row (and 64 for each change) after which no further change is taken. A page of any
    /// other size than this holds at least one change, of any size.
    pub bytes_max: usize,
    /// Changes in a page; 0 counts as 1.
    pub changes_max: usize,
    /// A part of a transaction is closed when it has this many bytes of JSON and another change follows.
    pub part_bytes_max: usize,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { bytes_max: 1 << 20, changes_max: 10_000, part_bytes_max: 1 << 20 }
    }
}

/// What lies between two cursors, as far as it fits.
#[derive(Debug)]
pub struct Page {
    /// In order; empty when no change is in the range. The first begins at or after the cursor that was asked for,
    /// the last may end inside its transaction.
    pub parts: Vec<Part>,
    /// Where to read next; the end of the range when nothing more is in it.
    pub next: Cursor,
}

/// Reads the history; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pool: Pool,
    feed: FeedId,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Locked for single look-ups and insertions. Grows with the number of definitions that tables ever had.
    relations: Mutex<HashMap<RelationDigest, Arc<Relation>>>,
    /// Bytes of a change as of late, to ask for as many as will fit.
    change_bytes: AtomicU64,
    /// Up to where it was said last that something is missing.
    missing_told: AtomicU64,
}

impl Shared {
    fn relations(&self) -> MutexGuard<'_, HashMap<RelationDigest, Arc<Relation>>> {
        self.relations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// A reader of this feed, over sessions of the history's Postgres. A page uses one of them.
    #[must_use]
    pub fn new(pool: Pool, feed: FeedId) -> Self {
        let shared = Shared {
            relations: Mutex::default(),
            change_bytes: AtomicU64::new(256),
            missing_told: AtomicU64::new(0),
        };
        Self { pool, feed, shared: Arc::new(shared) }
    }

    async fn session(&self) -> Result<PooledSession, Error> {
        self.pool.get().await.doing(READ)
    }

    /// Reads what is at or after `from` and before `to`, as much as fits into one page. `to` must have been stored
    /// before ([`walcast_feed::Feed::stored`]): then there is no hole. Memory: the page, plus one change.
    ///
    /// Neither whose rows these are is looked at nor whether all are there: [`Reader::oldest`], afterwards, says so.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Hole`] when a part of a transaction is missing; or when the history's Postgres fails.
    pub async fn read(&self, from: Cursor, to: Cursor, limits: PageLimits) -> Result<Page, Error> {
        if from >= to {
            return Ok(Page { parts: Vec::new(), next: to });
        }
        counter!(names::PAGES).increment(1);
        let session = self.session().await?;
        let changes_max = self.changes_to_ask_for(limits);
        let bytes_max = i64::try_from(limits.bytes_max).unwrap_or(i64::MAX).max(1);
        let sql = "SELECT lsn, seq, xid, committed_at, relation, commit_end, op, key, \"row\", old, unchanged, meta, \
                   bytes_through FROM walcast.page($1, $2, $3, $4, $5, $6)";
        let (from_lsn, from_seq) = (parameter(from.lsn()), from.seq().get());
        let (to_lsn, to_seq) = (parameter(to.lsn()), to.seq().get());
        let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
            (&from_lsn, Type::PG_LSN),
            (&from_seq, Type::INT8),
            (&to_lsn, Type::PG_LSN),
            (&to_seq, Type::INT8),
            (&changes_max, Type::INT8),
            (&bytes_max, Type::INT8),
        ];
        let mut rows = pin!(session.query_typed_raw(sql, parameters).await.doing(READ)?);
        let mut assembly = Assembly::new(from, limits.part_bytes_max);
        // Rows from the first one on whose definition is yet to be fetched: the session is busy until the last row.
        let mut waiting: Vec<Row> = Vec::new();
        let (mut count, mut bytes) = (0_i64, 0_i64);
        while let Some(row) = rows.try_next().await.doing(READ)? {
            count += 1;
            bytes = get(&row, 12)?;
            let digest = RelationDigest::new(get(&row, 4)?);
            let relation =
                if waiting.is_empty() { self.shared.relations().get(&digest).cloned() } else { None };
            match relation {
                Some(relation) => assembly.push(&row, &relation)?,
                None => waiting.push(row),
            }
        }
        self.fetch_relations(&session, &waiting).await?;
        for row in waiting {
            let digest = RelationDigest::new(get(&row, 4)?);
            let relation = self.shared.relations().get(&digest).cloned();
            assembly.push(&row, &relation.ok_or_else(|| no_definition(digest))?)?;
        }
        if count > 0 {
            let average = u64::try_from(bytes / count).unwrap_or(1).max(1);
            self.shared.change_bytes.store(average, Ordering::Relaxed);
        }
        let is_exhausted = count < changes_max && bytes < bytes_max;
        assembly.finish(is_exhausted.then_some(to))
    }

    /// As [`Reader::read`], for callers that have not made sure that retention keeps `from`: a page that lacks what was
    /// dropped, before it was read or while it was, is an error.
    ///
    /// # Errors
    /// [`Error::TooOld`] when history does not reach back to `from`; otherwise those of [`Reader::read`] and
    /// [`Reader::oldest`].
    pub async fn read_kept(&self, from: Cursor, to: Cursor, limits: PageLimits) -> Result<Page, Error> {
        let page = self.read(from, to, limits).await;
        if page.as_ref().is_err_and(|error| error.class() == ErrorClass::Transient) {
            return page;
        }
        // After the page: what was dropped while it was read is known by now.
        let oldest = self.oldest().await?;
        if from < oldest { Err(Error::TooOld { cursor: from, oldest }) } else { page }
    }

    /// As many changes as should fill the page, and a few more; a page that turns out short is only that.
    fn changes_to_ask_for(&self, limits: PageLimits) -> i64 {
        let average = self.shared.change_bytes.load(Ordering::Relaxed).max(1);
        let fit = limits.bytes_max as u64 / average;
        let ask = (fit + fit / 4 + 16).min(limits.changes_max.max(1) as u64);
        i64::try_from(ask).unwrap_or(i64::MAX)
    }

    async fn fetch_relations(&self, session: &PooledSession, rows: &[Row]) -> Result<(), Error> {
        let digests: Vec<i64> = rows.iter().map(|row| get(row, 4)).collect::<Result<_, _>>()?;
        self.fetch_definitions(session, &digests).await
    }

    /// Has the definitions with these digests known, as far as they are there.
    async fn fetch_definitions(&self, session: &PooledSession, digests: &[i64]) -> Result<(), Error> {
        let mut missing: Vec<i64> = {
            let known = self.shared.relations();
            let is_missing = |digest: &i64| !known.contains_key(&RelationDigest::new(*digest));
            digests.iter().copied().filter(is_missing).collect()
        };
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let sql = "SELECT digest, oid, schema_name, table_name, definition FROM walcast.relation WHERE digest = ANY($1)";
        for row in session.query_typed(sql, &[(&missing, Type::INT8_ARRAY)]).await.doing(READ)? {
            let relation =
                stored_relation::relation(get(&row, 1)?, get(&row, 2)?, get(&row, 3)?, get(&row, 4)?)?;
            self.shared.relations().insert(RelationDigest::new(get(&row, 0)?), Arc::new(relation));
        }
        Ok(())
    }

    /// The definition with this digest; `None` when the history never had a change of it.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn relation(&self, digest: RelationDigest) -> Result<Option<Arc<Relation>>, Error> {
        if let Some(known) = self.shared.relations().get(&digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let session = self.session().await?;
        let sql = "SELECT oid, schema_name, table_name, definition FROM walcast.relation WHERE digest = $1";
        let rows = session.query_typed(sql, &[(&digest.get(), Type::INT8)]).await.doing(READ)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let relation = stored_relation::relation(get(row, 0)?, get(row, 1)?, get(row, 2)?, get(row, 3)?)?;
        let relation = Arc::new(relation);
        self.shared.relations().insert(digest, Arc::clone(&relation));
        Ok(Some(relation))
    }

    /// The oldest cursor that can be served: where the feed began, or what retention has kept begins, or what is behind
    /// everything that was taken from the history by hand. The latter is also said in the log, once.
    ///
    /// # Errors
    /// [`Error::FeedGone`] when the history has another feed by now, or none; or when its Postgres fails.
    pub async fn oldest(&self) -> Result<Cursor, Error> {
        let session = self.session().await?;
        Ok(self.kept(&session).await?.from)
    }

    /// On a session that its caller has: whoever holds one must not wait for another.
    async fn kept(&self, session: &Client) -> Result<Kept, Error> {
        let kept = Kept::load(session, READ).await?.filter(|kept| kept.feed == self.feed);
        let kept = kept.ok_or_else(|| Error::FeedGone { feed: self.feed.clone() })?;
        if !kept.is_whole()
            && self.shared.missing_told.swap(kept.from.lsn().get(), Ordering::Relaxed)
                != kept.from.lsn().get()
        {
            tracing::error!(
                oldest = %kept.recorded,
                kept = %kept.from,
                "rows of change_history are missing that were stored: they were deleted, or a partition was dropped by hand; \
                 clients that lack any of them get cursor_too_old"
            );
        }
        Ok(kept)
    }

    /// The first stored transaction before `before` that a snapshot of the source does not see; `None` when it sees
    /// them all. `before` must have been stored before.
    ///
    /// An initial sync starts its stream there (reference, section 4, step 4).
    ///
    /// # Errors
    /// [`Error::SnapshotTooOld`] when such a transaction may be gone; otherwise those of [`Reader::oldest`].
    pub async fn first_invisible(
        &self,
        snapshot: &Snapshot,
        before: Cursor,
    ) -> Result<Option<Cursor>, Error> {
        let session = self.session().await?;
        let sql = "SELECT walcast.first_invisible($1::text::pg_snapshot, $2, $3)";
        let (text, position, seq) = (snapshot.to_string(), parameter(before.lsn()), before.seq().get());
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&text, Type::TEXT), (&position, Type::PG_LSN), (&seq, Type::INT8)];
        let rows = session.query_typed(sql, &parameters).await.doing("be searched by transaction id")?;
        let first = rows.first().map(|row| optional_lsn(row, 0)).transpose()?;
        // After the search, so that what was dropped before it is known.
        let dropped = "SELECT dropped_xid, dropped_snapshot FROM walcast.feed WHERE dropped_xid IS NOT NULL";
        let dropped = session.query_typed(dropped, &[]).await.doing("be searched by transaction id")?;
        match dropped.first() {
            Some(row) if !sees_dropped(snapshot, get(row, 0)?, get(row, 1)?) => {
                Err(Error::SnapshotTooOld { snapshot: text })
            }
            // By whom they were seen is not known.
            _ if !self.kept(&session).await?.is_whole() => Err(Error::SnapshotTooOld { snapshot: text }),
            _ => Ok(first.flatten().map(Cursor::from)),
        }
    }
}

/// Whether a snapshot of the source certainly sees all that retention has dropped: nothing in it has an `xid` that was
/// still open, or all of it is seen by a snapshot that sees no more than this one.
fn sees_dropped(snapshot: &Snapshot, xid: i64, seen_by: Option<&str>) -> bool {
    Xid::new(xid.cast_unsigned()) < snapshot.xmin()
        || seen_by.and_then(|text| text.parse().ok()).is_some_and(|seen_by| snapshot.includes(&seen_by))
}

fn no_definition(digest: RelationDigest) -> Error {
    Error::Unreadable { what: "table definition", problem: format!("{} is missing", digest.get()) }
}
