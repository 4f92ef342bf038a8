//! What clients have acknowledged: `walcast.client`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postgres_types::PgLsn;
use tokio_postgres::Row;
use walcast_model::{Cursor, FeedId, Seq, Timestamp};
use walcast_postgres::{Pool, Session};

use crate::column::{get, lsn, parameter, timestamp};
use crate::error::{Doing, FENCED_SQLSTATE};
use crate::{Error, FeedRecord};

const STORE: &str = "store what clients acknowledged";
const READ: &str = "read what clients acknowledged";

/// How many clients are known, and for how long.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// `clients_per_user_max`: clients of one user. What a further one acknowledges is refused. Without authentication nobody
    /// is a user, and only `clients_max` counts.
    pub clients_per_user_max: usize,
    /// `clients_max`: clients in all. What a further one acknowledges is refused.
    pub clients_max: usize,
    /// `client_expiry`: a client that was not seen for so long is forgotten, unless it is kept.
    pub client_expiry: Duration,
    /// `keep_clients`: are not forgotten, and retention keeps what they have not acknowledged. But a subscription that one of
    /// them has not had for `client_expiry`, while it had others, is.
    pub keep_clients: Vec<ClientName>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            clients_per_user_max: 100,
            clients_max: 100_000,
            client_expiry: Duration::from_secs(86_400),
            keep_clients: Vec::new(),
        }
    }
}

/// A client as an operator names it: `client_id`, or `user/client_id` where there are users.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientName {
    /// The subject of its token; empty without authentication.
    pub user: String,
    /// What it calls itself.
    pub client_id: String,
}

/// A text names no client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected client_id, or user/client_id with authentication")]
pub struct ParseClientNameError;

impl FromStr for ClientName {
    type Err = ParseClientNameError;

    /// What follows the last slash is the `client_id`: subjects are often URLs.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (user, client_id) = text.rsplit_once('/').unwrap_or(("", text));
        let name = Self { user: user.to_owned(), client_id: client_id.to_owned() };
        if client_id.is_empty() || text.starts_with('/') { Err(ParseClientNameError) } else { Ok(name) }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user.as_str() {
            "" => f.write_str(&self.client_id),
            user => write!(f, "{user}/{}", self.client_id),
        }
    }
}

/// One position of a client: of each of its subscriptions there is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientKey {
    /// Whose it is.
    pub name: ClientName,
    /// The id that it gave the subscription.
    pub subscription: String,
}

/// What is to be stored of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// Whose, and of which subscription.
    pub key: ClientKey,
    /// Everything before it is stored by the client; 0/0 takes back what was acknowledged before.
    pub cursor: Cursor,
    /// What it subscribed to, for people.
    pub tables: String,
    /// Whether a client that is not known becomes so; otherwise nothing is stored of it.
    pub adds: bool,
    /// A name for what policies gave it when it acknowledged; `None` when none were in force, and where nothing `adds`: what
    /// is stored stays.
    pub rights: Option<Arc<str>>,
}

/// A client that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownClient {
    /// Whose, and of which subscription.
    pub key: ClientKey,
    /// The feed that the cursor is of.
    pub feed: FeedId,
    /// What it has acknowledged; 0/0 since an initial sync began.
    pub cursor: Cursor,
    /// What it subscribed to, for people.
    pub tables: String,
    /// When it was last known to be there, by the history's clock.
    pub seen_at: Timestamp,
    /// A name for what policies gave it when it acknowledged; `None` when none were in force.
    pub rights: Option<Arc<str>>,
}

const COLUMNS: &str = "user_name, client_id, subscription, feed_id, lsn, seq, tables, seen_at, rights";

impl KnownClient {
    fn from_row(row: &Row) -> Result<Self, Error> {
        let feed: String = get(row, 3)?;
        Ok(Self {
            key: ClientKey {
                name: ClientName { user: get(row, 0)?, client_id: get(row, 1)? },
                subscription: get(row, 2)?,
            },
            feed: feed.parse().map_err(|_| Error::Unreadable { what: "feed id", problem: feed })?,
            cursor: Cursor::new(lsn(row, 4)?, Seq::new(get(row, 5)?)),
            tables: get(row, 6)?,
            seen_at: timestamp(row, 7)?,
            rights: get::<Option<&str>>(row, 8)?.map(Arc::from),
        })
    }

