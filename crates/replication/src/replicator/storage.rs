//! How the source keeps and publishes a table, as far as it decides whether a last image is still the row.
//!
//! A table that is rewritten (`ALTER … TYPE … USING`, a default for a new column) has other rows without a change in the
//! stream; a table that was out of its publication for a while has had changes that did not come. Both leave a trace in
//! the catalog: another file, another number of columns, another entry of the publication, another version of the table's
//! row in `pg_class` (another schema for a while, a partition for a while). VACUUM and ANALYZE write that row in place, so
//! it stays the same version; a GRANT or a trigger makes another one, which costs the images and is never wrong. The
//! catalog is read as it is *now*, though, and the stream may be behind: so it also counts since when it has been so, for
//! certain.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use walcast_model::last_image::{Storage, StorageId};
use walcast_model::{Cursor, Lsn, Oid, Snapshot, Xid};
use walcast_postgres::Session;

use super::images::{self, LastImages};
use crate::assemble::StorageFacts;
use crate::error::Error;

/// How long a definition waits for the transaction that made it to be seen.
pub(super) const UNSEEN_WAIT_MAX: Duration = Duration::from_secs(1);
const UNSEEN_WAIT: Duration = Duration::from_millis(2);

const NOW: &str = "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text";

/// Partitions are left out: what is published of them depends on their parents as well. The numbers of transactions are
/// those that made the table's row of `pg_class` and what publishes it.
macro_rules! storage_sql {
    ($schemas:literal) => {
        concat!(
            "SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text, \
                    NOT EXISTS (SELECT FROM unnest($3::text[]) AS maker \
                                WHERE NOT pg_visible_in_snapshot(maker::xid8, pg_current_snapshot())), \
                    c.relfilenode || ' ' || c.relnatts || ' ' || c.xmin, c.xmin::text, \
                    ARRAY(SELECT p.oid || ' ' || p.xmin || ' ' || m.oid || ' ' || m.xmin FROM pg_publication p \
                          CROSS JOIN LATERAL (SELECT r.oid, r.xmin FROM pg_publication_rel r \
                                              WHERE r.prpubid = p.oid AND r.prrelid = c.oid",
            $schemas,
            " UNION ALL SELECT 0::oid, p.xmin WHERE p.puballtables) m \
                          WHERE p.pubname = ANY ($2::text[]) AND p.pubinsert AND p.pubupdate AND p.pubdelete \
                          ORDER BY p.oid, m.oid) \
             FROM (SELECT) AS one LEFT JOIN pg_class c ON c.oid = $1 AND c.relkind = 'r' AND NOT c.relispartition"
        )
    };
}

const STORAGE: &str = storage_sql!(
    " UNION ALL SELECT s.oid, s.xmin FROM pg_publication_namespace s \
      WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace"
);
/// Before schemas could be published (15).
const STORAGE_14: &str = storage_sql!("");

/// What others had committed at a position: whoever commits after it was not among them.
#[derive(Debug, Clone)]
struct Reference {
    snapshot: Snapshot,
    position: Lsn,
}

impl Reference {
    fn parse(snapshot: &str, position: &str) -> Result<Self, Error> {
        let malformed = || walcast_postgres::Error::Protocol("a snapshot that is none".to_owned());
        let snapshot = snapshot.parse().map_err(|_| malformed())?;
        Ok(Self { snapshot, position: position.parse().map_err(|_| malformed())? })
    }
}

/// Reads the storage of tables.
#[derive(Debug)]
pub(super) struct StorageReader {
    publications: Vec<String>,
    xid_reference: Xid,
    /// The first of this connection, and the last.
    references: [Reference; 2],
    /// What was read last of each table on this connection.
    read: HashMap<Oid, Option<Storage>>,
    /// Of tables whose storage was not seen: the transactions that may have made it.
    unseen: HashMap<Oid, Vec<String>>,
}

impl StorageReader {
    pub(super) async fn new(
        session: &Session,
        publications: Vec<String>,
        xid_reference: Xid,
    ) -> Result<Self, Error> {
        let reference = Self::now(session).await?;
        let references = [reference.clone(), reference];
        Ok(Self { publications, xid_reference, references, read: HashMap::new(), unseen: HashMap::new() })
    }

