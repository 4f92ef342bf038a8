//! What sessions need of history and of the source, as narrow as they need it.

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use walcast_history::{Page, PageLimits, Reader};
use walcast_model::{Cursor, RelationName, Snapshot};
use walcast_protocol::ErrorCode;
use walcast_snapshot::{SnapshotEvent, SnapshotTable, Snapshots};

use crate::refusal::Refusal;

/// Why a question could not be answered.
#[derive(Debug)]
pub enum Unanswered {
    /// It passes by itself: ask again after a while.
    Later(String),
    /// The subscription is over.
    Never(Refusal),
}

/// The part of the feed that is no longer in memory.
pub trait PastPages: std::fmt::Debug + Send + Sync + 'static {
    /// What lies at or after `from` and before `to`, as much as fits into a page; `to` was stored before. A page that
    /// does not reach back to `from`, because that is no longer there, is [`Unanswered::Never`].
    fn page(&self, from: Cursor, to: Cursor, limits: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>>;

    /// The oldest cursor that can be served.
    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>>;

    /// The first transaction before `before` that `snapshot` does not see.
    fn first_invisible<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        before: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>>;
}

impl PastPages for Reader {
    fn page(&self, from: Cursor, to: Cursor, limits: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        Box::pin(async move {
            let page = self.read(from, to, limits).await.map_err(|error| of_history(&error))?;
            // After the page: what was removed before it was read is known by now.
            let oldest = Self::oldest(self).await.map_err(|error| of_history(&error))?;
            if from < oldest { Err(Unanswered::Never(Refusal::too_old(from, oldest))) } else { Ok(page) }
        })
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        Box::pin(async move { Self::oldest(self).await.map_err(|error| of_history(&error)) })
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

fn of_history(error: &walcast_history::Error) -> Unanswered {
    match error.class() {
        walcast_history::ErrorClass::Transient => Unanswered::Later(error.to_string()),
        _ => {
            tracing::error!(%error, "history cannot be read");
            let refusal = Refusal::new(ErrorCode::Internal, "the daemon cannot read its history");
            Unanswered::Never(refusal.hint("the daemon's log says what an operator has to do"))
        }
    }
}

/// A table as the feed has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownTable {
    /// The name under which the feed has it.
    pub name: RelationName,
    /// Its published columns.
    pub columns: Vec<String>,
}

/// The source's tables: which there are, and their rows.
pub trait InitialSync: std::fmt::Debug + Send + Sync + 'static {
    /// The published tables as they are now.
    fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>>;

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
                .map(|table| KnownTable { name: table.name, columns: table.columns })
                .collect())
        })
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
        Error::Source(_) if error.class() == walcast_history::ErrorClass::Transient => {
            return Unanswered::Later(error.to_string());
        }
        Error::UnknownTable { .. }
        | Error::NotPublished { .. }
        | Error::Partitioned { .. }
        | Error::Partition { .. } => ErrorCode::UnknownTable,
        Error::UnknownColumn { .. } => ErrorCode::BadMessage,
        Error::TooManyTables { .. } => ErrorCode::LimitExceeded,
        Error::Unexpected(_) => ErrorCode::Internal,
        // Somebody has to act, or time has to pass; the same request succeeds then.
        _ => ErrorCode::NotReady,
    };
    if !matches!(code, ErrorCode::UnknownTable | ErrorCode::BadMessage) {
        tracing::warn!(%error, "an initial sync failed");
    }
    let refusal = Refusal::new(code, format!("failed to {error}"));
    Unanswered::Never(match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    })
}
