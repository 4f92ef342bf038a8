//! Rows in the text format of `COPY … TO STDOUT`: cells between tabs, `\N` for NULL, backslash escapes.
//!
//! The cells are what the types' output functions print, the same texts that pgoutput carries, byte for byte
//! in the client's encoding. Source: Postgres documentation, COPY, "Text Format", and `CopyAttributeOutText`.

use memchr::memchr;

/// Hands the cells of one row to `cell`, with their index: `None` for NULL, else the text. An escaped cell is
/// unescaped into `scratch`. Returns how many there are; a row without columns looks like one empty cell.
pub(crate) fn cells(line: &[u8], scratch: &mut Vec<u8>, mut cell: impl FnMut(usize, Option<&[u8]>)) -> usize {
    let mut rest = line.strip_suffix(b"\n").unwrap_or(line);
    let mut index = 0;
    loop {
        let end = memchr(b'\t', rest);
        let text = end.map_or(rest, |end| &rest[..end]);
        if text == b"\\N" {
            cell(index, None);
        } else if let Some(first) = memchr(b'\\', text) {
            scratch.clear();
            unescape(text, first, scratch);
            cell(index, Some(scratch));
        } else {
            cell(index, Some(text));
        }
        index += 1;
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return index,
        }
    }
}

/// Appends `text`, whose first backslash is at `first`, without its escapes.
fn unescape(text: &[u8], first: usize, out: &mut Vec<u8>) {
    let (mut rest, mut next) = (text, Some(first));
    while let Some(at) = next {
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(b'b') => out.push(0x08),
            Some(b'f') => out.push(0x0C),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(0x0B),
            Some(&other) => out.push(other),
            // The server never ends a cell in a lone backslash.
            None => return,
        }
        rest = &rest[at + 2..];
        next = memchr(b'\\', rest);
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::cells;

    fn read(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut found = Vec::new();
        let count = cells(line, &mut Vec::new(), |index, cell| {
            assert_eq!(index, found.len());
            found.push(cell.map(<[u8]>::to_vec));
        });
        assert_eq!(count, found.len());
        found
    }

    #[test]
    fn null_empty_and_the_text_of_null_are_three_things() {
        let cell = |text: &[u8]| Some(text.to_vec());
        assert_eq!(read(b"\\N\t\t\\\\N\n"), [None, cell(b""), cell(b"\\N")]);
        assert_eq!(read(b"\n"), [cell(b"")]);
    }

    #[test]
    fn escapes_are_taken_back_and_other_bytes_stay() {
        let line = b"a\\tb\\nc\\rd\\be\\ff\\vg\\\\h\x01\xFF\t\\\\\\\\\t\\\\n\n";
        let expected: [&[u8]; 3] = [b"a\tb\nc\rd\x08e\x0Cf\x0Bg\\h\x01\xFF", b"\\\\", b"\\n"];
        assert_eq!(read(line), expected.map(|text| Some(text.to_vec())));
    }
}
