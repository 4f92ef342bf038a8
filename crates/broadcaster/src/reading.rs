//! History as it is read for clients, and since when it cannot be.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use walcast_feed::{Outage, Outages};
use walcast_history::{LatestPage, Page, PageLimits, Without};
use walcast_model::{Cursor, Relation, RelationDigest, Snapshot};

use crate::past::{PastPages, Unanswered, WantsTable};

/// What is told while history cannot be read.
pub(crate) const NOT_READ: &str = "history is not read";

/// History, of which it is told when it cannot be read, and when it can again.
#[derive(Debug)]
pub(crate) struct Reading {
    past: Arc<dyn PastPages>,
    // Held for a look at an answer.
    outage: Mutex<Outage>,
}

impl Reading {
    pub(crate) fn new(past: Arc<dyn PastPages>, outages: &Outages) -> Self {
        Self { past, outage: Mutex::new(outages.part(NOT_READ)) }
    }

    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen<T>(&self, answer: Result<T, Unanswered>) -> Result<T, Unanswered> {
        if let Err(Unanswered::Later(away)) = &answer {
            let (error, hint) = (away.cause.message.clone(), away.cause.hint.clone());
            if self.outage().begin(error.clone(), hint.clone()) {
                tracing::warn!(error, hint, "{NOT_READ}; whoever needs it waits, and it is tried again");
            }
        } else if let Some(away) = self.outage().end() {
            tracing::info!("history is read again, after {away:.1?}");
        }
        answer
    }
}

impl PastPages for Reading {
    fn page(&self, from: Cursor, to: Cursor, limits: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        self.past.page(from, to, limits).map(|answer| self.seen(answer)).boxed()
    }

    fn latest(
        &self,
        from: Cursor,
        to: Cursor,
        limits: PageLimits,
        fold_bytes_max: usize,
        wants: WantsTable,
    ) -> BoxFuture<'_, Result<LatestPage, Unanswered>> {
        let answer = self.past.latest(from, to, limits, fold_bytes_max, wants);
        answer.map(|answer| self.seen(answer)).boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        self.past.oldest().map(|answer| self.seen(answer)).boxed()
    }

    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>> {
        self.past.definitions().map(|answer| self.seen(answer)).boxed()
    }

    fn first_without<'a>(
        &'a self,
        definitions: &'a [RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>> {
        self.past.first_without(definitions, from, to).map(|answer| self.seen(answer)).boxed()
    }

    fn first_invisible<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        before: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>> {
        self.past.first_invisible(snapshot, before).map(|answer| self.seen(answer)).boxed()
    }
}
