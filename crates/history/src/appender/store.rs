//! One SQL session of the appender: how a batch becomes a commit.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::join;
use tokio_postgres::Statement;
use walcast_model::{Change, Cursor, FeedId, Lsn, Part, Relation, RelationDigest, Seq};
use walcast_postgres::{ConnectionConfig, Session};

use super::partition::{Partition, PartitionRule};
use crate::column::{get, lsn, parameter};
use crate::copy::{COPY, Encoder};
use crate::error::Doing;
use crate::last_image::{Fold, ImageWriter};
use crate::{Error, FeedRecord, schema, stored_relation};

/// Bytes of JSON after which the index by transaction id is brought up to date.
const SUMMARIZE_BYTES: usize = 64 << 20;

const STORE: &str = "store changes";

/// What is written in one commit.
pub(super) struct Batch {
    /// In the order of the feed.
    pub(super) parts: Vec<Arc<Part>>,
    /// Where the history stands; changes before it are skipped.
    pub(super) from: Cursor,
    /// Where it stands afterwards.
    pub(super) to: Cursor,
}

impl Batch {
    /// The last change that is written.
    fn last(&self) -> Option<Cursor> {
        let part = self.parts.last()?;
        let last = part.changes().len().checked_sub(1)?;
        let cursor = Cursor::new(part.transaction().start.lsn(), part.first().plus(last));
        (cursor >= self.from).then_some(cursor)
    }

    /// The changes to write, with what precedes `from` left out.
    fn changes(&self) -> impl Iterator<Item = (&Part, &Change, Seq)> {
        self.parts.iter().flat_map(move |part| {
            let start = part.transaction().start.lsn();
            let numbered = part.changes().iter().enumerate();
            numbered.filter_map(move |(index, change)| {
                let seq = part.first().plus(index);
                (Cursor::new(start, seq) >= self.from).then_some((part.as_ref(), change, seq))
            })
        })
    }
}

pub(super) struct Store {
    pub(super) session: Session,
    pub(super) feed: FeedId,
    pub(super) writer: i64,
    copy: Statement,
    pub(super) rule: PartitionRule,
    /// The partition that was written last; positions only grow, so it is all that has to be known.
    pub(super) partition: Option<Partition>,
    /// Definitions that are surely stored for this partition.
    pub(super) relations: HashSet<RelationDigest>,
    pub(super) images: ImageWriter,
    unsummarized_bytes: usize,
}

impl Store {
    /// `writer` is what this process is known by in `walcast.feed`.
    pub(super) async fn connect(
        config: &ConnectionConfig,
        feed: &FeedId,
        writer: i64,
        rule: PartitionRule,
    ) -> Result<Self, Error> {
        const DOING: &str = "be connected to";
        let session = Session::connect(config, "walcast history").await.doing(DOING)?;
        // local: see the crate's documentation. The keepalives end a transaction whose writer's machine is gone, so
        // that its successor does not wait for hours.
        let settings = "SET synchronous_commit = local; SET jit = off; SET tcp_keepalives_idle = 30; \
                        SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";
        session.batch_execute(settings).await.doing(DOING)?;
        schema::check(&session).await?;
        let copy = session.prepare(COPY).await.doing(DOING)?;
        let images = ImageWriter::load(&session).await?;
        Ok(Self {
            session,
            feed: feed.clone(),
            writer,
            copy,
            rule,
            partition: None,
            relations: HashSet::new(),
            images,
            unsummarized_bytes: 0,
        })
    }

