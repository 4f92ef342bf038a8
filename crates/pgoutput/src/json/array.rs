//! Arrays, from the text that `array_out` prints: `{1,NULL,"a b"}`, `{{1},{2}}`, `[0:1]={1,2}`.

use super::{Context, ValueError, Writer, malformed};

/// Dimensions that an array can have (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

const EXPECTED: &str = "an array";

/// Writes the arrays of one element type.
#[derive(Debug)]
pub(super) struct ArrayWriter {
    pub(super) element: Writer,
    pub(super) delimiter: u8,
}

impl ArrayWriter {
    pub(super) fn write(
        &self,
        text: &[u8],
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        // Bounds stand in front when one of them is not 1; JSON has no place for them.
        let text = match text.strip_prefix(b"[") {
            Some(bounds) => {
                let end = memchr::memmem::find(bounds, b"]=").ok_or_else(|| malformed(EXPECTED))?;
                bounds.get(end + 2..).unwrap_or_default()
            }
            None => text,
        };
        let rest = self.write_dimension(text, DIMENSIONS_MAX, &mut Vec::new(), context, out)?;
        if rest.is_empty() { Ok(()) } else { Err(malformed(EXPECTED)) }
    }

    /// Writes what the brace in front of `text` encloses; answers what follows it.
    fn write_dimension<'a>(
        &self,
        text: &'a [u8],
        dimensions_left: usize,
        scratch: &mut Vec<u8>,
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], ValueError> {
        let malformed = || malformed(EXPECTED);
        let dimensions_left = dimensions_left.checked_sub(1).ok_or_else(malformed)?;
        let mut rest = text.strip_prefix(b"{").ok_or_else(malformed)?;
        out.push(b'[');
        if let Some(rest) = rest.strip_prefix(b"}") {
            out.push(b']');
            return Ok(rest);
        }
        loop {
            rest = match rest.first().ok_or_else(malformed)? {
                b'{' => self.write_dimension(rest, dimensions_left, scratch, context, out)?,
                b'"' => {
                    let (element, after) = unquote(rest, scratch).ok_or_else(malformed)?;
                    self.element.write(element, context, out)?;
                    after
                }
                _ => {
                    // Unquoted elements are short: a plain loop finds their end before memchr has begun.
                    let ends = |byte: &u8| *byte == self.delimiter || *byte == b'}';
                    let end = rest.iter().position(ends).ok_or_else(malformed)?;
                    let (element, after) = rest.split_at_checked(end).ok_or_else(malformed)?;
                    match element {
                        b"NULL" => out.extend_from_slice(b"null"),
                        element => self.element.write(element, context, out)?,
                    }
                    after
                }
            };
            let (next, after) = rest.split_first().ok_or_else(malformed)?;
            rest = after;
            if *next == b'}' {
                out.push(b']');
                return Ok(rest);
            } else if *next != self.delimiter {
                return Err(malformed());
            }
            out.extend_from_slice(b", ");
        }
    }
}

/// Takes a quoted element off the front of `text`: what it means, and what follows the closing quote. `scratch` holds
/// it when it has backslashes.
pub(super) fn unquote<'a: 's, 's>(text: &'a [u8], scratch: &'s mut Vec<u8>) -> Option<(&'s [u8], &'a [u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    if rest.get(end) == Some(&b'"') {
        return Some((rest.get(..end)?, rest.get(end + 1..)?));
    }
    scratch.clear();
    loop {
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        let (run, after) = rest.split_at_checked(end)?;
        scratch.extend_from_slice(run);
        let (special, after) = after.split_first()?;
        if *special == b'"' {
            return Some((scratch, after));
        }
        let (escaped, after) = after.split_first()?;
        scratch.push(*escaped);
        rest = after;
    }
}

/// Appends an `int2vector` or `oidvector`, whose text is its elements with spaces between them.
pub(super) fn write_vector(
    element: &Writer,
    text: &[u8],
    context: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    out.push(b'[');
    if !text.is_empty() {
        for (index, value) in text.split(|byte| *byte == b' ').enumerate() {
            if index > 0 {
                out.extend_from_slice(b", ");
            }
            element.write(value, context, out)?;
        }
    }
    out.push(b']');
    Ok(())
}
