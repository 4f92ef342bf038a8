//! What sessions need of history and of the source, as narrow as they need it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use walcast_feed::Cause;
use walcast_filter::Schema;
use walcast_history::{ErrorClass, LatestPage, Page, PageLimits, Reader, Without};
use walcast_model::{Cursor, Oid, Relation, RelationDigest, RelationName, Snapshot};
use walcast_protocol::ErrorCode;
use walcast_snapshot::{FoundRows, Key, SnapshotEvent, SnapshotTable, Snapshots};

use crate::reading::NOT_READ;
use crate::refusal::Refusal;

/// A database that cannot be asked now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Away {
    /// What does not work because of it, for everybody.
    pub(crate) effect: &'static str,
    /// Why, for those who may know everything.
    pub(crate) cause: Cause,
}

impl Away {
    /// The source, for this reason.
    #[must_use]
    pub fn source(message: impl Into<String>) -> Self {
        let cause = Cause { message: message.into(), hint: None };
        Self { effect: "the source cannot be asked", cause }
    }

    /// History, which has failed so.
    #[must_use]
    pub fn history(error: &walcast_history::Error) -> Self {
        Self { effect: NOT_READ, cause: Cause { message: error.cause(), hint: error.hint() } }
    }
}

/// Why a question could not be answered.
#[derive(Debug)]
pub enum Unanswered {
    /// It passes by itself: ask again after a while.
    Later(Away),
    /// The subscription is over.
    Never(Refusal),
}

/// Whether a subscription wants a table.
pub type WantsTable = Box<dyn Fn(&RelationName) -> bool + Send + Sync>;

/// The part of the feed that is no longer in memory.
pub trait PastPages: std::fmt::Debug + Send + Sync + 'static {
    /// What lies at or after `from` and before `to`, as much as fits into a page; `to` was stored before. A page that
    /// does not reach back to `from`, because that is no longer there, is [`Unanswered::Never`].
    fn page(&self, from: Cursor, to: Cursor, limits: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>>;

    /// What became of the rows that transactions at or after `from` and before `to` touched, as many of them as fit; see
    /// [`Reader::latest`]. Those who cannot fold give a page as it is.
    fn latest(
        &self,
        from: Cursor,
        to: Cursor,
        limits: PageLimits,
        _fold_bytes_max: usize,
        _wants: WantsTable,
    ) -> BoxFuture<'_, Result<LatestPage, Unanswered>> {
        Box::pin(
            async move { Ok(LatestPage { page: self.page(from, to, limits).await?, is_compacted: false }) },
        )
    }

    /// The oldest cursor that can be served.
    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>>;

    /// The definitions that changes came with, at least of those that are there.
    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>>;

    /// From where on, between `from` and `to`, no change came with one of these definitions; see [`Reader::first_without`].
    fn first_without<'a>(
        &'a self,
        definitions: &'a [RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>>;

    /// The first transaction before `before` that `snapshot` does not see. [`Unanswered::Never`] when one that it does
    /// not see may be gone.
    fn first_invisible<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        before: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>>;
}

impl PastPages for Reader {
    fn page(&self, from: Cursor, to: Cursor, limits: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        Box::pin(async move {
            let page = self.read_kept(from, to, limits).await;
            page.map_err(|error| of_history(&error))
        })
    }

    fn latest(
        &self,
        from: Cursor,
        to: Cursor,
        limits: PageLimits,
        fold_bytes_max: usize,
        wants: WantsTable,
    ) -> BoxFuture<'_, Result<LatestPage, Unanswered>> {
        Box::pin(async move {
            let page = Self::latest(self, from, to, limits, fold_bytes_max, wants).await;
            page.map_err(|error| of_history(&error))
        })
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        Box::pin(async move { Self::oldest(self).await.map_err(|error| of_history(&error)) })
    }

    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>> {
        Box::pin(async move { Self::definitions(self).await.map_err(|error| of_history(&error)) })
    }

    fn first_without<'a>(
        &'a self,
        definitions: &'a [RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>> {
        Box::pin(async move {
            let first = Self::first_without(self, definitions, from, to).await;
            first.map_err(|error| of_history(&error))
        })
    }

    fn first_invisible<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        before: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>> {
        Box::pin(async move {
            Self::first_invisible(self, snapshot, before).await.map_err(|error| of_history(&error))
        })
    }
}

