//! What the oracle finds wrong.

use std::fmt;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    /// A committed change was passed over.
    Lost,
    /// A change came again.
    Repeated,
    /// A transaction came before one that was committed earlier.
    Reordered,
    /// Transactions were mixed, or one came in pieces that are not one.
    Torn,
    /// Something else that docs/protocol.md does not allow: a wrong value, a wrong cursor, an unknown definition.
    Wrong,
    /// It did not come in time.
    Stuck,
}

/// A broken promise, with what shows it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub kind: ViolationKind,
    /// What was seen, where, and what was expected.
    pub text: String,
}

impl Violation {
    /// A violation of this kind.
    pub fn new(kind: ViolationKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self::new(ViolationKind::Wrong, text)
    }

    pub(crate) fn torn(text: impl Into<String>) -> Self {
        Self::new(ViolationKind::Torn, text)
    }

    /// The same, with who saw it in front.
    #[must_use]
    pub fn seen_by(mut self, who: &str) -> Self {
        self.text = format!("{who}: {}", self.text);
        self
    }
}

impl fmt::Display for ViolationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Repeated => "repeated",
            Self::Reordered => "reordered",
            Self::Torn => "torn",
            Self::Wrong => "wrong",
            Self::Stuck => "stuck",
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.text)
    }
}
