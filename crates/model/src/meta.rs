//! What a transaction says about itself.

use std::fmt;

use serde::Deserialize;

/// What the writer of a transaction says about it: a JSON object, as it was written, in one line. Its member `origin`, a text, says
/// where the transaction comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Meta {
    json: Box<str>,
    origin: Option<Box<str>>,
}

/// The members that mean something here. The others are looked at only for being JSON.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    origin: Option<serde_json::Value>,
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
    /// `jsonb` has no place for what an escape stands for.
    #[error("it holds \\u0000 or half of a surrogate pair, which Postgres cannot store")]
    Unstorable,
}

impl Meta {
    /// The longest that is taken, in bytes. A longer one is left out, and said.
    pub const BYTES_MAX: usize = 8 << 10;
    /// The longest `origin` that counts, in bytes. A longer one is passed on as the rest is, and nobody can ask for it.
    pub const ORIGIN_BYTES_MAX: usize = 128;

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
        if !is_storable(text) {
            return Err(BadMeta::Unstorable);
        }
        let origin = known.origin.as_ref().and_then(serde_json::Value::as_str);
        let origin = origin.filter(|origin| origin.len() <= Self::ORIGIN_BYTES_MAX).map(Box::from);
        // Between tokens alone, since it is JSON: a message is one line.
        let json = text.replace(['\n', '\r', '\t'], " ");
        Ok(Self { json: json.into(), origin })
    }

    /// The JSON object, as its writer wrote it, in one line.
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

/// Whether `jsonb` takes all that the escapes of a JSON text stand for.
fn is_storable(json: &str) -> bool {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u").and_then(|rest| rest.get(..4));
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at..];
        let length = match unit(escape) {
            None => 2,
            Some(0 | 0xDC00..=0xDFFF) => return false,
            Some(0xD800..=0xDBFF) => match escape.get(6..).and_then(unit) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return false,
            },
            Some(_) => 6,
        };
        rest = escape.get(length..).unwrap_or_default();
    }
    true
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
        let long = format!(r#"{{"origin":"{}"}}"#, "x".repeat(129));
        assert_eq!(Meta::parse(long.as_bytes()).unwrap().origin(), None, "nobody can ask for it");
        // Whatever jsonb prints.
        for text in [r#"{"n": 1e400, "re": "\\u0000", "smile": "\ud83d\ude00"}"#, &nested(1000)] {
            assert_eq!(Meta::parse(text.as_bytes()).unwrap().json(), text);
        }
    }

    fn nested(depth: usize) -> String {
        format!("{{\"a\": {}{}}}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn it_is_one_line() {
        let meta = Meta::parse(b"{\n\t\"origin\": \"a\\n\",\r\n \"b\": 1}\n").unwrap();
        assert_eq!((meta.json(), meta.origin()), (r#"{  "origin": "a\n",   "b": 1}"#, Some("a\n")));
        assert_eq!(Meta::parse(meta.json().as_bytes()).unwrap(), meta);
    }

    #[test]
    fn nothing_else_is_taken() {
        let texts: [&[u8]; 7] =
            [b"", b"[]", b"[\"x\"]", b"{\"a\":1", b"{\"a\":1}}", b"{\"a\":\"\xff\"}", b"{\"a\":\"\n\"}"];
        for text in texts {
            let error = Meta::parse(text).unwrap_err();
            assert!(matches!(error, BadMeta::NotAnObject(_)), "{}: {error}", String::from_utf8_lossy(text));
        }
        for text in [r"\u0000", r"\\\u0000", r"\ud800", r"\ud800\u0041", r"\udc00\ud800"] {
            let text = format!(r#"{{"a":"{text}"}}"#);
            assert_eq!(Meta::parse(text.as_bytes()), Err(BadMeta::Unstorable), "{text}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(Meta::BYTES_MAX));
        assert_eq!(Meta::parse(long.as_bytes()), Err(BadMeta::TooLong(long.len())));
        assert!(Meta::parse(&b"{\"a\":".repeat(1000)).is_err(), "as deep as it likes");
    }
}
