//! `json` values, rewritten as `jsonb` would hold and print them.
//!
//! A `json` column keeps the text that the application wrote. This reads it once and without recursion, so that no
//! depth of nesting can exhaust the stack, and sorts the keys of an object when it closes.

use std::cmp::Ordering;
use std::ops::Range;

use super::{ValueError, malformed, number, string};

/// How many bytes numbers with exponents may add to one `json` value by being written in plain digits, as `jsonb`
/// prints them: 16 MiB. Numbers that would go beyond it stay in the notation they came in (the same number to every
/// reader), because eight bytes such as `1e131071` stand for 128 KiB.
pub const EXPANDED_BYTES_MAX: usize = 16 << 20;

/// Appends a `json` value.
pub(super) fn write(text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let document = Document {
        rest: text,
        out,
        open: Vec::new(),
        members: Vec::new(),
        keys: Vec::new(),
        expansion_left: EXPANDED_BYTES_MAX,
    };
    document.write().ok_or_else(|| malformed("json"))
}

struct Document<'a, 'o> {
    rest: &'a [u8],
    out: &'o mut Vec<u8>,
    /// What is open around the current value, outermost first.
    open: Vec<Open>,
    /// The members of all open objects.
    members: Vec<Member>,
    /// Their keys, unescaped.
    keys: Vec<u8>,
    expansion_left: usize,
}

enum Open {
    Array,
    Object {
        /// Where its first member starts in `out`.
        start: usize,
        /// Its first one in `members`.
        members: usize,
        /// Its first one in `keys`.
        keys: usize,
    },
}

struct Member {
    key: Range<usize>,
    /// `"key": value` in `out`.
    text: Range<usize>,
}

