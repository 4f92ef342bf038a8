//! From where on a subscription can be served: from where on every change of its tables has what its filters need.
//!
//! Of old rows the WAL carries what a table's replica identity says when they change. What came before it was altered
//! cannot be told by a filter that needs more, and is in history for as long as that reaches back. So a cursor can be in
//! history and lead nowhere, and the oldest position of history as well. The changes in memory are looked through, the
//! latest first to be found there as a rule; of older ones it is known which definitions they have, and the last change with
//! one that does not fit is searched for, by one client at a time: when a table was altered, they all come.

mod searches;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::consume_budget;
use tokio_util::task::TaskTracker;
use walcast_feed::{Feed, Read};
use walcast_filter::Schema;
use walcast_model::{CommitStart, Cursor, Oid, Part, Relation, RelationDigest, RelationName};

use crate::catalog::{Catalog, Freshness};
use crate::past::{PastPages, Unanswered};
use crate::wanted::{Choice, Origin, Selection, Wanted};
use searches::Searches;

/// JSON of the feed that is looked through at once, in bytes.
const BATCH_BYTES: usize = 1 << 20;

/// From where on a subscription can be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reached {
    /// From there on, and from nowhere before it.
    From(Cursor),
    /// It would be refused at every position: a table does not fit as it is now.
    Nowhere,
    /// The source, which knows more of the tables, does not answer.
    Unknown,
}

/// The definitions of all changes before a position.
type Known = Option<(Cursor, Arc<Vec<Arc<Relation>>>)>;

/// Knows from where on subscriptions can be served.
#[derive(Debug)]
pub(crate) struct Reach {
    past: Arc<dyn PastPages>,
    /// Held while history is asked, so that those who come meanwhile have that answer.
    definitions: Mutex<Known>,
    searches: Searches,
}

/// The source cannot say what has to be known.
struct Away;

impl Reach {
    /// Searches run as `tasks`.
    pub(crate) fn new(past: Arc<dyn PastPages>, tasks: TaskTracker) -> Self {
        let searches = Searches::new(Arc::clone(&past), tasks);
        Self { past, definitions: Mutex::default(), searches }
    }

    /// The first position at or after `from` at which a subscription to this can be resumed.
    ///
    /// # Errors
    /// When history cannot be read.
    pub(crate) async fn first(
        &self,
        wanted: &Wanted,
        from: Cursor,
        feed: &Feed,
        catalog: &Catalog,
    ) -> Result<Reached, Unanswered> {
        let mut judge = Judge { wanted, catalog, unfit: None, given: HashMap::new(), judged: HashMap::new() };
        if !judge.takes_named().await {
            return Ok(Reached::Nowhere);
        }
        let Ok(recent) = judge.recent(feed, from).await else { return Ok(Reached::Unknown) };
        if let Some(first) = recent.first {
            return Ok(Reached::From(first));
        }
        let to = recent.start;
        if from >= to {
            return Ok(Reached::From(from));
        }
        let definitions = self.definitions(feed, to).await?;
        let mut unfit = Vec::new();
        for relation in &*definitions {
            match judge.refuses(relation).await {
                Ok(true) => unfit.push(relation.digest()),
                Ok(false) => {}
                Err(Away) => return Ok(Reached::Unknown),
            }
        }
        unfit.sort_unstable();
        unfit.dedup();
        Ok(Reached::From(self.searches.first_without(unfit, from, to).await?))
    }

    /// The definitions of all changes before a position that is stored.
    async fn definitions(&self, feed: &Feed, to: Cursor) -> Result<Arc<Vec<Arc<Relation>>>, Unanswered> {
        let mut known = self.definitions.lock().await;
        if let Some((until, definitions)) = &*known
            && to <= *until
        {
            return Ok(Arc::clone(definitions));
        }
        let stored = feed.stored();
        let definitions = Arc::new(self.past.definitions().await?);
        *known = Some((stored, Arc::clone(&definitions)));
        Ok(definitions)
    }
}

/// What was found among the changes in memory.
struct Recent {
    /// They begin here, or where the search does.
    start: Cursor,
    /// After the last that does not fit.
    first: Option<Cursor>,
}

/// Which changes would end a subscription that is resumed before them.
struct Judge<'a> {
    wanted: &'a Wanted,
    catalog: &'a Catalog,
    /// Tables of patterns that did not fit as they were lately, once that was asked.
    unfit: Option<Vec<Arc<Schema>>>,
    /// Whether rows of a table are given as it is now, where that was asked.
    given: HashMap<Oid, bool>,
    judged: HashMap<(Oid, RelationDigest, RelationName), bool>,
}

