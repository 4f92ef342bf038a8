//! Which positions are comparable.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names a feed. Cursors are comparable only under one feed id: another cluster, a restored backup or a
/// history that was started over has another. Opaque to clients; 1 to 64 characters of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FeedId(String);

/// Why a text is not a feed id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a feed id is 1 to 64 letters, digits, '_' or '-'")]
pub struct ParseFeedIdError;

impl FeedId {
    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FeedId {
    type Err = ParseFeedIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseFeedIdError) }
    }
}

impl TryFrom<String> for FeedId {
    type Error = ParseFeedIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FeedId> for String {
    fn from(id: FeedId) -> Self {
        id.0
    }
}

impl fmt::Display for FeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
