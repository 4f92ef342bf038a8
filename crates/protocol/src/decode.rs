//! From a frame's text to a message.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a frame is no message. The connection survives each of them; the daemon answers `error`/`bad_message`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The text is not a JSON object with a `type`.
    #[error("a message is one JSON object with a string field \"type\": {}", brief(source))]
    NotAMessage {
        /// What the parser says, with the place.
        source: serde_json::Error,
    },
    /// The `type` is not one that this side knows; the other side may be newer.
    #[error("unknown message type {name:?}; known are {known}", known = .known.join(", "))]
    UnknownType {
        /// The type that was asked for, cut to 60 characters.
        name: String,
        /// The types of this direction.
        known: &'static [&'static str],
    },
    /// The `type` is known, a field of it is missing or does not fit.
    #[error("malformed {name} message: {}", brief(source))]
    Malformed {
        /// The message's type.
        name: &'static str,
        /// What the parser says, with the field and the place.
        source: serde_json::Error,
    },
}

/// Characters of what the parser says that are passed on.
const REASON_CHARACTERS_MAX: usize = 240;

/// What the parser says, which quotes what it did not expect: all of a frame that is one long string.
fn brief(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(REASON_CHARACTERS_MAX) {
        text.truncate(end);
        text.push_str(&format!("… at line {} column {}", error.line(), error.column()));
    }
    text
}

/// The first look at a frame. A pass of its own, because serde's tagged enums buffer their content, and a buffered
/// number has lost its digits and a buffered raw value does not exist.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    name: Cow<'a, str>,
}

/// The type of the message in `text`.
pub(crate) fn type_of(text: &str) -> Result<Cow<'_, str>, DecodeError> {
    serde_json::from_str::<Head<'_>>(text)
        .map(|head| head.name)
        .map_err(|source| DecodeError::NotAMessage { source })
}

/// The fields of the message `name` in `text`.
pub(crate) fn fields<T: DeserializeOwned>(name: &'static str, text: &str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|source| DecodeError::Malformed { name, source })
}

/// The error for a type that is not in `known`.
pub(crate) fn unknown(name: &str, known: &'static [&'static str]) -> DecodeError {
    DecodeError::UnknownType { name: name.chars().take(60).collect(), known }
}

/// Defines a message enum: one variant for each type, with its name on the wire, its encoding and its decoding.
macro_rules! messages {
    ($(#[$attribute:meta])* $enum:ident { $($(#[doc = $doc:literal])* $name:literal => $variant:ident($body:ty),)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, serde::Serialize)]
        #[serde(tag = "type")]
        pub enum $enum {
            $($(#[doc = $doc])* #[serde(rename = $name)] $variant($body),)+
        }

        impl $enum {
            /// Every `type` of this direction.
            pub const TYPES: &'static [&'static str] = &[$($name),+];

            /// What the message of each `type` consists of beside it.
            #[cfg(test)]
            pub(crate) fn bodies(
                generator: &mut schemars::SchemaGenerator,
            ) -> Vec<(&'static str, &'static str, schemars::Schema)> {
                vec![$(($name, concat!($($doc),*), <$body as schemars::JsonSchema>::json_schema(generator)),)+]
            }

            /// The message's `type`.
            #[must_use]
            pub const fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// Reads one text frame.
            ///
            /// # Errors
            /// See [`DecodeError`](crate::DecodeError); none of them ends the connection.
            pub fn decode(text: &str) -> Result<Self, crate::DecodeError> {
                let name = crate::decode::type_of(text)?;
                match name.as_ref() {
                    $($name => crate::decode::fields($name, text).map(Self::$variant),)+
                    other => Err(crate::decode::unknown(other, Self::TYPES)),
                }
            }

            /// The text frame: one JSON object without line breaks, `type` first.
            #[must_use]
            pub fn to_json(&self) -> String {
                // Cannot fail: no map has a key that is not a string, and no field's serialization fails.
                serde_json::to_string(self).unwrap_or_default()
            }
        }

        $(impl From<$body> for $enum {
            fn from(body: $body) -> Self {
                Self::$variant(body)
            }
        })+
    };
}

pub(crate) use messages;
