//! Error codes and close codes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What was wrong, for programs; `error.code`. The words for people stand beside it in `message` and `hint`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ErrorCode {
    /// The frame is not text, not JSON, of an unknown `type`, or its fields do not fit.
    BadMessage,
    /// No token, or one that is wrong or expired.
    Unauthorized,
    /// The token does not allow it.
    Forbidden,
    /// A table that does not exist or is not published.
    UnknownTable,
    /// A `where` that cannot be read, or that names what is not there.
    BadFilter,
    /// A `where` over columns that are not in the table's replica identity.
    IdentityRequired,
    /// History does not reach back to the cursor; `error.oldest` is the first cursor that it can serve. Only an
    /// initial sync helps.
    CursorTooOld,
    /// The cursor is ahead of the feed: it is from another feed, or its source lost what it had committed.
    CursorAhead,
    /// The cursor belongs to another feed id. Only an initial sync helps.
    FeedChanged,
    /// A limit of the daemon is crossed; the message names it.
    LimitExceeded,
    /// The daemon cannot answer yet; the same request succeeds later.
    NotReady,
    /// A fault of the daemon. The same request may succeed later.
    Internal,
    /// A code that this version does not know.
    Other(String),
}

impl ErrorCode {
    /// Every code that this version knows, in the order of the contract.
    pub const KNOWN: [Self; 12] = [
        Self::BadMessage,
        Self::Unauthorized,
        Self::Forbidden,
        Self::UnknownTable,
        Self::BadFilter,
        Self::IdentityRequired,
        Self::CursorTooOld,
        Self::CursorAhead,
        Self::FeedChanged,
        Self::LimitExceeded,
        Self::NotReady,
        Self::Internal,
    ];

    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::BadMessage => "bad_message",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::UnknownTable => "unknown_table",
            Self::BadFilter => "bad_filter",
            Self::IdentityRequired => "identity_required",
            Self::CursorTooOld => "cursor_too_old",
            Self::CursorAhead => "cursor_ahead",
            Self::FeedChanged => "feed_changed",
            Self::LimitExceeded => "limit_exceeded",
            Self::NotReady => "not_ready",
            Self::Internal => "internal",
            Self::Other(code) => code,
        }
    }

    /// Whether the same request may succeed later without anybody changing anything: `not_ready` and `internal`.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::NotReady | Self::Internal)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&str> for ErrorCode {
    fn from(text: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|code| code.as_str() == text);
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(std::borrow::Cow::<'de, str>::deserialize(deserializer)?.as_ref().into())
    }
}

/// Why the daemon closes a connection: WebSocket close codes (RFC 6455 section 7.4; 4000 and up are ours).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseCode {
    /// 1001: the daemon restarts or stops. Reconnect with jitter.
    Restart,
    /// 1008: the client broke a rule; a fatal `error` came before. Do not reconnect unchanged.
    Policy,
    /// 1009: a frame of the client was over `welcome.limits.message_bytes_max`.
    TooBig,
    /// 4401: the token is missing, wrong or expired. Reconnect with another one.
    Unauthorized,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Restart => 1001,
            Self::Policy => 1008,
            Self::TooBig => 1009,
            Self::Unauthorized => 4401,
        }
    }

    /// The code with this number; `None` for those that the contract gives no meaning, after which a client reconnects.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1001 => Some(Self::Restart),
            1008 => Some(Self::Policy),
            1009 => Some(Self::TooBig),
            4401 => Some(Self::Unauthorized),
            _ => None,
        }
    }

    /// Whether reconnecting without a change can help.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Restart)
    }
}

#[cfg(test)]
mod tests {
    use super::{CloseCode, ErrorCode};

    #[test]
    fn codes_round_trip_and_unknown_ones_keep_their_word() {
        for code in ErrorCode::KNOWN {
            assert_eq!(ErrorCode::from(code.as_str()), code);
        }
        assert_eq!(ErrorCode::from("new_in_2031").as_str(), "new_in_2031");
        for code in [CloseCode::Restart, CloseCode::Policy, CloseCode::TooBig, CloseCode::Unauthorized] {
            assert_eq!(CloseCode::from_number(code.number()), Some(code));
        }
        assert_eq!(CloseCode::from_number(1006), None);
    }
}