    async fn now(session: &Session) -> Result<Reference, Error> {
        let row = session.query_one(NOW, &[]).await?;
        Reference::parse(row.try_get(0)?, row.try_get(1)?)
    }

    /// Notes what is committed now. The more often, the sooner the images of a new table are certain.
    pub(super) async fn look(&mut self, session: &Session) -> Result<(), Error> {
        self.references[1] = Self::now(session).await?;
        Ok(())
    }

    /// The storage of a table whose changes come next. `transaction` may have made it what it is: it is waited for until
    /// others see it, for as long as `wait_max`; so are those that were not seen the last time. `history_at` is where the
    /// history is at least.
    pub(super) async fn read(
        &mut self,
        session: &Session,
        store: &dyn LastImages,
        relation: Oid,
        transaction: Option<Xid>,
        wait_max: Duration,
        history_at: Cursor,
    ) -> Result<StorageFacts, Error> {
        let sql = if session.server_version() >= 150_000 { STORAGE } else { STORAGE_14 };
        let mut makers = self.unseen.get(&relation).cloned().unwrap_or_default();
        makers.extend(transaction.map(|xid| xid.to_string()).filter(|xid| !makers.contains(xid)));
        let started = Instant::now();
        let row = loop {
            let row = session.query_one(sql, &[&relation.get(), &self.publications, &makers]).await?;
            if row.try_get(2)? {
                break row;
            }
            if started.elapsed() >= wait_max {
                if self.unseen.insert(relation, makers).is_none() {
                    let xid = transaction.map(Xid::get);
                    tracing::warn!(
                        xid,
                        relation = relation.get(),
                        "a transaction that may have rewritten a table is not visible yet, as when it waits for a \
                         synchronous standby; until it is, changes of the table are not completed by last images"
                    );
                }
                let before = match self.read.get(&relation) {
                    Some(read) => *read,
                    None => images::stored(store, relation, history_at).await,
                };
                return Ok(StorageFacts::Unseen(before));
            }
            tokio::time::sleep(UNSEEN_WAIT).await;
        };
        self.unseen.remove(&relation);
        let storage = self.storage(&row, store, relation, history_at).await?;
        self.read.insert(relation, storage);
        Ok(storage.map_or(StorageFacts::None, StorageFacts::Seen))
    }

    async fn storage(
        &mut self,
        row: &tokio_postgres::Row,
        store: &dyn LastImages,
        relation: Oid,
        history_at: Cursor,
    ) -> Result<Option<Storage>, Error> {
        let read = Reference::parse(row.try_get(0)?, row.try_get(1)?)?;
        let (Some(file), Some(made_by)) =
            (row.try_get::<_, Option<&str>>(3)?, row.try_get::<_, Option<&str>>(4)?)
        else {
            return Ok(None);
        };
        let published: Vec<String> = row.try_get(5)?;
        if published.is_empty() {
            return Ok(None);
        }
        let id = storage_id(file, &published);
        let widen = |xid: &str| xid.parse().ok().map(|xid| Xid::widen(xid, self.xid_reference));
        let mut makers = vec![widen(made_by)];
        for entry in &published {
            makers.extend(entry.split(' ').skip(1).step_by(2).map(widen));
        }
        let seen_by = |reference: &&Reference| {
            makers.iter().all(|xid| xid.is_some_and(|xid| reference.snapshot.sees(xid)))
        };
        let stored = images::stored(store, relation, history_at).await;
        let since = match stored.filter(|stored| stored.id == id) {
            Some(stored) => stored.since,
            None => self.references.iter().find(seen_by).unwrap_or(&read).position,
        };
        self.references[1] = read;
        Ok(Some(Storage { id, since }))
    }
}

fn storage_id(file: &str, published: &[String]) -> StorageId {
    let mut hash = Sha256::new();
    hash.update(file);
    for entry in published {
        hash.update([b'\n']);
        hash.update(entry);
    }
    let hash: [u8; 32] = hash.finalize().into();
    StorageId::new(i64::from_be_bytes([
        hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7],
    ]))
}
