//! The two things that the middle of walcast does with JSON text: write a string, and find the fields of
//! an object that walcast wrote itself. Everything else passes values on as they are.

/// Appends `text` as a JSON string, with the escapes that `jsonb` prints: `\" \\ \b \f \n \r \t`, `\u00XX`
/// for the other control characters, and everything else as it is.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` with a JSON string's escapes, without the quotes around it.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[done..at]);
        done = at + 1;
        write_escape(out, byte);
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Appends the escape of one byte that cannot stand in a JSON string as it is.
pub fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0C => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

/// The fields of a JSON object in their order: the key as it stands between its quotes (still escaped), and
/// the value's text. Made for objects that walcast wrote; on anything else it ends early and never panics.
#[must_use]
pub fn fields(object: &[u8]) -> Fields<'_> {
    let rest = skip_space(object).strip_prefix(b"{").unwrap_or_default();
    Fields { rest }
}

/// See [`fields`].
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = skip_space(self.rest);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        let key_end = string_end(rest)?;
        let key = rest.get(1..key_end.checked_sub(1)?)?;
        let rest = skip_space(rest.get(key_end..)?).strip_prefix(b":")?;
        let rest = skip_space(rest);
        let end = value_end(rest)?;
        let (value, rest) = rest.split_at_checked(end)?;
        self.rest = rest;
        Some((key, value.trim_ascii_end()))
    }
}

/// The elements of a JSON array in their order, as their texts. Made for arrays that walcast wrote; on anything else it
/// ends early and never panics.
#[must_use]
pub fn elements(array: &[u8]) -> Elements<'_> {
    let rest = skip_space(array).strip_prefix(b"[").unwrap_or_default();
    Elements { rest }
}

/// See [`elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let rest = skip_space(self.rest);
        let rest = skip_space(rest.strip_prefix(b",").unwrap_or(rest));
        if rest.first() == Some(&b']') {
            return None;
        }
        // Where no value begins there is nothing to go on from.
        let end = value_end(rest).filter(|end| *end > 0)?;
        let (value, rest) = rest.split_at_checked(end)?;
        self.rest = rest;
        Some(value.trim_ascii_end())
    }
}

fn skip_space(text: &[u8]) -> &[u8] {
    text.trim_ascii_start()
}

/// The byte after the string that `text` starts with.
fn string_end(text: &[u8]) -> Option<usize> {
    if text.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The byte after the value that `text` starts with.
fn value_end(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_end(text),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_usize, 0);
            loop {
                match text.get(at)? {
                    b'"' => at += string_end(text.get(at..)?)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => Some(text.iter().position(|b| matches!(b, b',' | b'}' | b']')).unwrap_or(text.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{elements, fields, write_string};

    fn pairs(object: &str) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        fields(object.as_bytes()).map(|(key, value)| (text(key), text(value))).collect()
    }

    #[test]
    fn finds_fields_among_nested_values_and_escapes() {
        let object = r#"{"a":1,"b\"":{"c":[1,"}"],"d": {}},"e":"x\\","f":null,"g": [ 1, 2 ] , "h":true}"#;
        assert_eq!(
            pairs(object),
            [
                ("a", "1"),
                ("b\\\"", r#"{"c":[1,"}"],"d": {}}"#),
                ("e", r#""x\\""#),
                ("f", "null"),
                ("g", "[ 1, 2 ]"),
                ("h", "true")
            ]
        );
        assert_eq!(pairs("{}"), []);
    }

    #[test]
    fn elements_end_where_no_value_begins() {
        assert_eq!(elements(b"[}").count(), 0);
        assert_eq!(elements(b"[1,,").count(), 1);
    }

    #[test]
    fn finds_elements_among_nested_values() {
        let array = br#" [1, "a,]", [2, 3],{"b": [4]} ,null]"#;
        let found: Vec<&str> = elements(array).map(|value| std::str::from_utf8(value).unwrap()).collect();
        assert_eq!(found, ["1", r#""a,]""#, "[2, 3]", r#"{"b": [4]}"#, "null"]);
        assert_eq!(elements(b"[]").chain(elements(b"1")).chain(elements(b"[")).count(), 0);
    }

    proptest! {
        #[test]
        fn strings_read_back_as_they_were(text in any::<String>()) {
            let mut json = Vec::new();
            write_string(&mut json, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }

        #[test]
        fn no_input_panics(text in any::<Vec<u8>>()) {
            let _ = fields(&text).count();
            let _ = elements(&text).count();
        }

        #[test]
        fn fields_agree_with_a_json_parser(map in proptest::collection::btree_map(any::<String>(), any::<Vec<String>>(), 0..5)) {
            let json = serde_json::to_string(&map).unwrap();
            let found: Vec<(String, Vec<String>)> = pairs(&json)
                .into_iter()
                .map(|(key, value)| (serde_json::from_str(&format!("\"{key}\"")).unwrap(), serde_json::from_str(value).unwrap()))
                .collect();
            prop_assert_eq!(found, map.into_iter().collect::<Vec<_>>());
        }
    }
}
