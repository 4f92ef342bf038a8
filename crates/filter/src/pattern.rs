//! `LIKE` and `ILIKE` patterns.

use std::fmt::Write as _;

use crate::error::{FilterError, Refusal};
use crate::limits::PATTERN_BYTES_MAX;
use crate::schema::Collation;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
enum Piece {
    /// `%`.
    Any,
    /// `_`.
    One,
    Byte(u8),
}

/// A pattern, its escapes resolved; of `ILIKE` in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Pattern {
    pieces: Vec<Piece>,
    insensitive: bool,
}

impl Pattern {
    /// Reads a pattern whose characters are escaped by `escape`.
    pub(crate) fn parse(text: &str, escape: Option<char>, insensitive: bool) -> Result<Self, FilterError> {
        if text.len() > PATTERN_BYTES_MAX {
            let message = format!("a pattern of {} bytes, more than {PATTERN_BYTES_MAX}", text.len());
            return Err(FilterError::new(Refusal::PatternTooLong, message, "use a shorter pattern"));
        }
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let literal = if escape == Some(character) {
                let message = "the pattern ends with its escape character";
                let hint = "write the escape character twice to match it";
                characters.next().ok_or_else(|| FilterError::new(Refusal::Literal, message, hint))?
            } else {
                match character {
                    // Several in a row match what one matches.
                    '%' if pieces.last() == Some(&Piece::Any) => continue,
                    '%' => {
                        pieces.push(Piece::Any);
                        continue;
                    }
                    '_' => {
                        pieces.push(Piece::One);
                        continue;
                    }
                    other => other,
                }
            };
            let literal = if insensitive { literal.to_ascii_lowercase() } else { literal };
            pieces.extend(literal.encode_utf8(&mut [0; 4]).bytes().map(Piece::Byte));
        }
        Ok(Self { pieces, insensitive })
    }

    /// Whether `ILIKE` gives the same answer here as on the server.
    ///
    /// Under `C` only ASCII has case, and so it is here. Under any other collation the letters of Unicode have, each
    /// locale in its own way; but what the pattern names are ASCII letters, and except for `i` and `k` (dotless i, the
    /// Turkish dotted one, the Lithuanian dots, the Kelvin sign) no other letter of any locale becomes one of them. `_`
    /// counts characters after the case was changed, which can change their number.
    pub(crate) fn check_case(&self, collation: Collation) -> Result<(), FilterError> {
        if !self.insensitive || collation == Collation::C {
            return Ok(());
        }
        let sure = |piece: &Piece| match piece {
            Piece::Any => true,
            Piece::One => false,
            Piece::Byte(byte) => byte.is_ascii() && !matches!(byte, b'i' | b'k'),
        };
        if self.pieces.iter().all(sure) {
            return Ok(());
        }
        Err(FilterError::new(
            Refusal::Collation,
            "ILIKE with this pattern depends on the server's locale",
            "use LIKE, or a column with COLLATE \"C\"; under a locale ILIKE takes ASCII patterns without i, k and _",
        ))
    }

    pub(crate) const fn is_insensitive(&self) -> bool {
        self.insensitive
    }

    /// The pattern with backslashes as escapes.
    pub(crate) fn text(&self) -> String {
        let mut bytes = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Any => bytes.push(b'%'),
                Piece::One => bytes.push(b'_'),
                Piece::Byte(byte) => {
                    if matches!(byte, b'%' | b'_' | b'\\') {
                        bytes.push(b'\\');
                    }
                    bytes.push(*byte);
                }
            }
        }
        let mut text = String::new();
        // Valid: the bytes are those of whole characters.
        let _ = write!(text, "{}", String::from_utf8_lossy(&bytes));
        text
    }

    /// Whether the whole of `text` matches. At worst length of text times length of pattern steps.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let (mut at, mut piece) = (0, 0);
        // Where to go on when the last `%` has to take one more character.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let step = match (self.pieces.get(piece), text.get(at)) {
                (None, None) => return true,
                (Some(Piece::Any), _) => {
                    retry = Some((at, piece));
                    piece += 1;
                    continue;
                }
                (Some(Piece::One), Some(_)) => Some(next_character(text, at)),
                (Some(Piece::Byte(wanted)), Some(byte)) => {
                    let byte = if self.insensitive { byte.to_ascii_lowercase() } else { *byte };
                    (byte == *wanted).then_some(at + 1)
                }
                _ => None,
            };
            match (step, retry) {
                (Some(next), _) => {
                    at = next;
                    piece += 1;
                }
                (None, Some((from, any))) if from < text.len() => {
                    at = next_character(text, from);
                    retry = Some((at, any));
                    piece = any + 1;
                }
                _ => return false,
            }
        }
    }
}

/// Where the character after the one at `at` begins.
fn next_character(text: &[u8], at: usize) -> usize {
    let rest = text.get(at + 1..).unwrap_or_default();
    at + 1 + rest.iter().take_while(|byte| (0x80..0xC0).contains(*byte)).count()
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn like(text: &str, pattern: &str) -> bool {
        Pattern::parse(pattern, Some('\\'), false).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn patterns_match_whole_texts() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "a%", true),
            ("abc", "%b%", true),
            ("abc", "a_", false),
            ("aé😀", "a__", true),
            ("a%", "a\\%", true),
            ("ab", "a\\%", false),
            ("aXbXc", "a%X_", true),
            ("mississippi", "%iss%ip%", true),
            ("mississippi", "%iss%ippi_", false),
            ("a", "%_%_%", false),
            ("é", "%_%", true),
        ] {
            assert_eq!(like(text, pattern), expected, "{text} LIKE {pattern}");
        }
    }
}
