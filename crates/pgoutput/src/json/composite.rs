//! Composites, from the text that `record_out` prints: `(1,,"a ""b"" \\ c")`.

use std::ops::Range;

use walcast_model::Lsn;

use super::{Context, ValueError, Writer, malformed, string};

const EXPECTED: &str = "a composite";

/// Writes the values of one composite type.
#[derive(Debug)]
pub(super) struct CompositeWriter {
    /// In the order of the text.
    attributes: Vec<AttributeWriter>,
    /// Those that are not dropped as `"name": ` and index into `attributes`, in the order in which `jsonb` keeps keys.
    ordered: Vec<(Vec<u8>, usize)>,
    /// From here on, values have exactly the attributes that are not dropped.
    settled_from: Lsn,
}

/// One attribute: what there is to write it with.
#[derive(Debug)]
struct AttributeWriter {
    /// Values before it may or may not have the attribute.
    since: Lsn,
    /// `None` when it is dropped.
    writer: Option<Writer>,
    /// Where it stands in the text of a value that has exactly the attributes that are not dropped.
    place: usize,
}

/// A field's text: absent, as it stands, or unescaped in a buffer.
enum Cell<'a> {
    Null,
    Plain(&'a [u8]),
    Unescaped(Range<usize>),
}

impl CompositeWriter {
    /// Of the attributes in the order of their numbers: since when, and name and writer unless dropped.
    pub(super) fn new<'a>(attributes: impl IntoIterator<Item = (Lsn, Option<(&'a str, Writer)>)>) -> Self {
        let (mut writers, mut names, mut settled_from) = (Vec::new(), Vec::new(), Lsn::ZERO);
        for (index, (since, live)) in attributes.into_iter().enumerate() {
            settled_from = settled_from.max(since);
            let place = names.len();
            let writer = live.map(|(name, writer)| {
                names.push((index, name));
                writer
            });
            writers.push(AttributeWriter { since, writer, place });
        }
        names.sort_by_key(|(_, name)| (name.len(), *name));
        let ordered = names.into_iter().map(|(index, name)| {
            let mut key = Vec::new();
            string::write(name.as_bytes(), &mut key);
            key.extend_from_slice(b": ");
            (key, index)
        });
        Self { attributes: writers, ordered: ordered.collect(), settled_from }
    }

    /// Those of the attributes.
    pub(super) fn writers(&self) -> impl Iterator<Item = &Writer> {
        self.attributes.iter().filter_map(|attribute| attribute.writer.as_ref())
    }

    pub(super) fn write(
        &self,
        text: &[u8],
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        let mut unescaped = Vec::new();
        let cells = self.split(text, &mut unescaped)?;
        let places = if context.at < self.settled_from {
            // No field and one that is null print alike.
            let is_blank = matches!(cells.as_slice(), [] | [Cell::Null]);
            Some(if is_blank { Vec::new() } else { self.places(context.at, cells.len())? })
        } else if cells.len() == self.ordered.len() {
            None
        } else {
            return Err(ValueError::Fields { expected: self.ordered.len(), found: cells.len() });
        };
        out.push(b'{');
        for (position, (key, index)) in self.ordered.iter().enumerate() {
            if position > 0 {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(key);
            let Some(AttributeWriter { writer: Some(writer), place, .. }) = self.attributes.get(*index)
            else {
                continue;
            };
            let place = match &places {
                None => Some(*place),
                Some(places) => places.get(*index).copied().flatten(),
            };
            let text = match place.and_then(|place| cells.get(place)) {
                None | Some(Cell::Null) => {
                    out.extend_from_slice(b"null");
                    continue;
                }
                Some(Cell::Plain(text)) => text,
                Some(Cell::Unescaped(range)) => unescaped.get(range.clone()).unwrap_or_default(),
            };
            writer.write(text, context, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Where each attribute stands in a value that was printed at `at` with this many fields.
    ///
    /// Attributes are added at the end only. So the value has those up to some number, at least to the last that is
    /// certain, but maybe not those that were dropped since. There has to be one choice only that has this many.
    fn places(&self, at: Lsn, fields: usize) -> Result<Vec<Option<usize>>, ValueError> {
        let is_live = |index: &usize| self.attributes.get(*index).is_some_and(|it| it.writer.is_some());
        let is_since = |index: usize| self.attributes.get(index).is_some_and(|it| at >= it.since);
        // What was dropped before is in no such value.
        let possible: Vec<usize> =
            (0..self.attributes.len()).filter(|index| is_live(index) || !is_since(*index)).collect();
        let certain = possible.iter().rposition(|index| is_live(index) && is_since(*index));
        let certain = certain.map_or(0, |last| last + 1);
        let (mut choices, mut choice) = (0, None);
        for end in certain..=possible.len() {
            // Each choice is counted at its last attribute, which is in it unless all that follow are uncertain.
            let others = if end > certain { end - 1 } else { end };
            let others = possible.get(..others).unwrap_or_default();
            let live = others.iter().filter(|index| is_live(index)).count() + usize::from(end > certain);
            let dropped = others.iter().filter(|index| !is_live(index)).count();
            let Some(kept) = fields.checked_sub(live).filter(|kept| *kept <= dropped) else { continue };
            choices += if kept == 0 || kept == dropped { 1 } else { 2 };
            choice = Some((end, kept > 0));
        }
        let (end, with_dropped) = match choice {
            Some(choice) if choices == 1 => choice,
            Some(_) => return Err(ValueError::Ambiguous { found: fields }),
            None => return Err(ValueError::Fields { expected: self.ordered.len(), found: fields }),
        };
        let (mut places, mut next) = (vec![None; self.attributes.len()], 0);
        for (position, index) in possible.into_iter().take(end).enumerate() {
            let is_last = end > certain && position + 1 == end;
            if (is_last || with_dropped || is_live(&index))
                && let Some(place) = places.get_mut(index)
            {
                *place = Some(next);
                next += 1;
            }
        }
        Ok(places)
    }

    /// Splits a value into its cells.
    fn split<'a>(&self, text: &'a [u8], unescaped: &mut Vec<u8>) -> Result<Vec<Cell<'a>>, ValueError> {
        let malformed = || malformed(EXPECTED);
        let mut rest = text.strip_prefix(b"(").ok_or_else(malformed)?;
        let mut cells = Vec::with_capacity(self.ordered.len());
        if self.ordered.is_empty() && rest == b")" {
            return Ok(cells);
        }
        loop {
            let (cell, after) = split_cell(rest, unescaped).ok_or_else(malformed)?;
            cells.push(cell);
            let (next, after) = after.split_first().ok_or_else(malformed)?;
            rest = after;
            match next {
                b',' => {}
                b')' if rest.is_empty() => return Ok(cells),
                _ => return Err(malformed()),
            }
        }
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
