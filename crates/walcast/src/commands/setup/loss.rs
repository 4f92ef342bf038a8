//! What `walcast setup --start-over` gives up, said before it does.

use serde::Serialize;
use walcast_history::{Error, History, schema};
use walcast_model::Cursor;
use walcast_postgres::Pool;
use walcast_replication::slot;

use super::{APPLICATION_NAME, SetupError, Target, can_be_ours, require_free_slot, sessions};
use crate::commands::doctor::size;
use crate::output::count;

/// Changes that are counted one by one; where there are more, it is said that there are.
const COUNTED_MAX: u64 = 1_000_000;

/// What is dropped when the feed is started over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Loss {
    /// The slot, when it is there.
    pub(crate) slot: Option<String>,
    /// WAL that it keeps, in bytes.
    pub(crate) retained_bytes: u64,
    /// The history, when a feed is in it.
    pub(crate) history: Option<LostHistory>,
}

/// The history that is dropped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct LostHistory {
    /// Its feed.
    pub(crate) feed: String,
    /// Changes in it; [`Self::has_more`] when there are more than these.
    pub(crate) changes: u64,
    pub(crate) has_more: bool,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// The first position that clients can be served from.
    pub(crate) oldest: Cursor,
    /// Up to where it is stored.
    pub(crate) stored: Cursor,
    /// Subscriptions of clients whose acknowledged position goes with it.
    pub(crate) acknowledged: u64,
}

impl Loss {
    /// Looks for it, and changes nothing.
    ///
    /// # Errors
    /// While somebody streams from the slot, when a database cannot be asked, and when the history belongs to the feed
    /// of another slot or is not of this program's version.
    pub(crate) async fn find(target: &Target) -> Result<Self, SetupError> {
        require_free_slot(target).await?;
        let (history, source) = sessions(target).await?;
        let mut loss = Self::default();
        let facts = slot::inspect(&source, &target.slot.name).await?;
        if let Some(facts) = facts.filter(|facts| can_be_ours(facts, target.source.database())) {
            loss.slot = Some(target.slot.name.clone());
            loss.retained_bytes =
                facts.retained_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        }
        loss.history = match schema::check(&history).await {
            Ok(()) => LostHistory::find(target).await?,
            Err(Error::SchemaMissing) => None,
            // An older one is brought up to date by a setup that drops nothing.
            Err(error) => return Err(error.into()),
        };
        Ok(loss)
    }

    /// Whether nothing is dropped.
    pub(crate) fn is_empty(&self) -> bool {
        self.slot.is_none() && self.history.is_none()
    }

    /// One line for each thing, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let slot = self.slot.iter().map(|slot| {
            format!(
                "replication slot {slot:?} (the {} of WAL that it keeps are released)",
                size(self.retained_bytes)
            )
        });
        let elsewhere = (self.slot.is_some() && self.history.is_none()).then(|| {
            "no history of that slot is known here: if another one has it (--history-url names it), that one loses its \
             feed, and every client of it syncs again"
                .to_owned()
        });
        slot.chain(elsewhere).chain(self.history.iter().flat_map(LostHistory::lines)).collect()
    }
}

impl LostHistory {
    async fn find(target: &Target) -> Result<Option<Self>, SetupError> {
        let history = History::new(Pool::new(target.history.clone(), APPLICATION_NAME, 1));
        let inspection = history.inspect().await?;
        let Some(feed) = inspection.feed else { return Ok(None) };
        if feed.slot != target.slot.name {
            return Err(Error::SlotDiffers { slot: feed.slot }.into());
        }
        let changes = history.count_changes(COUNTED_MAX + 1).await?;
        Ok(Some(Self {
            feed: feed.id.to_string(),
            changes: changes.min(COUNTED_MAX),
            has_more: changes > COUNTED_MAX,
            bytes: inspection.bytes,
            oldest: feed.oldest,
            stored: feed.position,
            acknowledged: inspection.beside.map(|beside| beside.subscriptions).unwrap_or_default(),
        }))
    }

    fn lines(&self) -> Vec<String> {
        let Self { feed, bytes, oldest, stored, .. } = self;
        let more = if self.has_more { "more than " } else { "" };
        let mut lines = vec![format!(
            "the whole change_history of feed {feed}: {more}{} from {oldest} to {stored}, {}",
            count(self.changes, "change"),
            size(*bytes)
        )];
        if self.acknowledged > 0 {
            let of = count(self.acknowledged, "subscription");
            lines.push(format!("what clients have acknowledged, of {of}"));
        }
        lines.push("every client gets feed_changed, and syncs again".to_owned());
        lines
    }
}
