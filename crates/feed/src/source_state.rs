//! How the feed's source is doing, as told to clients and operators.

/// The state of the connection from which the feed is fed. A failure is a state, never an exit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceState {
    /// Entered at start; left when the slot streams for the first time.
    Starting,
    /// The slot streams.
    Streaming,
    /// Entered when the connection is lost or refused; left when the slot streams again. The replicator
    /// retries for ever.
    Interrupted {
        /// What happened, for people.
        reason: String,
        /// What an operator can do about it, where something has to be done.
        hint: Option<String>,
    },
}
