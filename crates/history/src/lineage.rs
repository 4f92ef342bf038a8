//! How a feed goes on as another one where the source's own history branched: after a failover or a restore.
//!
//! ```text
//!   feed A ───────────────●──── lost ····      cursors of A up to the branch are good in B, those after it are not
//!                         └──────────── feed B
//! ```

use tokio_postgres::{GenericClient, IsolationLevel};
use walcast_model::{CommitStart, Cursor, FeedId, Lsn, Transaction, Xid};
use walcast_postgres::Session;

use crate::column::{get, lsn, optional_lsn, parameter, timestamp};
use crate::error::Doing;
use crate::feed_record::{COLUMNS, random_id};
use crate::hole::Hole;
use crate::kept::Kept;
use crate::last_image::FORGET_ALL;
use crate::{Error, FeedRecord, Line};

/// Why a feed ended and another one continues it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchReason {
    /// A standby was promoted.
    Promoted,
    /// The server has less WAL than the feed has had of it: it was restored.
    WentBack,
    /// The server sends other transactions than it sent before: it was restored, and has written since.
    Differs,
    /// The server was started again while no walcast watched, which a restore cannot be told from.
    Restarted,
}

impl BranchReason {
    /// Its name, in `walcast.lineage` and as a label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::WentBack => "went_back",
            Self::Differs => "differs",
            Self::Restarted => "restarted",
        }
    }
}

/// Where a feed ends and another one continues it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Branch {
    /// Stored changes at or after it are set aside, and the position goes back to it when it is later.
    pub at: Lsn,
    /// Cursors of the feed, and of those before it, are good up to here.
    pub valid_to: Lsn,
    /// The life of the source that the new feed is read from.
    pub line: Line,
    /// Why.
    pub reason: BranchReason,
}

/// A feed that the present one continues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// Its id.
    pub feed: FeedId,
    /// Its cursors are good up to here.
    pub valid_to: Lsn,
}

impl FeedRecord {
    /// Records that the feed goes on in this life of the source, with all that it has delivered.
    ///
    /// # Errors
    /// When the feed is gone, or the history's Postgres fails.
    pub async fn adopt(&mut self, session: &Session, line: Line) -> Result<(), Error> {
        let sql =
            "UPDATE walcast.feed SET timeline = $2, timeline_began = $3, server_run = $4 WHERE feed_id = $1";
        let (timeline, began) = (number(line.timeline), line.began.map(parameter));
        let updated = session
            .execute(sql, &[&self.id.as_str(), &timeline, &began, &line.server_run])
            .await
            .doing("record the source's life")?;
        if updated == 0 {
            return Err(Error::FeedGone { feed: self.id.clone() });
        }
        self.line = line;
        Ok(())
    }

