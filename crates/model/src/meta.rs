//! What a transaction says about itself.

use std::fmt;

use serde::Deserialize;

/// What the writer of a transaction says about it: a JSON object, as it was written. Its member `origin`, a text, says
/// where the transaction comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Meta {
    json: Box<str>,
    origin: Option<Box<str>>,
}

/// The members that mean something here.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    origin: Option<serde_json::Value>,
    /// Read in full, so that what is passed on is JSON.
    #[serde(flatten)]
    _others: serde_json::Map<String, serde_json::Value>,
}

/// Why a text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMeta {
    /// Longer than [`Meta::BYTES_MAX`].
    #[error("it has {0} bytes, and {max} are the most", max = Meta::BYTES_MAX)]
    TooLong(usize),
    /// Not a JSON object in UTF-8.
    #[error("it is not a JSON object in UTF-8: {0}")]
    NotAnObject(String),
    /// `jsonb` has no place for it.
    #[error("it holds \\u0000, which Postgres cannot store")]
    Nul,
}

impl Meta {
    /// The longest that is taken, in bytes. A longer one is left out, and said.
    pub const BYTES_MAX: usize = 8 << 10;

    /// Reads one.
    ///
    /// # Errors
    /// When it is too long or no JSON object.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadMeta> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(BadMeta::TooLong(bytes.len()));
        }
        let not_an_object = |problem: &dyn fmt::Display| BadMeta::NotAnObject(problem.to_string());
        let text = std::str::from_utf8(bytes).map_err(|error| not_an_object(&error))?.trim_ascii();
        if !text.starts_with('{') {
            return Err(not_an_object(&"it does not begin with a brace"));
        }
        let known: Known = serde_json::from_str(text).map_err(|error| not_an_object(&error))?;
        if text.contains("\\u0000") {
            return Err(BadMeta::Nul);
        }
        let origin = known.origin.as_ref().and_then(serde_json::Value::as_str).map(Box::from);
        Ok(Self { json: text.into(), origin })
    }

    /// The JSON object, as its writer wrote it.
    #[must_use]
    pub const fn json(&self) -> &str {
        &self.json
    }

    /// Where the transaction comes from, if that was said with a text.
    #[must_use]
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

#[cfg(test)]
mod tests {
    use super::{BadMeta, Meta};

    #[test]
    fn an_object_is_kept_as_it_was_written() {
        let meta = Meta::parse(b" {\"user\": 7.10, \"origin\":\"d\\u00e9j\\u00e0\", \"user\": 8}\n").unwrap();
        assert_eq!(meta.json(), r#"{"user": 7.10, "origin":"d\u00e9j\u00e0", "user": 8}"#);
        assert_eq!(meta.origin(), Some("déjà"));
        assert_eq!(Meta::parse(b"{}").unwrap().origin(), None);
        assert_eq!(Meta::parse(br#"{"origin":7}"#).unwrap().origin(), None, "only a text says where");
    }

    #[test]
    fn nothing_else_is_taken() {
        let texts: [&[u8]; 7] =
            [b"", b"[]", b"[\"x\"]", b"{\"a\":1", b"{\"a\":1}}", b"{\"a\":\"\xff\"}", b"{\"a\":\"\\ud800\"}"];
        for text in texts {
            let error = Meta::parse(text).unwrap_err();
            assert!(matches!(error, BadMeta::NotAnObject(_)), "{}: {error}", String::from_utf8_lossy(text));
        }
        assert_eq!(Meta::parse(br#"{"a":"\u0000"}"#), Err(BadMeta::Nul));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(Meta::BYTES_MAX));
        assert_eq!(Meta::parse(long.as_bytes()), Err(BadMeta::TooLong(long.len())));
        assert!(Meta::parse(&b"{\"a\":".repeat(1000)).is_err(), "as deep as it likes");
    }
}
