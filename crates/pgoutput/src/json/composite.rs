//! Composites, from the text that `record_out` prints: `(1,,"a ""b"" \\ c")`.

use std::ops::Range;

use super::{ValueError, Writer, malformed, string};

const EXPECTED: &str = "a composite";

/// Writes the values of one composite type.
#[derive(Debug)]
pub(super) struct CompositeWriter {
    /// In the order of the text.
    fields: Vec<Writer>,
    /// The same as `"name": ` and index into `fields`, in the order in which `jsonb` keeps keys.
    ordered: Vec<(Vec<u8>, usize)>,
}

/// A field's text: absent, as it stands, or unescaped in a buffer.
enum Cell<'a> {
    Null,
    Plain(&'a [u8]),
    Unescaped(Range<usize>),
}

impl CompositeWriter {
    pub(super) fn new(fields: Vec<(&str, Writer)>) -> Self {
        let mut names: Vec<(usize, &str)> = fields.iter().map(|(name, _)| *name).enumerate().collect();
        names.sort_by_key(|(_, name)| (name.len(), *name));
        let ordered = names.into_iter().map(|(index, name)| {
            let mut key = Vec::new();
            string::write(name.as_bytes(), &mut key);
            key.extend_from_slice(b": ");
            (key, index)
        });
        let ordered = ordered.collect();
        Self { fields: fields.into_iter().map(|(_, writer)| writer).collect(), ordered }
    }

    pub(super) fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut unescaped = Vec::new();
        let cells = self.split(text, &mut unescaped)?;
        out.push(b'{');
        for (position, (key, index)) in self.ordered.iter().enumerate() {
            if position > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(key);
            let text = match cells.get(*index) {
                None | Some(Cell::Null) => {
                    out.extend_from_slice(b"null");
                    continue;
                }
                Some(Cell::Plain(text)) => text,
                Some(Cell::Unescaped(range)) => unescaped.get(range.clone()).unwrap_or_default(),
            };
            let writer = self.fields.get(*index).unwrap_or(&Writer::Text);
            writer.write(text, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Splits a value into exactly as many cells as the type has fields.
    fn split<'a>(&self, text: &'a [u8], unescaped: &mut Vec<u8>) -> Result<Vec<Cell<'a>>, ValueError> {
        let malformed = || malformed(EXPECTED);
        let mut rest = text.strip_prefix(b"(").ok_or_else(malformed)?;
        let mut cells = Vec::with_capacity(self.fields.len());
        if self.fields.is_empty() && rest == b")" {
            return Ok(cells);
        }
        loop {
            let (cell, after) = split_cell(rest, unescaped).ok_or_else(malformed)?;
            cells.push(cell);
            let (next, after) = after.split_first().ok_or_else(malformed)?;
            rest = after;
            match next {
                b',' => {}
                b')' if rest.is_empty() => break,
                _ => return Err(malformed()),
            }
        }
        if cells.len() != self.fields.len() {
            return Err(ValueError::Fields { expected: self.fields.len(), found: cells.len() });
        }
        Ok(cells)
    }
}

/// Takes one field off the front of `text`, up to the comma or parenthesis that follows it.
fn split_cell<'a>(text: &'a [u8], unescaped: &mut Vec<u8>) -> Option<(Cell<'a>, &'a [u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr2(b',', b')', text)?;
        let (cell, rest) = text.split_at_checked(end)?;
        return Some((if cell.is_empty() { Cell::Null } else { Cell::Plain(cell) }, rest));
    };
    let (quoted, start) = (rest, unescaped.len());
    loop {
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        let (run, after) = rest.split_at_checked(end)?;
        let (special, after) = after.split_first()?;
        // Quotes and backslashes inside are doubled.
        match after.split_first() {
            Some((doubled, after)) if doubled == special => {
                unescaped.extend_from_slice(run);
                unescaped.push(*special);
                rest = after;
            }
            _ if *special == b'\\' => return None,
            _ if unescaped.len() == start && run.len() == quoted.len() - after.len() - 1 => {
                return Some((Cell::Plain(run), after));
            }
            _ => {
                unescaped.extend_from_slice(run);
                return Some((Cell::Unescaped(start..unescaped.len()), after));
            }
        }
    }
}