    /// Ends this feed and continues it under another id: the record of that one, and the number of changes that were
    /// set aside because they lie behind the branch. Nobody may store this feed meanwhile: who does is fenced.
    ///
    /// # Errors
    /// When the feed is gone, or the history's Postgres fails; nothing was changed then.
    pub async fn branch(&self, session: &mut Session, branch: Branch) -> Result<(Self, u64), Error> {
        const DOING: &str = "continue its feed";
        let id = random_id()?;
        let builder =
            session.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
        let transaction = builder.start().await.doing(DOING)?;
        let (at, valid_to) = (parameter(branch.at), parameter(branch.valid_to));
        let (timeline, began) = (number(branch.line.timeline), branch.line.began.map(parameter));
        // First, so that who stores the old feed waits, and then learns that it is gone. Of a server that was only started
        // again it is not known yet whether it lives another life.
        if branch.reason != BranchReason::Restarted {
            Hole::heal(&transaction, &self.id).await.doing(DOING)?;
        }
        // A position inside a transaction is before the branch only when the whole transaction is.
        let moved = format!(
            "UPDATE walcast.feed SET feed_id = $2, timeline = $3, timeline_began = $4, server_run = $5, \
             position_seq = CASE WHEN position_lsn < $6 THEN position_seq ELSE 0 END, \
             position_lsn = least(position_lsn, $6), oldest_lsn = least(oldest_lsn, $6), writer = 0 \
             WHERE feed_id = $1 RETURNING {COLUMNS}"
        );
        let (before, after) = (self.id.as_str(), id.as_str());
        let row = transaction
            .query_opt(&moved, &[&before, &after, &timeline, &began, &branch.line.server_run, &at])
            .await
            .doing(DOING)?;
        let row = row.ok_or_else(|| Error::FeedGone { feed: self.id.clone() })?;
        let columns = "lsn, seq, xid, committed_at, relation, commit_end, op, schema_name, table_name, key, \"row\", old, \
                       unchanged, meta";
        let aside = format!(
            "WITH lost AS (DELETE FROM walcast.change_history WHERE lsn >= $2 RETURNING {columns}) \
             INSERT INTO walcast.lost_change (feed_id, {columns}) SELECT $1, {columns} FROM lost"
        );
        let lost = transaction.execute(&aside, &[&before, &at]).await.doing(DOING)?;
        // An image may be of a change that is lost.
        transaction.batch_execute(FORGET_ALL).await.doing(DOING)?;
        if lost > 0 {
            const LAST: &str = "UPDATE walcast.feed SET (last_lsn, last_seq) = \
                                (SELECT lsn, seq FROM walcast.change_history ORDER BY lsn DESC, seq DESC LIMIT 1)";
            transaction.execute(LAST, &[]).await.doing(DOING)?;
        }
        const NARROW: &str = "UPDATE walcast.lineage SET valid_to = $1 WHERE valid_to > $1";
        transaction.execute(NARROW, &[&valid_to]).await.doing(DOING)?;
        const ADD: &str =
            "INSERT INTO walcast.lineage (feed_id, valid_to, timeline, reason) VALUES ($1, $2, $3, $4)";
        let was = number(self.line.timeline);
        transaction.execute(ADD, &[&before, &valid_to, &was, &branch.reason.as_str()]).await.doing(DOING)?;
        // Their cursors are too old in any feed.
        const PRUNE: &str =
            "DELETE FROM walcast.lineage WHERE valid_to < (SELECT oldest_lsn FROM walcast.feed)";
        transaction.execute(PRUNE, &[]).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        let mut record = Self::from_row(&row)?;
        record.last = record.last.filter(|last| *last < branch.at.into());
        Ok((record, lost))
    }