    /// All that are known, those that were seen last first, `count_max` at most.
    pub(crate) async fn all(session: &Session, count_max: i64) -> Result<Vec<Self>, Error> {
        let sql = format!("SELECT {COLUMNS} FROM walcast.client ORDER BY seen_at DESC LIMIT $1");
        session.query(&sql, &[&count_max]).await.doing(READ)?.iter().map(Self::from_row).collect()
    }
}

/// Stores and reads what clients acknowledged; cheap to clone. There is one that stores, beside the feed's appender.
#[derive(Clone, Debug)]
pub struct Clients {
    pool: Pool,
    feed: FeedId,
    writer: i64,
    limits: ClientLimits,
    /// Batches that were sent.
    batches: Arc<AtomicI64>,
}

impl Clients {
    /// For the feed of `record`, which the appender stores that is known as `writer`. Once for each writer: its batches are
    /// counted here.
    #[must_use]
    pub fn new(pool: Pool, record: &FeedRecord, writer: i64, limits: ClientLimits) -> Self {
        Self { pool, feed: record.id.clone(), writer, limits, batches: Arc::default() }
    }

    /// How many are known, and for how long.
    #[must_use]
    pub const fn limits(&self) -> &ClientLimits {
        &self.limits
    }

    /// Stores all of these in one commit. Returned are the places of those that are refused because a limit is reached.
    /// When it has returned the others are durable, as the history's own changes are.
    ///
    /// # Errors
    /// [`Error::FeedGone`] when another process stores the feed; when the history cannot hold one of the texts, or its
    /// Postgres fails. Nothing was stored then, or all of it: the outcome of a lost connection is unknown. It may even be
    /// stored later, but not after what is stored by another call. Cancelled, it is as with a lost connection.
    pub async fn store(&self, acknowledged: &[Acknowledged]) -> Result<Vec<usize>, Error> {
        let session = self.pool.get().await.doing(STORE)?;
        let column = |read: fn(&Acknowledged) -> &str| acknowledged.iter().map(read).collect::<Vec<_>>();
        let users = column(|one| &one.key.name.user);
        let ids = column(|one| &one.key.name.client_id);
        let subscriptions = column(|one| &one.key.subscription);
        let tables = column(|one| &one.tables);
        let lsns: Vec<PgLsn> = acknowledged.iter().map(|one| parameter(one.cursor.lsn())).collect();
        let seqs: Vec<i64> = acknowledged.iter().map(|one| one.cursor.seq().get()).collect();
        let adds: Vec<bool> = acknowledged.iter().map(|one| one.adds).collect();
        let rights: Vec<Option<&str>> = acknowledged.iter().map(|one| one.rights.as_deref()).collect();
        let max = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (user_max, all_max) = (max(self.limits.clients_per_user_max), max(self.limits.clients_max));
        let away = self.limits.client_expiry.as_secs_f64();
        let batch = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let sql = "SELECT walcast.acknowledge($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
        let stored = session
            .query(
                sql,
                &[
                    &self.feed.as_str(),
                    &self.writer,
                    &batch,
                    &user_max,
                    &all_max,
                    &away,
                    &users,
                    &ids,
                    &subscriptions,
                    &lsns,
                    &seqs,
                    &tables,
                    &adds,
                    &rights,
                ],
            )
            .await
            .doing(STORE);
        match stored {
            Err(error) if error.sqlstate() == Some(FENCED_SQLSTATE) => {
                Err(Error::FeedGone { feed: self.feed.clone() })
            }
            Err(error) => Err(error),
            Ok(rows) => rows
                .iter()
                .map(|row| Ok(usize::try_from(get::<i32>(row, 0)? - 1).unwrap_or_default()))
                .collect(),
        }
    }