    /// Makes this process the one that stores the feed, if the record is still as `found` says: then nothing that
    /// another process has on its way to the history can be stored any more, and before that it is waited for. To be
    /// called by who has the slot. Claiming again what this process has claimed does nothing.
    ///
    /// # Errors
    /// [`Error::MovedOn`] when another process has moved the position since, or has claimed the feed.
    pub(super) async fn claim(&self, found: &FeedRecord) -> Result<(), Error> {
        let sql = "UPDATE walcast.feed SET writer = $1 \
                   WHERE feed_id = $2 AND writer IN ($1, $3) AND position_lsn = $4 AND position_seq = $5";
        let (feed, expected) = (found.id.as_str(), found.position);
        let (at, seq) = (parameter(expected.lsn()), expected.seq().get());
        let claimed = self.session.execute(sql, &[&self.writer, &feed, &found.writer, &at, &seq]).await;
        if claimed.doing("claim its feed")? == 0 {
            // Without a record it says that there is none.
            let (now, _) = self.position().await?;
            return Err(Error::MovedOn { feed: self.feed.clone(), expected, found: now });
        }
        Ok(())
    }

    /// Where the history stands, and whether it is this process that has claimed the feed.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is not whole, and this process is to do something about it.
    pub(super) async fn position(&self) -> Result<(Cursor, bool), Error> {
        let sql = "SELECT f.position_lsn, f.position_seq, f.writer, k.has_last AND k.kept_lsn <= k.oldest_lsn \
                   FROM walcast.feed AS f, walcast.kept() AS k WHERE f.feed_id = $1";
        let row = self.session.query_opt(sql, &[&self.feed.as_str()]).await.doing("read its position")?;
        let row = row.ok_or_else(|| Error::FeedGone { feed: self.feed.clone() })?;
        let writer: i64 = get(&row, 2)?;
        if writer == self.writer && !get::<bool>(&row, 3)? {
            return Err(Error::Missing { feed: self.feed.clone() });
        }
        Ok((Cursor::new(lsn(&row, 0)?, Seq::new(get(&row, 1)?)), writer == self.writer))
    }