pub(crate) fn of_history(error: &walcast_history::Error) -> Unanswered {
    use walcast_history::Error;
    match error {
        Error::TooOld { cursor, oldest } => return Unanswered::Never(Refusal::too_old(*cursor, *oldest)),
        Error::SnapshotTooOld { .. } => return Unanswered::Never(Refusal::outlived(error.to_string())),
        // Another walcast continues it as another one: this one finds out soon, and is set up anew or ends.
        Error::FeedGone { .. } => return Unanswered::Later(Away::history(error)),
        _ => {}
    }
    match error.class() {
        ErrorClass::Transient => Unanswered::Later(Away::history(error)),
        _ => {
            tracing::error!(%error, "history cannot be read");
            let refusal = Refusal::new(ErrorCode::Internal, "the daemon cannot read its history");
            Unanswered::Never(refusal.hint(
                "ask again after a while; whoever runs walcast finds in its log what has to be done before that helps",
            ))
        }
    }
}

/// A table as the feed has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownTable {
    /// The name under which the feed has it.
    pub name: RelationName,
    /// Its object id: another table under the same name has another.
    pub oid: Oid,
    /// Its published columns.
    pub columns: Vec<String>,
}

/// The source's tables: which there are, and their rows.
pub trait InitialSync: std::fmt::Debug + Send + Sync + 'static {
    /// The published tables as they are now.
    fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>>;

    /// A published table as filters are bound to it, in the definition that it has now; `None` when it is not published.
    fn schema<'a>(&'a self, name: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>>;

    /// A table as filters are bound to it, in this definition, with what is known of its types and collations now.
    fn schema_of(&self, relation: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>>;

    /// Rows of a table by key, as they are now; see [`Snapshots::rows`].
    fn rows<'a>(
        &'a self,
        _table: &'a SnapshotTable,
        _keys: &'a [Key],
    ) -> BoxFuture<'a, Result<FoundRows, Unanswered>> {
        Box::pin(async { Err(Unanswered::Later(Away::source("this source has no rows by key"))) })
    }

    /// An initial sync, to `events`; see [`Snapshots::run`].
    fn run(
        &self,
        tables: Vec<SnapshotTable>,
        events: mpsc::Sender<SnapshotEvent>,
    ) -> BoxFuture<'_, Result<(), Unanswered>>;
}

impl InitialSync for Snapshots {
    fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>> {
        Box::pin(async move {
            let tables = self.published_tables().await.map_err(|error| of_source(&error))?;
            Ok(tables
                .into_iter()
                .map(|table| KnownTable { name: table.name, oid: table.oid, columns: table.columns })
                .collect())
        })
    }

    fn schema<'a>(&'a self, name: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>> {
        Box::pin(async move { Self::schema(self, name).await.map_err(|error| of_source(&error)) })
    }

    fn schema_of(&self, relation: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>> {
        Box::pin(async move {
            let facts = self.facts(relation.oid()).await.map_err(|error| of_source(&error))?;
            Ok(facts.schema(relation))
        })
    }

    fn rows<'a>(
        &'a self,
        table: &'a SnapshotTable,
        keys: &'a [Key],
    ) -> BoxFuture<'a, Result<FoundRows, Unanswered>> {
        Box::pin(async move { Self::rows(self, table, keys).await.map_err(|error| of_source(&error)) })
    }

    fn run(
        &self,
        tables: Vec<SnapshotTable>,
        events: mpsc::Sender<SnapshotEvent>,
    ) -> BoxFuture<'_, Result<(), Unanswered>> {
        Box::pin(async move { Self::run(self, tables, events).await.map_err(|error| of_source(&error)) })
    }
}