    /// What a client has acknowledged: 0/0 when that was taken back, `None` when it is not known.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn position(&self, key: &ClientKey) -> Result<Option<KnownClient>, Error> {
        let session = self.pool.get().await.doing(READ)?;
        let sql = format!(
            "SELECT {COLUMNS} FROM walcast.client WHERE user_name = $1 AND client_id = $2 AND subscription = $3"
        );
        let row = session
            .query_opt(&sql, &[&key.name.user, &key.name.client_id, &key.subscription])
            .await
            .doing(READ)?;
        row.as_ref().map(KnownClient::from_row).transpose()
    }

    /// The clients of one user, those that were seen last first, `count_max` at most.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn of_user(&self, user: &str, count_max: usize) -> Result<Vec<KnownClient>, Error> {
        let session = self.pool.get().await.doing(READ)?;
        let sql = format!(
            "SELECT {COLUMNS} FROM walcast.client WHERE user_name = $1 ORDER BY seen_at DESC LIMIT $2"
        );
        let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
        let rows = session.query(&sql, &[&user, &count_max]).await.doing(READ)?;
        rows.iter().map(KnownClient::from_row).collect()
    }

    /// Notes that these are there now.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn seen(&self, keys: &[ClientKey]) -> Result<(), Error> {
        let session = self.pool.get().await.doing(STORE)?;
        let column = |read: fn(&ClientKey) -> &str| keys.iter().map(read).collect::<Vec<_>>();
        let (users, ids) = (column(|key| &key.name.user), column(|key| &key.name.client_id));
        let subscriptions = column(|key| &key.subscription);
        let sql = "UPDATE walcast.client AS c SET seen_at = clock_timestamp(), \
                          came_at = CASE WHEN c.seen_at < clock_timestamp() - $4 * interval '1 second' \
                                         THEN clock_timestamp() ELSE c.came_at END \
                   FROM unnest($1::text[], $2::text[], $3::text[]) AS here (user_name, client_id, subscription) \
                   WHERE (c.user_name, c.client_id, c.subscription) = \
                         (here.user_name, here.client_id, here.subscription)";
        let away = self.limits.client_expiry.as_secs_f64();
        session.execute(sql, &[&users, &ids, &subscriptions, &away]).await.doing(STORE)?;
        Ok(())
    }

    /// Forgets those that were not seen for `client_expiry`: how many. Of a client that is kept a subscription is only
    /// forgotten when another one of it is there, and has been for that long: a client that was away as a whole, or has just
    /// come back, may still want it.
    ///
    /// # Errors
    /// When the history's Postgres fails.
    pub async fn expire(&self) -> Result<u64, Error> {
        let session = self.pool.get().await.doing(STORE)?;
        let (users, ids) = columns(&self.limits.keep_clients);
        let sql = "DELETE FROM walcast.client AS c \
                   WHERE c.seen_at < clock_timestamp() - $1 * interval '1 second' \
                   AND (NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS kept (user_name, client_id) \
                                    WHERE (kept.user_name, kept.client_id) = (c.user_name, c.client_id)) \
                        OR EXISTS (SELECT FROM walcast.client AS o \
                                   WHERE (o.user_name, o.client_id) = (c.user_name, c.client_id) \
                                   AND o.seen_at >= clock_timestamp() - $1 * interval '1 second' \
                                   AND o.came_at < clock_timestamp() - $1 * interval '1 second'))";
        session.execute(sql, &[&self.limits.client_expiry.as_secs_f64(), &users, &ids]).await.doing(STORE)
    }
}

/// As two columns.
pub(crate) fn columns(names: &[ClientName]) -> (Vec<&str>, Vec<&str>) {
    names.iter().map(|name| (name.user.as_str(), name.client_id.as_str())).unzip()
}

#[cfg(test)]
mod tests {
    use super::ClientName;

    #[test]
    fn a_client_is_named_with_its_user_of_whom_the_last_slash_is_the_end() {
        let parsed = |text: &str| text.parse::<ClientName>().map(|name| (name.user, name.client_id));
        assert_eq!(parsed("laptop-1"), Ok((String::new(), "laptop-1".into())));
        assert_eq!(parsed("https://id/ada/laptop"), Ok(("https://id/ada".into(), "laptop".into())));
        for text in ["", "ada/", "/laptop"] {
            assert!(parsed(text).is_err(), "{text:?}");
        }
        for text in ["laptop-1", "ada/laptop"] {
            assert_eq!(text.parse::<ClientName>().unwrap().to_string(), text);
        }
    }
}
