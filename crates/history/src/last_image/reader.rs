//! Looking images up.

use bytes::Bytes;
use walcast_model::last_image::{Storage, StorageId};
use walcast_model::{Cursor, Oid, RelationDigest, Seq};
use walcast_postgres::{Pool, PooledSession};

use crate::Error;
use crate::column::{Raw, get, lsn, optional_lsn};
use crate::error::Doing;

/// Bytes of rows in one answer, the first row apart.
const FOUND_BYTES_MAX: i64 = 8 << 20;

const DOING: &str = "look up last images";

/// A row whose image is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedImage {
    /// The table.
    pub relation: Oid,
    /// Its definition.
    pub digest: RelationDigest,
    /// Its storage.
    pub storage: StorageId,
    /// The row's key, as JSON.
    pub key: Bytes,
}

/// Reads last images.
#[derive(Debug, Clone)]
pub struct ImageReader {
    pool: Pool,
}

impl ImageReader {
    /// One that uses these sessions.
    #[must_use]
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The position of the feed, `at_least` this one, and the images of the first of `wanted` as of that: at least of one,
    /// and further ones while they are not too large together. `None` for a row without an image of this definition and
    /// storage.
    ///
    /// # Errors
    /// When the history's Postgres fails, or is at an earlier position: it is then another one, as the primary before a
    /// failover, and the session to it is closed.
    pub async fn find(
        &self,
        wanted: &[WantedImage],
        at_least: Cursor,
    ) -> Result<(Cursor, Vec<Option<Bytes>>), Error> {
        // One statement, one snapshot. octet_length() does not fetch what is stored out of line.
        let sql = "WITH found AS ( \
                SELECT w.place, i.\"row\" AS image, sum(octet_length(i.\"row\")) OVER ( \
                    ORDER BY w.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
                FROM unnest($1::oid[], $2::int8[], $3::int8[], $4::text[]) WITH ORDINALITY \
                    AS w (relation, digest, storage, key, place) \
                LEFT JOIN (walcast.imaged_table AS t JOIN walcast.last_image AS i USING (relation)) \
                    ON t.relation = w.relation AND t.digest = w.digest AND t.storage = w.storage AND i.key = w.key) \
            SELECT f.position_lsn, f.position_seq, found.image FROM walcast.feed AS f, found \
            WHERE coalesce(found.before, 0) < $5 ORDER BY found.place";
        let relations: Vec<u32> = wanted.iter().map(|wanted| wanted.relation.get()).collect();
        let digests: Vec<i64> = wanted.iter().map(|wanted| wanted.digest.get()).collect();
        let storages: Vec<i64> = wanted.iter().map(|wanted| wanted.storage.get()).collect();
        let keys: Vec<&str> =
            wanted.iter().map(|wanted| std::str::from_utf8(&wanted.key).unwrap_or_default()).collect();
        let session = self.pool.get().await.doing(DOING)?;
        let rows = session
            .query(sql, &[&relations, &digests, &storages, &keys, &FOUND_BYTES_MAX])
            .await
            .doing(DOING)?;
        let mut images = Vec::with_capacity(rows.len());
        let mut at = None;
        for row in &rows {
            at = Some(position(row)?);
            images.push(get::<Option<Raw<'_>>>(row, 2)?.map(|Raw(image)| Bytes::copy_from_slice(image)));
        }
        let position = require(session, at, at_least)?;
        Ok((position, images))
    }

    /// The storage that the images of a table are of, if there are any.
    ///
    /// # Errors
    /// As [`ImageReader::find`].
    pub async fn stored(&self, relation: Oid, at_least: Cursor) -> Result<Option<Storage>, Error> {
        let sql = "SELECT f.position_lsn, f.position_seq, t.storage, t.since FROM walcast.feed AS f \
                   LEFT JOIN walcast.imaged_table AS t ON t.relation = $1";
        let session = self.pool.get().await.doing(DOING)?;
        let row = session.query_opt(sql, &[&relation.get()]).await.doing(DOING)?;
        let position = row.as_ref().map(position).transpose()?;
        require(session, position, at_least)?;
        let Some(row) = row else { return Ok(None) };
        let storage = get::<Option<i64>>(&row, 2)?.map(StorageId::new);
        Ok(storage.zip(optional_lsn(&row, 3)?).map(|(id, since)| Storage { id, since }))
    }
}

fn position(row: &tokio_postgres::Row) -> Result<Cursor, Error> {
    Ok(Cursor::new(lsn(row, 0)?, Seq::new(get(row, 1)?)))
}

/// Gives the session back, or closes it when it leads to a history that is not the one that is stored to.
fn require(session: PooledSession, position: Option<Cursor>, at_least: Cursor) -> Result<Cursor, Error> {
    let problem = match position {
        Some(position) if position >= at_least => return Ok(position),
        Some(position) => {
            format!("it is at {position}, and has been at {at_least}: this is an older copy of it")
        }
        None => "there is none".to_owned(),
    };
    session.discard();
    Err(Error::Unreadable { what: "feed", problem })
}
