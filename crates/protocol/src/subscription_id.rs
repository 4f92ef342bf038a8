//! How a client calls one of its subscriptions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The client's own name for a subscription, unique in its connection: 1 to [`SubscriptionId::BYTES_MAX`] bytes of any
/// text. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubscriptionId(Arc<str>);

impl SubscriptionId {
    /// The longest id in bytes of UTF-8; a longer one is refused as `bad_message`.
    pub const BYTES_MAX: usize = 128;

    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a subscription id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a subscription id has 1 to {max} bytes, this one has {0}", max = SubscriptionId::BYTES_MAX)]
pub struct ParseSubscriptionIdError(usize);

impl FromStr for SubscriptionId {
    type Err = ParseSubscriptionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=Self::BYTES_MAX).contains(&text.len());
        if fits { Ok(Self(text.into())) } else { Err(ParseSubscriptionIdError(text.len())) }
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SubscriptionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SubscriptionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
