//! Why a stream cannot be assembled.

use walcast_model::Oid;

/// Why a stream cannot be assembled. The same messages would come again after a reconnect, so each is a defect of
/// walcast or of the server; none is passed over, because that would lose changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A change, a message or a commit without a `Begin`, or a `Begin` without the `Commit` before it.
    #[error("{message} out of place in the replication stream; report it with the server's version")]
    Misplaced {
        /// What came.
        message: &'static str,
    },
    /// A change of a table whose definition was not sent.
    #[error("a change of relation {oid} came before its definition; report it with the server's version")]
    UnknownRelation {
        /// The table.
        oid: Oid,
    },
    /// A row that does not fit its table's definition.
    #[error("a row of {relation} has {got} columns instead of {want}; report it with the server's version")]
    ColumnCount {
        /// The table.
        relation: String,
        /// As the definition says.
        want: usize,
        /// As the row says.
        got: usize,
    },
    /// A message of protocol features that walcast does not switch on.
    #[error("{message} came although streaming and two-phase are off; report it with the server's version")]
    NotAskedFor {
        /// What came.
        message: &'static str,
    },
    /// One change is over 4 GiB of JSON.
    #[error(
        "one change of {relation} is over 4 GiB of JSON; take the table out of the publication, or start the feed over"
    )]
    TooLarge {
        /// The table.
        relation: String,
    },
}