    /// Makes the cursors of all earlier feeds good up to `valid_to` at most.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn narrow(session: &Session, valid_to: Lsn) -> Result<(), Error> {
        let sql = "UPDATE walcast.lineage SET valid_to = $1 WHERE valid_to > $1";
        session.execute(sql, &[&parameter(valid_to)]).await.doing("narrow its lineage")?;
        Ok(())
    }

    /// The feeds that this one continues, in no order.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn ancestors(session: &Session) -> Result<Vec<Ancestor>, Error> {
        let rows = session.query("SELECT feed_id, valid_to FROM walcast.lineage", &[]).await;
        let ancestor = |row: &tokio_postgres::Row| {
            let feed: String = get(row, 0)?;
            let feed = feed.parse().map_err(|_| Error::Unreadable { what: "feed id", problem: feed })?;
            Ok(Ancestor { feed, valid_to: lsn(row, 1)? })
        };
        rows.doing("read its lineage")?.iter().map(ancestor).collect()
    }

    /// The last `count_max` stored transactions that begin at or after `from` and before `to`, in the order of the feed;
    /// and the oldest position, before which what was stored is not there any more and not listed.
    ///
    /// # Errors
    /// When the feed is gone, or the history's Postgres fails.
    pub async fn transactions(
        &self,
        session: &Session,
        from: Lsn,
        to: Lsn,
        count_max: u32,
    ) -> Result<(Vec<Transaction>, Lsn), Error> {
        let sql = "SELECT lsn, xid, committed_at FROM walcast.change_history \
                   WHERE seq = 0 AND lsn >= $1 AND lsn < $2 ORDER BY lsn DESC LIMIT $3";
        let parameters: [&(dyn postgres_types::ToSql + Sync); 3] =
            [&parameter(from), &parameter(to), &i64::from(count_max)];
        let rows = session.query(sql, &parameters).await.doing("list transactions")?;
        // Only now: what retention drops meanwhile is before what this says.
        let sql = "SELECT oldest_lsn FROM walcast.feed WHERE feed_id = $1";
        let row = session.query_opt(sql, &[&self.id.as_str()]).await.doing("list transactions")?;
        let row = row.ok_or_else(|| Error::FeedGone { feed: self.id.clone() })?;
        let oldest = lsn(&row, 0)?;
        let transaction = |row: &tokio_postgres::Row| {
            let xid = u64::try_from(get::<i64>(row, 1)?).unwrap_or_default();
            Ok(Transaction {
                start: CommitStart::new(lsn(row, 0)?),
                xid: Xid::new(xid),
                committed_at: timestamp(row, 2)?,
            })
        };
        let listed: Result<Vec<_>, Error> = rows.iter().rev().map(transaction).collect();
        let mut listed = listed?;
        listed.retain(|transaction| transaction.start.lsn() >= oldest);
        Ok((listed, oldest))
    }

    /// Where the first stored transaction begins that lies at or after `from` and was committed when the server had been
    /// started at `server_run` or later.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn first_of_run(session: &Session, from: Lsn, server_run: i64) -> Result<Option<Lsn>, Error> {
        let sql = "SELECT min(lsn) FROM walcast.change_history \
                   WHERE lsn >= $1 AND committed_at >= timestamptz 'epoch' + $2 * interval '1 microsecond'";
        let since = server_run as f64;
        let row = session.query_one(sql, &[&parameter(from), &since]).await.doing("find a server's start")?;
        optional_lsn(&row, 0)
    }

    /// Whether the last change that was stored is there and every partition that was made, unless retention dropped them:
    /// `false` after somebody deleted the newest rows or dropped a partition.
    ///
    /// # Errors
    /// When the feed is gone, or the history's Postgres fails.
    pub async fn is_whole(&self, session: &Session) -> Result<bool, Error> {
        Ok(self.kept(&**session, "look for what is missing").await?.is_whole())
    }

    async fn kept(&self, client: &impl GenericClient, doing: &'static str) -> Result<Kept, Error> {
        let kept = Kept::load(client, doing).await?.filter(|kept| kept.feed == self.id);
        kept.ok_or_else(|| Error::FeedGone { feed: self.id.clone() })
    }

    /// Gives up what is stored before something that is missing: no cursor of a client is served any more that lacks any of
    /// it. Where the last change is missing, that is all there is, and a transaction that was being stored is read again
    /// as a whole.
    ///
    /// # Errors
    /// When the feed is gone, or the history's Postgres fails.
    pub async fn forget_past(&mut self, session: &mut Session) -> Result<(), Error> {
        const DOING: &str = "give up what is stored";
        let builder =
            session.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
        let transaction = builder.start().await.doing(DOING)?;
        // Nothing is stored meanwhile.
        let sql = "SELECT FROM walcast.feed WHERE feed_id = $1 AND position_lsn = $2 FOR UPDATE";
        let found = transaction.query_opt(sql, &[&self.id.as_str(), &parameter(self.position.lsn())]).await;
        found.doing(DOING)?.ok_or_else(|| Error::FeedGone { feed: self.id.clone() })?;
        let kept = self.kept(&transaction, DOING).await?;
        const OLDEST: &str = "UPDATE walcast.feed SET oldest_lsn = $1";
        transaction.execute(OLDEST, &[&parameter(kept.from.lsn())]).await.doing(DOING)?;
        const RECORDS: &str = "DELETE FROM walcast.partition_record AS r \
                               WHERE NOT EXISTS (SELECT FROM walcast.partition AS p WHERE p.name = r.name)";
        transaction.execute(RECORDS, &[]).await.doing(DOING)?;
        if kept.has_last {
            transaction.commit().await.doing(DOING)?;
            self.oldest = kept.from;
            return Ok(());
        }
        let position = Cursor::from(self.position.lsn());
        const LAST: &str = "UPDATE walcast.feed SET position_seq = 0, last_lsn = NULL, last_seq = NULL";
        transaction.execute(LAST, &[]).await.doing(DOING)?;
        let sql = "DELETE FROM walcast.change_history WHERE lsn >= $1";
        transaction.execute(sql, &[&parameter(position.lsn())]).await.doing(DOING)?;
        // One may be of a change that is read again.
        transaction.batch_execute(FORGET_ALL).await.doing(DOING)?;
        transaction.commit().await.doing(DOING)?;
        (self.position, self.oldest, self.last) = (position, kept.from, None);
        Ok(())
    }
}

fn number(timeline: u64) -> i64 {
    i64::try_from(timeline).unwrap_or(i64::MAX)
}
