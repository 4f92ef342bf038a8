//! Strings as they stand in a row: between quotes, with JSON's escapes.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A string that is looked at in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextRef<'a> {
    bytes: &'a [u8],
    escaped: bool,
}

impl<'a> TextRef<'a> {
    /// Text as it is.
    pub(crate) const fn plain(bytes: &'a [u8]) -> Self {
        Self { bytes, escaped: false }
    }

    /// A JSON string with its quotes; `None` when it is something else.
    pub(crate) fn quoted(json: &'a [u8]) -> Option<Self> {
        json.strip_prefix(b"\"")?.strip_suffix(b"\"").map(Self::inside)
    }

    /// What stands between the quotes of a JSON string.
    pub(crate) fn inside(bytes: &'a [u8]) -> Self {
        Self { bytes, escaped: memchr::memchr(b'\\', bytes).is_some() }
    }

    /// Without the spaces at its end, which no escape contains.
    pub(crate) fn without_padding(self) -> Self {
        let end = self.bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |at| at + 1);
        Self { bytes: self.bytes.get(..end).unwrap_or_default(), ..self }
    }

    /// The bytes that the string stands for.
    pub(crate) const fn bytes(self) -> Unescaped<'a> {
        Unescaped { rest: self.bytes, escaped: self.escaped, pending: [0; 4], left: 0 }
    }

    pub(crate) fn decoded(self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(self.bytes().collect()) } else { Cow::Borrowed(self.bytes) }
    }

    /// By bytes.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        if self.escaped || other.escaped {
            self.bytes().cmp(other.bytes())
        } else {
            self.bytes.cmp(other.bytes)
        }
    }

    pub(crate) fn equals(self, other: &[u8]) -> bool {
        if self.escaped { self.bytes().eq(other.iter().copied()) } else { self.bytes == other }
    }
}

/// The bytes of a JSON string without its escapes.
pub(crate) struct Unescaped<'a> {
    rest: &'a [u8],
    /// Whether a backslash is an escape.
    escaped: bool,
    /// What is left of a character that was written as `\u`.
    pending: [u8; 4],
    left: usize,
}

impl Unescaped<'_> {
    fn code_unit(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
    }

    fn escape(&mut self) -> Option<u8> {
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match kind {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = self.code_unit()?;
                if (0xD800..0xDC00).contains(&unit)
                    && let Some(rest) = self.rest.strip_prefix(b"\\u")
                {
                    self.rest = rest;
                    unit = 0x10000 + ((unit - 0xD800) << 10) + self.code_unit()?.wrapping_sub(0xDC00);
                }
                let mut buffer = [0; 4];
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                let encoded = character.encode_utf8(&mut buffer).as_bytes();
                let (first, more) = encoded.split_first()?;
                // Kept backwards, so that the last of them comes out first.
                for (slot, byte) in self.pending.iter_mut().zip(more.iter().rev()) {
                    *slot = *byte;
                }
                self.left = more.len();
                *first
            }
            other => *other,
        })
    }
}

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        if self.left > 0 {
            self.left -= 1;
            return self.pending.get(self.left).copied();
        }
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        if self.escaped && *byte == b'\\' { self.escape() } else { Some(*byte) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use walcast_model::json::write_string;

    use super::TextRef;

    #[test]
    fn escapes_stand_for_characters() {
        let text = TextRef::quoted(br#""a\"\\\/\n\u00e9\ud83d\ude00z""#).unwrap();
        assert!(text.equals("a\"\\/\né😀z".as_bytes()));
    }

    proptest! {
        #[test]
        fn what_was_written_compares_as_it_was(left in any::<String>(), right in any::<String>()) {
            let json = |text: &str| { let mut out = Vec::new(); write_string(&mut out, text); out };
            let (one, other) = (json(&left), json(&right));
            let (one, other) = (TextRef::quoted(&one).unwrap(), TextRef::quoted(&other).unwrap());
            prop_assert_eq!(one.compare(other), left.cmp(&right));
            prop_assert_eq!(one.equals(right.as_bytes()), left == right);
            prop_assert_eq!(one.compare(TextRef::plain(right.as_bytes())), left.cmp(&right));
            prop_assert_eq!(&*one.decoded(), left.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = TextRef::inside(&bytes).bytes().count();
        }
    }
}
