//! What history was searched for, and where it was found: once for all who ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use walcast_history::Without;
use walcast_model::{Cursor, RelationDigest};

use crate::past::{PastPages, Unanswered};
use crate::subscription::crashed;

/// Sets of definitions of which it is known where they came last; all are forgotten when there are more.
const SEARCHES_MAX: usize = 256;
/// How long a search that was given up is not taken up again.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Searches of history.
#[derive(Debug)]
pub(super) struct Searches {
    past: Arc<dyn PastPages>,
    /// Where searches run: one that was begun goes on without those who asked for it, and they take none of its work with
    /// them.
    tasks: TaskTracker,
    /// By the definitions, sorted. Held while history is searched, so that those who come meanwhile have that answer.
    known: Arc<Mutex<HashMap<Vec<RelationDigest>, Searched>>>,
}

impl Searches {
    pub(super) fn new(past: Arc<dyn PastPages>, tasks: TaskTracker) -> Self {
        Self { past, tasks, known: Arc::default() }
    }

    /// The first position at or after `from` such that no change between it and `to` has one of the definitions, which are
    /// sorted; or a later one. What was not searched before is.
    pub(super) async fn first_without(
        &self,
        unfit: Vec<RelationDigest>,
        from: Cursor,
        to: Cursor,
    ) -> Result<Cursor, Unanswered> {
        if unfit.is_empty() {
            return Ok(from);
        }
        let mut known = Arc::clone(&self.known).lock_owned().await;
        let mut searched = known.get(&unfit).copied().unwrap_or_else(|| Searched::nothing(to));
        if searched.has(from, to) {
            return Ok(searched.clean.max(from));
        }
        let past = Arc::clone(&self.past);
        let search = self.tasks.spawn(async move {
            searched.extend(&*past, &unfit, from, to).await?;
            if known.len() >= SEARCHES_MAX {
                known.clear();
            }
            known.insert(unfit, searched);
            Ok(searched.clean.max(from))
        });
        search.await.unwrap_or_else(|_| Err(Unanswered::Never(crashed())))
    }
}

/// How far it was searched for some definitions.
#[derive(Clone, Copy, Debug)]
struct Searched {
    /// No change between it and `to` has one of them.
    clean: Cursor,
    to: Cursor,
    before: Before,
}

/// What is before the changes of which it is known that they have none.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// That was not searched.
    Unknown,
    /// A change that has one: nothing before it matters.
    Found,
    /// The search took too long.
    GivenUp { at: Instant },
}

impl Searched {
    const fn nothing(to: Cursor) -> Self {
        Self { clean: to, to, before: Before::Unknown }
    }

    /// Whether nothing has to be searched.
    fn has(&self, from: Cursor, to: Cursor) -> bool {
        to <= self.to && (from >= self.clean || self.is_settled())
    }

    /// Whether what is before is not searched now.
    fn is_settled(&self) -> bool {
        match self.before {
            Before::Unknown => false,
            Before::Found => true,
            Before::GivenUp { at } => at.elapsed() < GIVEN_UP,
        }
    }

    async fn extend(
        &mut self,
        past: &dyn PastPages,
        unfit: &[RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> Result<(), Unanswered> {
        if to > self.to {
            let found = past.first_without(unfit, self.to, to).await?;
            if found.cursor() > self.to {
                self.found(found);
            }
            self.to = to;
        }
        if from < self.clean && !self.is_settled() {
            match past.first_without(unfit, from, self.clean).await? {
                Without::From(clean) if clean == from => (self.clean, self.before) = (clean, Before::Unknown),
                found => self.found(found),
            }
        }
        Ok(())
    }

    fn found(&mut self, found: Without) {
        self.clean = found.cursor();
        self.before = match found {
            Without::From(_) => Before::Found,
            Without::GivenUp(_) => Before::GivenUp { at: Instant::now() },
        };
    }
}
