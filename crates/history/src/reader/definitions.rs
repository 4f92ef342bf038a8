//! Which definitions the changes in the history came with, and from where on none comes with some of them.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use postgres_types::{PgLsn, ToSql};
use tokio::time::Instant;
use tokio_postgres::Transaction;
use walcast_model::{CommitEnd, Cursor, Lsn, Relation, RelationDigest, Seq};

use super::Reader;
use crate::Error;
use crate::column::{get, lsn, optional_lsn, parameter};
use crate::error::Doing;
use crate::metrics as names;

/// How long it is searched for.
const SEARCH_MAX: Duration = Duration::from_secs(3);
/// `query_canceled`: by `statement_timeout`.
const CANCELED_SQLSTATE: &str = "57014";

const SEARCH: &str = "be searched by definition";

/// From where on no change came with some definitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    /// From here on, and from nowhere before it.
    From(Cursor),
    /// From here on; before it was not searched to the end.
    GivenUp(Cursor),
}

impl Without {
    /// Where none came from there on.
    #[must_use]
    pub const fn cursor(self) -> Cursor {
        let (Self::From(cursor) | Self::GivenUp(cursor)) = self;
        cursor
    }
}

impl Reader {
    /// The definitions that changes in the history came with; there may be some among them of which no change is left.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn definitions(&self) -> Result<Vec<Arc<Relation>>, Error> {
        let session = self.session().await?;
        let rows = session.query("SELECT digest FROM walcast.relation", &[]).await.doing(SEARCH)?;
        let digests: Vec<i64> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        self.fetch_definitions(&session, &digests).await?;
        let known = self.shared.relations();
        let digests = digests.into_iter().map(RelationDigest::new);
        // One that retention has deleted meanwhile is none of a change that is there.
        Ok(digests.filter_map(|digest| known.get(&digest).cloned()).collect())
    }

    /// From where on, between `from` and `to`, no change came with one of these definitions: after the last transaction
    /// that has one, or `from` when none has. What takes too long to search (3 s) is [given up](Without::GivenUp), as if its last
    /// change were one: the answer may be later than it had to be, and never too early. `to` must have been stored before.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn first_without(
        &self,
        definitions: &[RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> Result<Without, Error> {
        if definitions.is_empty() || from >= to {
            return Ok(Without::From(from));
        }
        let digests: Vec<i64> = definitions.iter().map(|digest| digest.get()).collect();
        let mut session = self.session().await?;
        let transaction = session.transaction().await.doing(SEARCH)?;
        // Everything before it is yet to be searched.
        let mut left = to;
        let searched = search(&transaction, &digests, (from, to), &mut left).await;
        if !matches!(&searched, Err(error) if error.sqlstate() == Some(CANCELED_SQLSTATE)) {
            let result = if searched.is_ok() { "done" } else { "failed" };
            counter!(names::SEARCHES, "result" => result).increment(1);
            let found = searched?;
            transaction.rollback().await.doing(SEARCH)?;
            return Ok(Without::From(found.unwrap_or(from)));
        }
        counter!(names::SEARCHES, "result" => "given_up").increment(1);
        tracing::warn!(
            before = %left, seconds = SEARCH_MAX.as_secs(),
            "change_history takes too long to search: a client is told a later position than the first one that it could have"
        );
        Ok(Without::GivenUp(left.max(from)))
    }
}

/// Searches the partitions that can have one of these definitions, from the newest on.
async fn search(
    transaction: &Transaction<'_>,
    digests: &[i64],
    (from, to): (Cursor, Cursor),
    left: &mut Cursor,
) -> Result<Option<Cursor>, Error> {
    let until = Instant::now() + SEARCH_MAX;
    // From the end of a partition backwards, by its key: most often it was lately that a table was altered. A plan that
    // sorts would read all of it.
    let settings = format!(
        "SET LOCAL statement_timeout = {}; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; \
         SET LOCAL enable_sort = off; SET LOCAL jit = off",
        SEARCH_MAX.as_millis()
    );
    transaction.batch_execute(&settings).await.doing(SEARCH)?;
    // Partitions whose definitions were not noted may have any.
    let sql = "SELECT p.lower_lsn, p.upper_lsn FROM walcast.partition AS p \
               LEFT JOIN walcast.partition_record AS r USING (name) \
               WHERE p.upper_lsn > $1 AND p.lower_lsn <= $2 \
               AND (r.names_relations IS NOT TRUE OR EXISTS (SELECT FROM walcast.partition_relation AS used \
                    WHERE used.partition = p.name AND used.digest = ANY($3))) \
               ORDER BY p.lower_lsn DESC";
    let parameters: [&(dyn ToSql + Sync); 3] = [&parameter(from.lsn()), &parameter(to.lsn()), &digests];
    for row in transaction.query(sql, &parameters).await.doing(SEARCH)? {
        let bounds = (lsn(&row, 0)?, lsn(&row, 1)?);
        *left = to.min(bounds.1.into());
        let for_ms = until.saturating_duration_since(Instant::now()).as_millis().max(1);
        let limit = format!("SET LOCAL statement_timeout = {for_ms}");
        transaction.batch_execute(&limit).await.doing(SEARCH)?;
        if let Some(found) = last(transaction, digests, (from, to), bounds).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// After the last transaction of a partition that has a change with one of these definitions.
async fn last(
    transaction: &Transaction<'_>,
    digests: &[i64],
    (from, to): (Cursor, Cursor),
    (lower, upper): (Lsn, Lsn),
) -> Result<Option<Cursor>, Error> {
    let sql = "SELECT h.lsn, h.seq, (SELECT e.commit_end FROM walcast.change_history AS e WHERE e.lsn = h.lsn \
                                     ORDER BY e.lsn DESC, e.seq DESC LIMIT 1) \
               FROM walcast.change_history AS h \
               WHERE h.relation = ANY($1) AND h.lsn >= $2 AND h.lsn < $3 \
               AND (h.lsn, h.seq) >= ($4, $5) AND (h.lsn, h.seq) < ($6, $7) \
               ORDER BY h.lsn DESC, h.seq DESC LIMIT 1";
    let position = |cursor: Cursor| (parameter(cursor.lsn()), cursor.seq().get());
    let ((from_lsn, from_seq), (to_lsn, to_seq)) = (position(from), position(to));
    let bounds: (PgLsn, PgLsn) = (parameter(lower), parameter(upper));
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&digests, &bounds.0, &bounds.1, &from_lsn, &from_seq, &to_lsn, &to_seq];
    let Some(row) = transaction.query_opt(sql, &parameters).await.doing(SEARCH)? else { return Ok(None) };
    let (at, seq) = (lsn(&row, 0)?, Seq::new(get(&row, 1)?));
    // The end of a transaction that is still being stored is not known.
    let end = optional_lsn(&row, 2)?.map(|end| Cursor::after(CommitEnd::new(end)));
    Ok(Some(end.unwrap_or_else(|| Cursor::new(at, seq.plus(1)))))
}
