//! What a database says to whoever is in a channel.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Lsn;

/// A message to a channel, written into the WAL: `{"channel": "room:1", "payload": …}`. It is passed on, and kept nowhere.
#[derive(Clone, Debug)]
pub struct DatabaseMessage {
    /// Where it is in the WAL: its record's end, or the start of its transaction's commit.
    pub lsn: Lsn,
    /// The channel.
    pub channel: Box<str>,
    /// What is said: JSON, as it was written, in one line.
    pub payload: Box<RawValue>,
}

/// Why a text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// Longer than [`DatabaseMessage::BYTES_MAX`].
    #[error("it has {0} bytes, and {max} are the most", max = DatabaseMessage::BYTES_MAX)]
    TooLong(usize),
    /// Not what it has to be.
    #[error("it is not {{\"channel\": \"name\", \"payload\": any JSON}} in UTF-8: {0}")]
    Malformed(String),
}

#[derive(Deserialize)]
struct Content {
    channel: Box<str>,
    payload: Box<RawValue>,
}

impl DatabaseMessage {
    /// The longest that is taken, in bytes.
    pub const BYTES_MAX: usize = 64 << 10;

    /// Reads one.
    ///
    /// # Errors
    /// When it is too long, or not such an object.
    pub fn parse(lsn: Lsn, bytes: &[u8]) -> Result<Self, BadMessage> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(BadMessage::TooLong(bytes.len()));
        }
        let malformed = |problem: &dyn std::fmt::Display| BadMessage::Malformed(problem.to_string());
        let text = std::str::from_utf8(bytes).map_err(|error| malformed(&error))?;
        // What the parser says may quote what is said.
        let kind = |error: serde_json::Error| match error.is_data() {
            true => malformed(&"channel, a text, or payload is missing"),
            false => malformed(&format_args!(
                "it is no JSON from line {} column {} on",
                error.line(),
                error.column()
            )),
        };
        let Content { channel, payload } = serde_json::from_str(text).map_err(kind)?;
        if channel.is_empty() || channel.contains(char::is_control) {
            return Err(malformed(&"a channel's name is not empty and has no control characters"));
        }
        Ok(Self { lsn, channel, payload: one_line(payload) })
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.channel.len() + self.payload.get().len()
    }
}

/// The same JSON in one line, as a message is.
#[must_use]
pub fn one_line(json: Box<RawValue>) -> Box<RawValue> {
    const BREAKS: [char; 3] = ['\n', '\r', '\t'];
    if !json.get().contains(BREAKS) {
        return json;
    }
    // They stand between tokens alone, so it is the same JSON.
    RawValue::from_string(json.get().replace(BREAKS, " ")).unwrap_or(json)
}

#[cfg(test)]
mod tests {
    use super::{BadMessage, DatabaseMessage};
    use crate::Lsn;

    #[test]
    fn a_payload_is_passed_on_as_it_was_written() {
        let parse = |text: &str| DatabaseMessage::parse(Lsn::new(7), text.as_bytes());
        let message = parse(
            "{\"more\": 1,\n\t\"payload\": {\"n\": 1.10,\n\"a\\n\": [] }, \"channel\": \"r\\u00f6m\"}\n",
        );
        let message = message.unwrap();
        assert_eq!((&*message.channel, message.payload.get()), ("röm", r#"{"n": 1.10, "a\n": [] }"#));
        assert_eq!(parse(r#"{"channel":"a","payload":null}"#).unwrap().payload.get(), "null");
        for text in [
            "",
            "{}",
            "[]",
            r#"{"channel":"a"}"#,
            r#"{"channel":"","payload":1}"#,
            r#"{"channel":"a\n","payload":1}"#,
            r#"{"channel":7,"payload":1}"#,
            r#"{"channel":"a","payload":1} x"#,
            "{\"channel\":\"a\",\"payload\":\"\n\"}",
        ] {
            assert!(matches!(parse(text), Err(BadMessage::Malformed(_))), "{text}");
        }
        let bytes = b"{\"channel\":\"a\",\"payload\":\"\xff\"}";
        assert!(matches!(DatabaseMessage::parse(Lsn::new(7), bytes), Err(BadMessage::Malformed(_))));
        let long = format!(r#"{{"channel":"a","payload":"{}"}}"#, "x".repeat(DatabaseMessage::BYTES_MAX));
        assert_eq!(parse(&long).unwrap_err(), BadMessage::TooLong(long.len()));
    }
}
