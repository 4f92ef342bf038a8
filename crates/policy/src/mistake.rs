//! What can be wrong with the text of policies.

/// Something that is wrong with the text of policies.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {message}; {hint}")]
pub struct Mistake {
    /// Which policy, or which line.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}