fn of_source(error: &walcast_snapshot::Error) -> Unanswered {
    use walcast_snapshot::Error;
    let code = match error {
        Error::Source(_) if error.class() == ErrorClass::Transient => {
            return Unanswered::Later(Away::source(error.to_string()));
        }
        Error::UnknownTable { .. }
        | Error::NotPublished { .. }
        | Error::Partitioned { .. }
        | Error::Partition { .. } => ErrorCode::UnknownTable,
        Error::UnknownColumn { .. }
        | Error::Key { .. }
        | Error::KeyColumns { .. }
        | Error::KeyValue { .. } => ErrorCode::BadMessage,
        Error::TooManyTables { .. } | Error::TooLarge { .. } => ErrorCode::LimitExceeded,
        // It fitted a moment ago: the table was altered, and asking again finds out. The words may be of a policy.
        Error::Filter { table, .. } => {
            let message = format!("{table} is another one now, which the filter does not fit");
            let refusal = Refusal::new(ErrorCode::NotReady, message);
            return Unanswered::Never(refusal.hint("ask again"));
        }
        Error::Unexpected(_) => ErrorCode::Internal,
        // Somebody has to act, or time has to pass; the same request succeeds then.
        _ => ErrorCode::NotReady,
    };
    if matches!(code, ErrorCode::UnknownTable | ErrorCode::BadMessage) {
        tracing::debug!(%error, "a client asks for rows that cannot be had");
    } else {
        let fix = error.statement();
        let hint = error.hint().filter(|_| fix.is_none());
        tracing::warn!(%error, fix, hint, "rows of the source cannot be had");
    }
    let words = format!("failed to {error}");
    let refusal = match error {
        // About what the client has sent, and what `relation` tells it.
        Error::Key { .. } | Error::KeyColumns { .. } | Error::TooLarge { .. } | Error::Stalled { .. } => {
            Refusal::new(code, words)
        }
        _ => Refusal::of_inside(code, words),
    };
    Unanswered::Never(match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    })
}

#[cfg(test)]
mod tests {
    use walcast_history::Error;
    use walcast_protocol::ErrorCode;

    use super::{Unanswered, of_history, of_source};
    use crate::testing::at;

    #[test]
    fn only_those_who_may_know_everything_are_told_what_the_source_says() {
        use walcast_model::RelationName;
        use walcast_snapshot::Error;
        let name = |name: &str| RelationName::new("inner", name);
        let errors = [
            Error::Forbidden { table: name("t"), role: "inner".into(), statement: "GRANT inner".into() },
            Error::RowSecurity { table: name("t"), role: "inner".into(), statement: "ALTER inner".into() },
            Error::Partition { table: name("t"), root: name("root") },
            Error::Partitioned { table: name("t"), partition: name("one") },
            Error::NotPublished { table: name("t"), publications: "inner".into() },
            Error::ColumnListsDiffer { table: name("t"), publications: "inner".into() },
            Error::KeyValue { table: name("t"), problem: "inner".into() },
            Error::Unexpected("inner".into()),
        ];
        for error in errors {
            // What is logged has it as a field of its own.
            assert!(
                error.statement().is_none_or(|statement| !error.to_string().contains(statement)),
                "{error}"
            );
            let Unanswered::Never(refusal) = of_source(&error) else { panic!("{error}") };
            let (bounded, everything) = (refusal.clone().told(false), refusal.told(true));
            assert_eq!(bounded.code, everything.code);
            assert!(everything.message.contains("inner"), "{everything:?}");
            assert!(!format!("{bounded:?}").replace("is_of_inside", "").contains("inner"), "{bounded:?}");
            assert!(bounded.hint.is_some());
        }
    }

    #[test]
    fn what_retention_dropped_is_too_old_and_no_fault_of_the_history() {
        let refusal = |error: &Error| match of_history(error) {
            Unanswered::Never(refusal) => (refusal.code, refusal.oldest),
            Unanswered::Later(away) => panic!("{away:?}"),
        };
        let too_old = Error::TooOld { cursor: at(10), oldest: at(20) };
        assert_eq!(refusal(&too_old), (ErrorCode::CursorTooOld, Some(at(20))));
        let sync = Error::SnapshotTooOld { snapshot: "1:1:".into() };
        assert_eq!(refusal(&sync), (ErrorCode::NotReady, None));
        assert_eq!(refusal(&Error::Hole { at: at(10) }), (ErrorCode::Internal, None));
        let branched = Error::FeedGone { feed: "a".parse().unwrap() };
        assert!(matches!(of_history(&branched), Unanswered::Later(_)));
    }
}
