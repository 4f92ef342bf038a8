//! From where on the history is whole, also where something was taken from it by hand.

use tokio_postgres::GenericClient;
use walcast_model::{Cursor, FeedId, Lsn};

use crate::Error;
use crate::column::{get, lsn, optional_lsn};
use crate::error::Doing;

/// What `walcast.kept` says, as of one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// The feed that is there.
    pub(crate) feed: FeedId,
    /// The oldest position as it is recorded.
    pub(crate) recorded: Cursor,
    /// The oldest position from which on nothing is missing.
    pub(crate) from: Cursor,
    /// Whether the last change is there, unless retention dropped it.
    pub(crate) has_last: bool,
    /// The last change that was stored.
    last: Option<(Lsn, i64)>,
}

impl Kept {
    /// `None` when the history has no feed.
    pub(crate) async fn load(
        client: &impl GenericClient,
        doing: &'static str,
    ) -> Result<Option<Self>, Error> {
        let mut found = Self::look(client, doing).await?;
        // What retention drops while it is looked can seem to be missing, see `walcast.kept`: not twice.
        while found.as_ref().is_some_and(|kept| !kept.is_whole()) {
            let again = Self::look(client, doing).await?;
            if again == found {
                break;
            }
            found = again;
        }
        Ok(found)
    }

    async fn look(client: &impl GenericClient, doing: &'static str) -> Result<Option<Self>, Error> {
        let sql = "SELECT feed_id, oldest_lsn, kept_lsn, has_last, last_lsn, last_seq FROM walcast.kept() \
                   WHERE feed_id IS NOT NULL";
        let rows = client.query_typed(sql, &[]).await.doing(doing)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let feed: String = get(row, 0)?;
        let feed = feed.parse().map_err(|_| Error::Unreadable { what: "feed id", problem: feed })?;
        let (recorded, from) = (lsn(row, 1)?.into(), lsn(row, 2)?.into());
        let last = optional_lsn(row, 4)?.zip(get(row, 5)?);
        Ok(Some(Self { feed, recorded, from, has_last: get(row, 3)?, last }))
    }

    /// Whether nothing is missing but what was dropped in good order.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_last && self.from <= self.recorded
    }
}
