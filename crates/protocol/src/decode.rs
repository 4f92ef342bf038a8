//! From a frame's text to a message.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::subscription_id::SubscriptionId;

/// Why a frame is no message. The connection survives each of them; the daemon answers `error`/`bad_message`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The text is not a JSON object with a `type`.
    #[error("a message is one JSON object with a string field \"type\": {}", words(source))]
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
    #[error(transparent)]
    Malformed(Box<Malformed>),
}

impl DecodeError {
    /// The message that could not be read, where its `type` is known.
    #[must_use]
    pub fn malformed(&self) -> Option<&Malformed> {
        if let Self::Malformed(malformed) = self { Some(malformed) } else { None }
    }
}

/// A message of which a field is missing or does not fit.
#[derive(PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The message's type.
    pub name: &'static str,
    /// Its `id`, where it has one that can be read.
    pub id: Option<SubscriptionId>,
    /// The field, with where it is: `tables[0].table`. Empty when it is about the message as a whole.
    pub field: String,
    /// What is wrong with the field; `None` when it is missing.
    pub reason: Option<String>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} message", self.name)?;
        if let Some(id) = &self.id {
            write!(f, " with the id {:?}", id.as_str())?;
        }
        match (self.field.as_str(), &self.reason) {
            (field, None) => write!(f, ": the field {field:?} is missing"),
            ("", Some(reason)) => write!(f, ": {reason}"),
            (field, Some(reason)) => write!(f, ": the field {field:?} does not fit: {reason}"),
        }
    }
}

impl std::error::Error for Malformed {}

impl Malformed {
    /// Finds out what is wrong with the message `name` in `text`, of which the parser says `error`.
    fn find<T: DeserializeOwned>(name: &'static str, text: &str, error: &serde_json::Error) -> Self {
        /// What has an `id`, whatever else it has.
        #[derive(Deserialize)]
        struct Named {
            id: SubscriptionId,
        }
        let id = serde_json::from_str::<Named>(text).ok().map(|named| named.id);
        let reading = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text));
        // The path of a message as a whole is ".".
        let at = reading
            .err()
            .map(|error| error.path().to_string())
            .filter(|path| path != ".")
            .unwrap_or_default();
        let reason = words(error);
        let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let field = match missing {
            Some(field) if at.is_empty() => field.to_owned(),
            Some(field) => format!("{at}.{field}"),
            None => at,
        };
        let is_missing = missing.is_some();
        Self {
            name,
            id,
            field: field.chars().take(FIELD_CHARACTERS_MAX).collect(),
            reason: (!is_missing).then_some(reason),
        }
    }
}

/// Characters of what the parser says that are passed on, and of a field's name. Both quote what came: all of a frame that
/// is one long string.
const REASON_CHARACTERS_MAX: usize = 240;
const FIELD_CHARACTERS_MAX: usize = 60;

/// What the parser says, in words of JSON. With the place only where the text is no JSON: elsewhere the field says more.
fn words(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let is_data = error.is_data();
    if let Some(plain) = text.strip_suffix(&place) {
        text.truncate(plain.len());
    }
    if is_data {
        for (theirs, ours) in [
            ("invalid type: map,", "invalid type: an object,"),
            ("invalid type: sequence,", "invalid type: a list,"),
        ] {
            if let Some(rest) = text.strip_prefix(theirs) {
                text = format!("{ours}{rest}");
            }
        }
        if let Some(rest) = text.strip_suffix("expected a sequence") {
            text = format!("{rest}expected a list");
        }
    }
    if let Some((end, _)) = text.char_indices().nth(REASON_CHARACTERS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    if is_data { text } else { text + &place }
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
    serde_json::from_str(text)
        .map_err(|error| DecodeError::Malformed(Box::new(Malformed::find::<T>(name, text, &error))))
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
