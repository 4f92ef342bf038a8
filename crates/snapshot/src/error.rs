//! Why an initial sync cannot be had, and how to react.

use std::time::Duration;

use walcast_model::RelationName;
use walcast_postgres::ErrorClass;

/// Why an initial sync ended without its [`crate::SnapshotEvent::Done`].
///
/// A lost or refused connection is not among them: it is waited out, and the initial sync begins again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source is a standby, whose snapshots do not list the transactions that are open on the primary.
    #[error("take an initial sync from a standby: its snapshots do not know the primary's open transactions")]
    Standby,
    /// No such table.
    #[error("read {table}: there is no such table")]
    UnknownTable {
        /// As it was asked for.
        table: RelationName,
    },
    /// The table exists and is not part of the feed.
    #[error("read {table}: it is not in the publication ({publications})")]
    NotPublished {
        /// As it was asked for.
        table: RelationName,
        /// The publications of the feed, by name.
        publications: String,
    },
    /// The table is partitioned, and its partitions are in the feed under names of their own.
    #[error(
        "read {table}: it is partitioned, and the feed has its partitions under their own names, such as {partition}"
    )]
    Partitioned {
        /// As it was asked for.
        table: RelationName,
        /// One of its partitions that is in the feed.
        partition: RelationName,
    },
    /// The table is a partition, and the feed has its rows under the partitioned table's name.
    #[error("read {table}: the feed has the rows of this partition under the name {root}")]
    Partition {
        /// As it was asked for.
        table: RelationName,
        /// The name that the feed uses.
        root: RelationName,
    },
    /// A column that was asked for is not among the published ones.
    #[error("read column {column:?} of {table}: the publication does not have it")]
    UnknownColumn {
        /// The table.
        table: RelationName,
        /// The column, as it was asked for.
        column: String,
    },
    /// The condition cannot be put to the table as it is.
    #[error("filter {table}: {error}")]
    Filter {
        /// The table.
        table: RelationName,
        /// What is wrong.
        error: walcast_filter::FilterError,
    },
    /// walcast's role may not read the table.
    #[error("read {table}: role {role:?} may not")]
    Forbidden {
        /// The table.
        table: RelationName,
        /// walcast's role on the source.
        role: String,
        /// What allows it.
        statement: String,
    },
    /// Row security would hide rows from walcast's role, while the stream has them all.
    #[error("read {table}: row security hides rows of it from role {role:?}")]
    RowSecurity {
        /// The table.
        table: RelationName,
        /// walcast's role on the source.
        role: String,
        /// What allows it.
        statement: String,
    },
    /// Two publications of the feed publish different columns of one table, which Postgres cannot stream either.
    #[error(
        "read {table}: the publications ({publications}) list different columns of it; give them the same list"
    )]
    ColumnListsDiffer {
        /// The table.
        table: RelationName,
        /// The publications of the feed, by name.
        publications: String,
    },
    /// The client took nothing for so long that its snapshot was given up; it may ask again.
    #[error("go on with an initial sync whose client took nothing for {} s (snapshot_stall_max)", after.as_secs())]
    Stalled {
        /// The limit.
        after: Duration,
    },
    /// More tables at once than the source can lock.
    #[error(
        "lock {tables} tables at once in the source; ask for fewer, or raise max_locks_per_transaction there"
    )]
    TooManyTables {
        /// How many were asked for.
        tables: usize,
    },
    /// The rows cannot be looked up by these keys.
    #[error("look rows of {table} up by key: {problem}")]
    Key {
        /// The table.
        table: RelationName,
        /// What is wrong with the keys, or the table's.
        problem: String,
    },
    /// A key that was asked for has other columns than the table's.
    #[error("look rows of {table} up by key: key {place} has {given}, and the key of {table} is {}", columns.join(", "))]
    KeyColumns {
        /// The table.
        table: RelationName,
        /// Which key of the request, from 1.
        place: usize,
        /// What it has, for people.
        given: String,
        /// What it should have.
        columns: Vec<String>,
    },
    /// The server cannot read a value as its column's type.
    #[error("read a key of {table}: {problem}")]
    KeyValue {
        /// The table.
        table: RelationName,
        /// What the server says, which may name types that the key is made of.
        problem: String,
    },
    /// The rows of one look-up are too large.
    #[error("look rows of {table} up at once: they are larger than {bytes_max} bytes (rows_bytes_max)")]
    TooLarge {
        /// The table.
        table: RelationName,
        /// The limit.
        bytes_max: usize,
    },
    /// The source answered something that makes no sense here.
    #[error("understand the source's answer: {0}")]
    Unexpected(String),
    /// Postgres refused, for a reason that does not pass by itself.
    #[error("read from the source: {0}")]
    Source(#[from] walcast_postgres::Error),
}

impl Error {
    /// How to react: [`ErrorClass::Transient`] means that the client may ask again, after a while.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Stalled { .. } => ErrorClass::Transient,
            Self::Source(error) => error.class(),
            Self::Unexpected(_) => ErrorClass::Bug,
            _ => ErrorClass::Operator,
        }
    }

    /// The statement that mends it, where one does; it is the [`hint`](Self::hint) then.
    #[must_use]
    pub fn statement(&self) -> Option<&str> {
        match self {
            Self::Forbidden { statement, .. } | Self::RowSecurity { statement, .. } => Some(statement),
            _ => None,
        }
    }

    /// The statement or action that mends it, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Standby => Some("let --database-url name the primary".to_owned()),
            Self::UnknownTable { .. } => {
                Some("write it as schema.table, spelled as in the catalog".to_owned())
            }
            Self::NotPublished { .. } => {
                Some("run walcast doctor: it says why the table is not published and what adds it".to_owned())
            }
            Self::Partitioned { partition, .. } => Some(format!("ask for {partition} and its siblings")),
            Self::Partition { root, .. } => Some(format!("ask for {root}")),
            Self::Forbidden { .. } | Self::RowSecurity { .. } => self.statement().map(str::to_owned),
            Self::Filter { error, .. } => Some(error.hint().to_owned()),
            Self::KeyColumns { columns, .. } => {
                let fields: Vec<String> = columns.iter().map(|name| format!("{name:?}: …")).collect();
                Some(format!("write each key as {{{}}}", fields.join(", ")))
            }
            Self::KeyValue { .. } => Some("a value is written as `row` has it".to_owned()),
            Self::TooLarge { .. } => Some("ask for fewer keys at a time".to_owned()),
            Self::Stalled { .. } => Some("ask again, and read what is sent".to_owned()),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Source(error.into())
    }
}
