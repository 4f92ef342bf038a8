//! hstore, from the text that its output function prints: `"a"=>"1", "b"=>NULL`.
//!
//! The extension brings a cast to `json` that `to_jsonb` uses; it keeps its keys in the order of `jsonb`.

use super::array::unquote;
use super::{ValueError, malformed, string};

/// Appends an hstore as an object of strings and nulls.
pub(super) fn write(text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    out.push(b'{');
    write_pairs(text, out).ok_or_else(|| malformed("hstore"))?;
    out.push(b'}');
    Ok(())
}

fn write_pairs(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut rest, mut scratch) = (text, Vec::new());
    while !rest.is_empty() {
        let (key, after) = unquote(rest, &mut scratch)?;
        string::write(key, out);
        out.extend_from_slice(b": ");
        let after = after.strip_prefix(b"=>")?;
        rest = match after.strip_prefix(b"NULL") {
            Some(after) => {
                out.extend_from_slice(b"null");
                after
            }
            None => {
                let (value, after) = unquote(after, &mut scratch)?;
                string::write(value, out);
                after
            }
        };
        if !rest.is_empty() {
            rest = rest.strip_prefix(b", ").filter(|rest| !rest.is_empty())?;
            out.extend_from_slice(b", ");
        }
    }
    Some(())
}