    /// Waits until the connection is over.
    pub(super) fn closed(&self) -> impl Future<Output = Error> + Send + 'static {
        let closed = self.session.closed();
        async move {
            let reason = closed.await.map(|reason| reason.to_string());
            let source = match reason {
                Some(reason) => walcast_postgres::Error::from(std::io::Error::other(reason)),
                None => walcast_postgres::Error::Closed,
            };
            Error::Postgres { doing: "keep its connection", source }
        }
    }

    /// Moves the position without a change; durable when it returns.
    pub(super) async fn advance(&self, from: Cursor, to: Cursor) -> Result<(), Error> {
        self.session.batch_execute(&self.advance_sql(from, to, None)).await.doing("store its position")
    }

    /// `last` is the last change that is stored with it.
    fn advance_sql(&self, from: Cursor, to: Cursor, last: Option<Cursor>) -> String {
        let last = last.map(|last| format!(", '{}', {}", last.lsn(), last.seq())).unwrap_or_default();
        // A feed id is plain letters, digits, '_' and '-'.
        format!(
            "SELECT walcast.advance('{}', {}, '{}', {}, '{}', {}{last})",
            self.feed,
            self.writer,
            from.lsn(),
            from.seq(),
            to.lsn(),
            to.seq()
        )
    }

    /// Writes a batch and moves the position, in one commit; durable when it returns. Returns the number of changes.
    ///
    /// When it fails, whether the commit happened is unknown, and this store is not to be used again. Dropping the
    /// future has the same effect.
    pub(super) async fn write(&mut self, batch: &Batch) -> Result<u64, Error> {
        self.prepare(batch).await?;
        // Two round trips: everything up to the server's readiness for data, then data and commit. The position is
        // moved first, so that a fenced writer learns it before it has written (and collided on) anything; and the
        // lock on its row makes a second writer wait for the outcome of the first. Should BEGIN or the move fail,
        // the server refuses the COPY; should the COPY fail, COMMIT rolls back.
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}",
            self.advance_sql(batch.from, batch.to, batch.last())
        );
        let (begun, sink) = join(self.session.batch_execute(&begin), self.session.copy_in(&self.copy)).await;
        begun.doing(STORE)?;
        let mut sink = pin!(sink.doing(STORE)?);
        let mut encoder = Encoder::new();
        let mut images = Fold::default();
        for (part, change, seq) in batch.changes() {
            if change.image.is_some() || !self.images.is_empty() || !images.is_empty() {
                images.add(&self.images, part, change, Cursor::new(part.transaction().start.lsn(), seq));
            }
            let is_last = seq.plus(1) == part.first().plus(part.changes().len());
            encoder.change(part, change, seq, part.end().filter(|_| is_last));
            while let Some(chunk) = encoder.next_chunk() {
                SinkExt::<Bytes>::feed(&mut sink, chunk).await.doing(STORE)?;
            }
        }
        encoder.finish();
        while let Some(chunk) = encoder.next_chunk() {
            SinkExt::<Bytes>::feed(&mut sink, chunk).await.doing(STORE)?;
        }
        let stored = if images.is_empty() {
            let (stored, committed) =
                join(sink.as_mut().finish(), self.session.batch_execute("COMMIT")).await;
            let stored = stored.doing(STORE)?;
            committed.doing(STORE)?;
            stored
        } else {
            let stored = sink.as_mut().finish().await.doing(STORE)?;
            self.images.write(&self.session, &images).await?;
            self.session.batch_execute("COMMIT").await.doing(STORE)?;
            stored
        };
        self.unsummarized_bytes += batch.parts.iter().map(|part| part.json().len()).sum::<usize>();
        Ok(stored)
    }

    /// Has the partitions that the batch needs, and in each the definitions that its changes refer to, ahead of it: one
    /// too many does no harm.
    async fn prepare(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut last: Option<&Arc<Relation>> = None;
        for part in &batch.parts {
            let at = part.transaction().start.lsn();
            if self.ensure_partition(batch.from, at).await? {
                last = None;
            }
            for change in part.changes() {
                let relation = &change.relation;
                if last.is_some_and(|last| Arc::ptr_eq(last, relation)) {
                    continue;
                }
                last = Some(relation);
                if !self.relations.contains(&relation.digest()) {
                    self.store_relation(relation, at).await?;
                    self.relations.insert(relation.digest());
                }
            }
        }
        Ok(())
    }

    async fn store_relation(&self, relation: &Relation, first: Lsn) -> Result<(), Error> {
        let Some(partition) = &self.partition else { return Ok(()) };
        let (digest, oid, name) = (relation.digest().get(), relation.oid().get(), relation.name());
        let definition = stored_relation::definition(relation)?;
        let sql = "SELECT walcast.store_relation($1, $2, $3, $4, $5, $6, $7)";
        self.session
            .execute(
                sql,
                &[&partition.name, &digest, &oid, &name.schema, &name.table, &definition, &parameter(first)],
            )
            .await
            .doing("store a table's definition")?;
        Ok(())
    }

    /// Brings the index by transaction id up to date when enough was written since. It is an aid to new clients'
    /// initial sync and nothing depends on it, so a failure is no more than noted.
    pub(super) async fn summarize_when_due(&mut self) {
        if self.unsummarized_bytes >= SUMMARIZE_BYTES {
            self.summarize().await;
        }
    }

    pub(super) async fn summarize(&mut self) {
        let Some(partition) = &self.partition else { return };
        self.unsummarized_bytes = 0;
        // A vacuum of the partition holds the same lock, for long: it does the same work.
        let sql = format!(
            "BEGIN; SET LOCAL lock_timeout = '100ms'; SELECT walcast.summarize('walcast.{}'); COMMIT",
            partition.name
        );
        if let Err(error) = self.session.batch_execute(&sql).await {
            tracing::debug!(%error, partition = partition.name, "index by transaction id not summarized");
            // After a failure inside, the transaction is still open.
            let _ = self.session.batch_execute("ROLLBACK").await;
        }
    }
}
