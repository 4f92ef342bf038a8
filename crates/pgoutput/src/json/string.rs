//! Strings: quoted, escaped as `jsonb` does it, and always UTF-8.

use walcast_model::json::write_escape;

/// Appends `text` as a JSON string.
pub(super) fn write(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len().saturating_add(2));
    out.push(b'"');
    let mut seen = 0;
    // Most texts are plain ASCII and copied at once.
    if clean_prefix(text, &mut seen) == text.len() && is_ascii(seen) {
        out.extend_from_slice(text);
    } else {
        write_escaped(text, out);
    }
    out.push(b'"');
}

/// Appends `text` with a JSON string's escapes, without the quotes; U+FFFD for what is not UTF-8.
pub(super) fn write_escaped(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if escape(text, out) && std::str::from_utf8(text).is_err() {
        out.truncate(start);
        for chunk in text.utf8_chunks() {
            escape(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
    }
}

/// Appends `text` as it is, but for U+FFFD where it is not UTF-8.
pub(super) fn write_valid_utf8(text: &[u8], out: &mut Vec<u8>) {
    if std::str::from_utf8(text).is_ok() {
        out.extend_from_slice(text);
        return;
    }
    for chunk in text.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Escapes; answers whether there was a byte outside ASCII.
fn escape(text: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut rest, mut seen) = (text, 0);
    loop {
        let clean = clean_prefix(rest, &mut seen);
        let (head, tail) = rest.split_at_checked(clean).unwrap_or((rest, &[]));
        out.extend_from_slice(head);
        let Some((&byte, tail)) = tail.split_first() else {
            return !is_ascii(seen);
        };
        write_escape(out, byte);
        rest = tail;
    }
}

/// One in each of eight bytes.
const EVERY: u64 = 0x0101_0101_0101_0101;

/// Whether none of the bytes that were or-ed into `seen` is outside ASCII.
const fn is_ascii(seen: u64) -> bool {
    seen & (EVERY * 0x80) == 0
}

/// The top bit of the first byte (from the lowest) that cannot stand in a JSON string as it is; more above it.
///
/// Subtracting sets the top bit of each byte that was below the bound. A borrow can flag a byte wrongly, but only
/// above one that is flagged rightly, and only the lowest counts.
const fn special(word: u64) -> u64 {
    const fn below(word: u64, bound: u64) -> u64 {
        word.wrapping_sub(EVERY * bound) & !word
    }
    let quotes = below(word ^ (EVERY * b'"' as u64), 1);
    let backslashes = below(word ^ (EVERY * b'\\' as u64), 1);
    (below(word, 0x20) | quotes | backslashes) & (EVERY * 0x80)
}

/// How many bytes at the front of `text` stand in a JSON string as they are. All bytes that it looks at are or-ed into
/// `seen`, which thus tells whether any of them is outside ASCII.
#[inline]
fn clean_prefix(text: &[u8], seen: &mut u64) -> usize {
    let (words, tail) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        *seen |= word;
        let flags = special(word);
        if flags != 0 {
            return index * 8 + (flags.trailing_zeros() / 8) as usize;
        }
    }
    // The rest in one more word: the last eight bytes, of which the first are known to be clean, or what there is,
    // above it spaces.
    let (start, word) = match text.last_chunk::<8>() {
        Some(last) => (text.len() - 8, u64::from_le_bytes(*last)),
        None => (0, tail.iter().rev().fold(EVERY * b' ' as u64, |word, byte| word << 8 | u64::from(*byte))),
    };
    *seen |= word;
    match special(word) {
        0 => text.len(),
        flags => start + (flags.trailing_zeros() / 8) as usize,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::write;

    fn written(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(text, &mut out);
        out
    }

    #[test]
    fn every_single_byte_is_escaped_at_every_offset() {
        for byte in 0..=u8::MAX {
            for offset in 0..20 {
                let mut text = vec![b'x'; 20];
                text[offset] = byte;
                let read: String = serde_json::from_slice(&written(&text)).unwrap();
                assert_eq!(read, String::from_utf8_lossy(&text), "{byte:#x} at {offset}");
            }
        }
    }

    #[test]
    fn escapes_are_those_of_jsonb() {
        assert_eq!(
            written(b"\"\\/\x08\x0c\n\r\t\x01\x1f\x7f"),
            br#""\"\\/\b\f\n\r\t\u0001\u001f"#.iter().chain(b"\x7f\"").copied().collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_become_the_string_that_they_mean(text in any::<Vec<u8>>()) {
            prop_assert_eq!(serde_json::from_slice::<String>(&written(&text)).unwrap(), String::from_utf8_lossy(&text));
        }

        #[test]
        fn any_text_survives(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_slice::<String>(&written(text.as_bytes())).unwrap(), text);
        }
    }
}
