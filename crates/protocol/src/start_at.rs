//! Where a subscription starts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use walcast_model::Cursor;

/// Where a subscription starts; `subscribe.cursor`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum StartAt {
    /// `0/0`, and what a missing `cursor` means: an initial sync, then what changed since.
    #[default]
    Snapshot,
    /// A cursor: the first change for which `(lsn, seq) >=` it, and everything after.
    At(Cursor),
    /// `latest`: what commits from now on, without an initial sync.
    Latest,
    /// `acked`: where this `client_id` last acknowledged.
    Acked,
}

/// Why a text is not a place to start at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a cursor such as 16/B374D848 or 16/B374D848:3, nor 0/0, latest or acked")]
pub struct ParseStartAtError {
    text: String,
}

impl From<Cursor> for StartAt {
    /// `0/0` is [`StartAt::Snapshot`].
    fn from(cursor: Cursor) -> Self {
        if cursor == Cursor::ZERO { Self::Snapshot } else { Self::At(cursor) }
    }
}

impl FromStr for StartAt {
    type Err = ParseStartAtError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            "acked" => Ok(Self::Acked),
            cursor => cursor
                .parse::<Cursor>()
                .map(Self::from)
                // Hostile input can be long; a message that names it should not be.
                .map_err(|_| ParseStartAtError { text: text.chars().take(40).collect() }),
        }
    }
}

impl fmt::Display for StartAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot => Cursor::ZERO.fmt(f),
            Self::At(cursor) => cursor.fmt(f),
            Self::Latest => f.write_str("latest"),
            Self::Acked => f.write_str("acked"),
        }
    }
}

impl Serialize for StartAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StartAt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::StartAt;

    #[test]
    fn every_text_form_round_trips_and_zero_asks_for_a_snapshot() {
        for text in ["0/0", "latest", "acked", "16/B374D848", "16/B374D848:3", "0/7:-1"] {
            assert_eq!(text.parse::<StartAt>().unwrap().to_string(), text);
        }
        assert_eq!("0/0".parse(), Ok(StartAt::Snapshot));
        assert_eq!("0/0:0".parse(), Ok(StartAt::Snapshot));
        for text in ["", "Latest", "16", "now"] {
            assert!(text.parse::<StartAt>().is_err(), "{text:?}");
        }
    }
}
