//! What clients say to one another is passed on as it is, so it has to be JSON that every client can read.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of arrays and objects: parsers of many languages give up somewhere, with the whole message.
const LEVELS_MAX: usize = 127;

/// Whether every client can read it.
///
/// # Errors
/// Why not, in words: it is nested too deeply, a string has half of a surrogate pair, a number is larger than a double.
pub fn check_readable(json: &RawValue) -> Result<(), String> {
    serde_json::from_str::<Readable>(json.get()).map(drop).map_err(|error| {
        let text = error.to_string();
        if text.starts_with("recursion limit") {
            return format!("it is nested deeper than {LEVELS_MAX} levels");
        }
        text
    })
}

/// JSON of which all is looked at, and nothing is kept.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E: Error>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self, A::Error> {
        while entries.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::check_readable;

    fn is_readable(json: &str) -> bool {
        check_readable(&RawValue::from_string(json.to_owned()).unwrap()).is_ok()
    }

    #[test]
    fn what_some_client_could_not_read_is_not_passed_on() {
        for good in [
            "null",
            "1.10",
            "123456789012345678901234567890",
            r#"{"a":[1,-2.5e3,true,"\ud83d\ude00\u0000"],"":{}}"#,
        ] {
            assert!(is_readable(good), "{good}");
        }
        for bad in [r#""\ud800""#, r#"{"\udc00":1}"#, "[1e999]"] {
            assert!(!is_readable(bad), "{bad}");
        }
        let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(is_readable(&nested(127)) && !is_readable(&nested(128)) && !is_readable(&nested(16_000)));
    }
}