impl Judge<'_> {
    /// Whether the tables with filters that are named can be had as they are now; as far as the source answers, as it
    /// is when a subscription begins.
    async fn takes_named(&self) -> bool {
        let named = self.wanted.key().named().filter(|(_, selection)| selection.is_filtered());
        let names: Vec<RelationName> = named.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return true;
        }
        let schemas = self.catalog.schemas(&names, Freshness::Now).await;
        schemas.map_or(true, |schemas| schemas.iter().all(|schema| self.wanted.trial(schema).is_some()))
    }

    /// Looks through what the feed has at or after `from`.
    async fn recent(&mut self, feed: &Feed, from: Cursor) -> Result<Recent, Away> {
        let mut start = from.max(feed.oldest());
        let (mut at, mut first) = (start, None);
        // The last transaction with a change that does not fit.
        let mut last: Option<CommitStart> = None;
        loop {
            match feed.read(at, BATCH_BYTES) {
                Read::Parts { parts, next } => {
                    for part in &parts {
                        let start = part.transaction().start;
                        if last == Some(start) || self.refuses_any(part, at).await? {
                            (last, first) = (Some(start), Some(part.next_cursor()));
                        }
                    }
                    at = next;
                }
                Read::AtHead { .. } => return Ok(Recent { start, first }),
                Read::Behind { oldest } => (start, at, first, last) = (oldest, oldest, None, None),
            }
            consume_budget().await;
        }
    }

    /// Whether a part has a change that does not fit, at or after `from`.
    async fn refuses_any(&mut self, part: &Part, from: Cursor) -> Result<bool, Away> {
        let lsn = part.transaction().start.lsn();
        let mut known: Option<&Arc<Relation>> = None;
        for (index, change) in part.changes().iter().enumerate() {
            let is_known = known.is_some_and(|known| Arc::ptr_eq(known, &change.relation));
            if is_known || Cursor::new(lsn, part.first().plus(index)) < from {
                continue;
            }
            known = Some(&change.relation);
            if self.refuses(&change.relation).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a change in this definition can end a subscription: one that it does not fit, of a table of which its client
    /// can have rows; or one that gives it rows, of a table that a pattern stands for and that it does not fit as it is now.
    async fn refuses(&mut self, relation: &Arc<Relation>) -> Result<bool, Away> {
        let Some(selection) = self.wanted.of(relation.name()) else { return Ok(false) };
        if !selection.is_filtered() {
            return Ok(false);
        }
        let key = (relation.oid(), relation.digest(), relation.name().clone());
        if let Some(refuses) = self.judged.get(&key) {
            return Ok(*refuses);
        }
        let refuses = match self.choice(relation).await? {
            Choice::Nothing => false,
            Choice::Everything | Choice::Rows(_) => !self.is_given(relation.oid(), selection).await,
            Choice::Withheld | Choice::Unfit => self.is_given(relation.oid(), selection).await,
        };
        self.judged.insert(key, refuses);
        Ok(refuses)
    }

    async fn choice(&self, relation: &Arc<Relation>) -> Result<Choice, Away> {
        if let Some(choice) = self.wanted.choice(relation) {
            return Ok(choice);
        }
        let schema = self.catalog.schema_of(relation, Freshness::Lately).await.map_err(|_| Away)?;
        Ok(self.wanted.trial(&schema).unwrap_or(Choice::Unfit))
    }

    /// Whether rows of a table are given as it is now: not of one that a pattern stands for and that does not fit. Where that
    /// is not known, or the table is gone, they are.
    async fn is_given(&mut self, oid: Oid, selection: &Selection) -> bool {
        if matches!(selection.origin, Origin::Named { .. }) {
            return true;
        }
        if let Some(given) = self.given.get(&oid) {
            return *given;
        }
        let given = self.is_given_now(oid).await.unwrap_or(true);
        self.given.insert(oid, given);
        given
    }

    /// Asks the source for all tables of patterns at once, as they were lately; and again for one that did not fit then.
    async fn is_given_now(&mut self, oid: Oid) -> Option<bool> {
        if self.unfit.is_none() {
            let tables = self.catalog.for_shape(self.wanted.key()).await.ok()?;
            let is_one = |name: &&RelationName| {
                let selection = self.wanted.of(name);
                selection.is_some_and(|one| one.is_filtered() && one.origin == Origin::Pattern)
            };
            let names: Vec<RelationName> =
                tables.iter().map(|table| &table.name).filter(is_one).cloned().collect();
            self.unfit = Some(self.misfits(&names, Freshness::Lately).await?);
        }
        let mut unfit = self.unfit.iter().flatten().map(|schema| schema.relation());
        let Some(relation) = unfit.find(|relation| relation.oid() == oid) else {
            return Some(true);
        };
        let now = self.misfits(std::slice::from_ref(relation.name()), Freshness::Now).await?;
        Some(now.is_empty())
    }

    async fn misfits(&self, names: &[RelationName], freshness: Freshness) -> Option<Vec<Arc<Schema>>> {
        let mut schemas = self.catalog.schemas(names, freshness).await.ok()?;
        schemas.retain(|schema| self.wanted.trial(schema).is_none());
        Some(schemas)
    }
}

#[cfg(test)]
mod tests;