/// `None` anywhere: the text is not JSON.
impl<'a> Document<'a, '_> {
    fn write(mut self) -> Option<()> {
        loop {
            if !self.begin_value()? {
                continue;
            }
            if !self.end_values()? {
                return Some(());
            }
        }
    }

    fn skip_space(&mut self) {
        let end = self.rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.rest = self.rest.get(end.unwrap_or(self.rest.len())..).unwrap_or_default();
    }

    /// Takes `byte` off the front, after space.
    fn take(&mut self, byte: u8) -> bool {
        if self.rest.first() != Some(&byte) {
            self.skip_space();
        }
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Writes a value, or opens one that others follow in; answers whether the value is complete.
    fn begin_value(&mut self) -> Option<bool> {
        self.skip_space();
        match self.rest.first()? {
            b'"' => {
                let body = self.string()?;
                write_string(body, self.out)?;
            }
            b'{' if self.take(b'{') => {
                self.out.push(b'{');
                if !self.take(b'}') {
                    let (start, members, keys) = (self.out.len(), self.members.len(), self.keys.len());
                    self.open.push(Open::Object { start, members, keys });
                    self.begin_member()?;
                    return Some(false);
                }
                self.out.push(b'}');
            }
            b'[' if self.take(b'[') => {
                self.out.push(b'[');
                if !self.take(b']') {
                    self.open.push(Open::Array);
                    return Some(false);
                }
                self.out.push(b']');
            }
            b't' | b'f' | b'n' => {
                let words = [b"true".as_slice(), b"false", b"null"];
                let word = words.into_iter().find(|word| self.rest.starts_with(word))?;
                self.out.extend_from_slice(word);
                self.rest = self.rest.get(word.len()..)?;
            }
            _ => self.write_number()?,
        }
        Some(true)
    }

    /// After a complete value: closes what ends here; answers whether another value follows.
    fn end_values(&mut self) -> Option<bool> {
        loop {
            match self.open.last() {
                None => {
                    self.skip_space();
                    return self.rest.is_empty().then_some(false);
                }
                Some(Open::Array) => {
                    if self.take(b',') {
                        self.out.extend_from_slice(b", ");
                        return Some(true);
                    }
                    self.take(b']').then_some(())?;
                    self.out.push(b']');
                }
                Some(&Open::Object { start, members, keys }) => {
                    self.members.last_mut()?.text.end = self.out.len();
                    if self.take(b',') {
                        self.out.extend_from_slice(b", ");
                        self.begin_member()?;
                        return Some(true);
                    }
                    self.take(b'}').then_some(())?;
                    self.order_members(start, members);
                    self.members.truncate(members);
                    self.keys.truncate(keys);
                    self.out.push(b'}');
                }
            }
            self.open.pop();
        }
    }

    /// Writes a key and its colon.
    fn begin_member(&mut self) -> Option<()> {
        self.skip_space();
        let body = self.string()?;
        let key = self.keys.len();
        if body.escaped {
            for piece in Pieces(body.text) {
                match piece? {
                    Piece::Run(run) => self.keys.extend_from_slice(run),
                    Piece::Unit(unit) => push_unit(unit, &mut self.keys),
                }
            }
        } else {
            self.keys.extend_from_slice(body.text);
        }
        let text = self.out.len();
        self.members.push(Member { key: key..self.keys.len(), text: text..text });
        write_string(body, self.out)?;
        self.take(b':').then_some(())?;
        self.out.extend_from_slice(b": ");
        Some(())
    }

    /// Brings the members of an object, which are `members` from index `first` and start at `start` in the output,
    /// into the order of `jsonb`: by length of the key, then by its bytes; the last of equal ones stays.
    fn order_members(&mut self, start: usize, first: usize) {
        let keys = &self.keys;
        let order = |left: &Member, right: &Member| -> Ordering {
            let (left, right) = (keys.get(left.key.clone()), keys.get(right.key.clone()));
            left.map(<[u8]>::len).cmp(&right.map(<[u8]>::len)).then_with(|| left.cmp(&right))
        };
        let Some(members) = self.members.get_mut(first..) else { return };
        if members.is_sorted_by(|left, right| order(left, right).is_lt()) {
            return;
        }
        members.sort_by(order);
        let Some(unordered) = self.out.get(start..).map(<[u8]>::to_vec) else { return };
        self.out.truncate(start);
        for (index, member) in members.iter().enumerate() {
            if members.get(index + 1).is_some_and(|next| order(member, next).is_eq()) {
                continue;
            }
            if self.out.len() > start {
                self.out.extend_from_slice(b", ");
            }
            let text = member.text.start - start..member.text.end - start;
            self.out.extend_from_slice(unordered.get(text).unwrap_or_default());
        }
    }

    /// Takes a string off the front.
    fn string(&mut self) -> Option<Body<'a>> {
        let text = self.rest.strip_prefix(b"\"")?;
        let (mut at, mut escaped) = (0, false);
        loop {
            at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
            if text.get(at) == Some(&b'"') {
                self.rest = text.get(at + 1..)?;
                return Some(Body { text: text.get(..at)?, escaped });
            }
            escaped = true;
            at += 2;
        }
    }

    fn write_number(&mut self) -> Option<()> {
        let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = self.rest.iter().position(|byte| !digit(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at_checked(end)?;
        let grown = number::write_finite(token, self.expansion_left, self.out).ok()?;
        self.expansion_left -= grown;
        self.rest = rest;
        Some(())
    }
}

/// What stands between a string's quotes.
#[derive(Clone, Copy)]
struct Body<'a> {
    text: &'a [u8],
    /// Whether it has escapes.
    escaped: bool,
}

/// A run of plain bytes, or a code point that was written as an escape: a character or a lone surrogate.
enum Piece<'a> {
    Run(&'a [u8]),
    Unit(u32),
}

/// The pieces of a string with escapes.
struct Pieces<'a>(&'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    /// `None` for an escape that JSON does not have.
    type Item = Option<Piece<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(escape) = self.0.strip_prefix(b"\\") else {
            let end = memchr::memchr(b'\\', self.0).unwrap_or(self.0.len());
            let (run, rest) = self.0.split_at_checked(end)?;
            self.0 = rest;
            return (!run.is_empty()).then_some(Some(Piece::Run(run)));
        };
        let unit = take_escape(escape);
        self.0 = unit.map_or(&[], |(_, rest)| rest);
        Some(unit.map(|(unit, _)| Piece::Unit(unit)))
    }
}

/// The code point of an escape, without its backslash, and what follows it.
fn take_escape(text: &[u8]) -> Option<(u32, &[u8])> {
    let (kind, rest) = text.split_first()?;
    let byte = match kind {
        b'"' | b'\\' | b'/' => *kind,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'u' => {
            let (high, rest) = take_hex(rest)?;
            let low =
                rest.strip_prefix(b"\\u").filter(|_| (0xD800..0xDC00).contains(&high)).and_then(take_hex);
            return Some(match low {
                Some((low @ 0xDC00..0xE000, rest)) => {
                    (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), rest)
                }
                _ => (high, rest),
            });
        }
        _ => return None,
    };
    Some((byte.into(), rest))
}

