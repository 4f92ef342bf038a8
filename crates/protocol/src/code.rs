//! Error codes and close codes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Defines the codes: each with its word on the wire.
macro_rules! codes {
    ($(#[$attribute:meta])* $enum:ident { $($(#[doc = $doc:literal])* $word:literal => $variant:ident,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, PartialEq, Eq, Hash, Debug)]
        pub enum $enum {
            $($(#[doc = $doc])* $variant,)+
            /// A code that this version does not know.
            Other(String),
        }

        impl $enum {
            /// Every code that this version knows.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),+];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(code) => code,
                }
            }
        }
    };
}

codes! {
    /// What was wrong, for programs; `error.code`. The words for people stand beside it in `message` and `hint`.
    ErrorCode {
        /// The frame is not text, not JSON, of an unknown `type`, or its fields do not fit.
        "bad_message" => BadMessage,
        /// No token, or one that is wrong or expired.
        "unauthorized" => Unauthorized,
        /// The token does not allow it.
        "forbidden" => Forbidden,
        /// A table that does not exist or is not published.
        "unknown_table" => UnknownTable,
        /// Over HTTP: there is nothing at this path.
        "not_found" => NotFound,
        /// A `where` that cannot be read, or that names what is not there.
        "bad_filter" => BadFilter,
        /// A `where` over columns that are not in the table's replica identity.
        "identity_required" => IdentityRequired,
        /// History does not reach back to the cursor; `error.oldest` is the first cursor that it can serve. Only an
        /// initial sync helps.
        "cursor_too_old" => CursorTooOld,
        /// The cursor is ahead of the feed: it is from another feed, or its source lost what it had committed.
        "cursor_ahead" => CursorAhead,
        /// The cursor belongs to another feed id. Only an initial sync helps.
        "feed_changed" => FeedChanged,
        /// A limit of the daemon is crossed; the message names it.
        "limit_exceeded" => LimitExceeded,
        /// The daemon cannot answer yet; the same request succeeds later.
        "not_ready" => NotReady,
        /// A fault of the daemon. The same request may succeed later.
        "internal" => Internal,
    }
}

impl ErrorCode {
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
        let known = Self::KNOWN.iter().find(|code| code.as_str() == text);
        known.cloned().unwrap_or_else(|| Self::Other(text.to_owned()))
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
            assert_eq!(ErrorCode::from(code.as_str()), *code);
        }
        assert_eq!(ErrorCode::from("new_in_2031").as_str(), "new_in_2031");
        for code in [CloseCode::Restart, CloseCode::Policy, CloseCode::TooBig, CloseCode::Unauthorized] {
            assert_eq!(CloseCode::from_number(code.number()), Some(code));
        }
        assert_eq!(CloseCode::from_number(1006), None);
    }
}