fn take_hex(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let mut value = 0;
    for digit in digits {
        value = value << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((value, rest))
}

/// Appends a code point in UTF-8; a lone surrogate in the three bytes that it would have.
fn push_unit(unit: u32, out: &mut Vec<u8>) {
    match char::from_u32(unit) {
        Some(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        None => {
            let bits = |shift: u32| (unit >> shift & 0x3F | 0x80).to_le_bytes()[0];
            out.extend_from_slice(&[0xED, bits(6), bits(0)]);
        }
    }
}

/// Appends a string with the escapes of `jsonb`.
fn write_string(body: Body<'_>, out: &mut Vec<u8>) -> Option<()> {
    if !body.escaped {
        string::write(body.text, out);
        return Some(());
    }
    out.push(b'"');
    for piece in Pieces(body.text) {
        match piece? {
            Piece::Run(run) => string::write_escaped(run, out),
            Piece::Unit(unit) => match char::from_u32(unit) {
                Some(char) => string::write_escaped(char.encode_utf8(&mut [0; 4]).as_bytes(), out),
                None => out.extend_from_slice(format!("\\u{unit:04x}").as_bytes()),
            },
        }
    }
    out.push(b'"');
    Some(())
}

#[cfg(test)]
mod tests {
    use super::write;

    fn written(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write(text.as_bytes(), &mut out).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn keys_are_ordered_and_the_last_of_equal_ones_stays() {
        let text = r#" { "bb" : {"z":1,"y":[ {"b":1,"a":2} ,2]}, "a":1, "c\u0061":2, "ca": 3 ,"":4,"a":5 } "#;
        let expected = r#"{"": 4, "a": 5, "bb": {"y": [{"a": 2, "b": 1}, 2], "z": 1}, "ca": 3}"#;
        assert_eq!(written(text).as_deref(), Some(expected));
        assert_eq!(written("[ ]").as_deref(), Some("[]"));
        assert_eq!(written(" {\n} ").as_deref(), Some("{}"));
        assert_eq!(written(r#"{"a":{"b":1},"a":{"c":2}}"#).as_deref(), Some(r#"{"a": {"c": 2}}"#));
    }

    #[test]
    fn what_jsonb_cannot_hold_stays_as_json_has_it() {
        for (text, expected) in [
            (r#""a\u0000\u001F\u00e9\ud83d\ude00\/""#, r#""a\u0000\u001fé😀/""#),
            (r#""\ud83d\ud83d\ude00\uDE00x""#, r#""\ud83d😀\ude00x""#),
            (r#"{"\ud800":1,"\ud800":2,"\u0000":3}"#, r#"{"\u0000": 3, "\ud800": 2}"#),
            ("[1e131072, 1e2]", "[1e131072, 100]"),
        ] {
            assert_eq!(written(text).as_deref(), Some(expected));
        }
    }

    #[test]
    fn numbers_stop_being_expanded_at_the_limit() {
        let text = format!("[{}1]", "1e131071,".repeat(1000));
        let json = written(&text).unwrap();
        assert!(json.len() > super::EXPANDED_BYTES_MAX && json.len() < super::EXPANDED_BYTES_MAX + 1_000_000);
        assert!(json.ends_with("1e131071, 1]"));
    }

    #[test]
    fn no_depth_exhausts_the_stack() {
        let deep = 200_000;
        let text = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        assert_eq!(written(&text), Some(text));
        let text = format!("{}1{}", r#"{"a":"#.repeat(deep), "}".repeat(deep));
        assert_eq!(written(&text).map(|json| json.len()), Some(text.len() + deep));
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        for text in [
            "",
            " ",
            "[",
            "]",
            "{",
            "[1,]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            "1 2",
            "[1 2]",
            "tru",
        ] {
            assert_eq!(written(text), None, "{text}");
        }
        for text in
            ["\"", r#""\"#, r#""\x""#, r#""\u12""#, r#""\u12g4""#, "nulll", "[1}", r#"{"a":1]"#, "+1", "01x"]
        {
            assert_eq!(written(text), None, "{text}");
        }
    }
}
