//! Rows of the WAL as JSON objects.

use std::convert::Infallible;

use walcast_model::{Lsn, json};
use walcast_pgoutput::json::{Conversions, ValueError};
use walcast_pgoutput::{OldTuple, Tuple, TupleColumn};

use super::relation::Known;

/// What values are written with, besides their texts and types.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// Where the change stands in the WAL.
    pub(super) at: Lsn,
    pub(super) conversions: &'a Conversions,
    /// Whether texts may hold bytes that are not UTF-8.
    pub(super) any_bytes: bool,
}

/// Writes the images of one change's row. The caller has checked that tuples and table have as many columns.
#[derive(Debug)]
pub(super) struct Image<'a> {
    known: &'a Known,
    values: Values<'a>,
    /// Columns whose value is not what `to_jsonb` prints.
    failed: &'a mut Vec<(usize, ValueError)>,
    /// Columns that neither the new row nor the old one has.
    unchanged: Vec<usize>,
    /// Bytes that came from the last image.
    filled: usize,
}

/// Opens an object or goes on to its next field.
fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

impl<'a> Image<'a> {
    pub(super) const fn new(
        known: &'a Known,
        values: Values<'a>,
        failed: &'a mut Vec<(usize, ValueError)>,
    ) -> Self {
        Self { known, values, failed, unchanged: Vec::new(), filled: 0 }
    }

    /// The columns that [`Image::merged`] left out.
    pub(super) fn unchanged(&self) -> impl Iterator<Item = usize> + use<'_> {
        self.unchanged.iter().copied()
    }

    /// Bytes that [`Image::merged`] took from the last image.
    pub(super) const fn filled(&self) -> usize {
        self.filled
    }

    fn value(&mut self, index: usize, column: TupleColumn<'_>, out: &mut Vec<u8>) {
        match column {
            TupleColumn::Text(text) => {
                let Values { at, conversions, any_bytes } = self.values;
                match self.known.columns[index].writer.write_at(text, at, conversions, out) {
                    Ok(()) if any_bytes && std::str::from_utf8(text).is_err() => {
                        self.failed.push((index, ValueError::NotUtf8));
                    }
                    Ok(()) => {}
                    Err(error) => self.fall_back(index, text, error, out),
                }
            }
            // `Unchanged` is left out before it gets here.
            TupleColumn::Null | TupleColumn::Unchanged => out.extend_from_slice(b"null"),
            // Not asked for, and there is no writer for it.
            TupleColumn::Binary(bytes) => {
                self.fall_back(index, bytes, ValueError::Malformed { expected: "a text" }, out);
            }
        }
    }

    /// A value must never stop the feed: its text says as much as there is to say.
    fn fall_back(&mut self, index: usize, text: &[u8], error: ValueError, out: &mut Vec<u8>) {
        json::write_string(out, &String::from_utf8_lossy(text));
        self.failed.push((index, error));
    }

    fn field(&mut self, index: usize, column: TupleColumn<'_>, out: &mut Vec<u8>, first: &mut bool) {
        separate(out, first);
        out.extend_from_slice(self.known.relation.column_json(index).as_bytes());
        self.value(index, column, out);
    }

    /// Whether this tuple carries every column of the key.
    pub(super) fn key_is_known(&self, tuple: &Tuple) -> bool {
        let mut columns = tuple.iter().zip(&self.known.columns);
        columns.all(|(value, column)| !column.key || value != TupleColumn::Unchanged)
    }

    /// The key's columns.
    pub(super) fn key(&mut self, tuple: &Tuple, out: &mut Vec<u8>) -> Result<(), Infallible> {
        out.push(b'{');
        let mut first = true;
        for (index, column) in tuple.iter().enumerate() {
            if self.known.columns[index].key {
                self.field(index, column, out, &mut first);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// All columns of a tuple that leaves none out.
    pub(super) fn all(&mut self, tuple: &Tuple, out: &mut Vec<u8>) -> Result<(), Infallible> {
        out.push(b'{');
        let mut first = true;
        for (index, column) in tuple.iter().enumerate() {
            if column == TupleColumn::Unchanged {
                continue;
            }
            self.field(index, column, out, &mut first);
        }
        out.push(b'}');
        Ok(())
    }

    /// The row after a change, completed by the old one: whole under FULL; otherwise only by the identity's columns,
    /// because in an old key the others say nothing; and by the last image of the row before. What is left out is
    /// remembered.
    pub(super) fn merged(
        &mut self,
        new: &Tuple,
        old: Option<&OldTuple>,
        last: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Infallible> {
        let mut last = last.map(|last| json::fields(last).peekable());
        let full = matches!(old, Some(OldTuple::Full(_)));
        let mut old = old.map(|old| old.tuple().iter());
        out.push(b'{');
        let mut first = true;
        for (index, column) in new.iter().enumerate() {
            let before = old.as_mut().and_then(Iterator::next);
            let name = self.known.relation.column_name_json(index);
            let kept = last.as_mut().and_then(|last| last.next_if(|(field, _)| *field == name));
            let column = match (column, before) {
                (TupleColumn::Unchanged, Some(before)) if full || self.known.columns[index].identity => {
                    before
                }
                (column, _) => column,
            };
            if column != TupleColumn::Unchanged {
                self.field(index, column, out, &mut first);
            } else if let Some((_, value)) = kept.filter(|_| self.known.columns[index].is_lasting) {
                separate(out, &mut first);
                out.extend_from_slice(self.known.relation.column_json(index).as_bytes());
                out.extend_from_slice(value);
                self.filled += value.len();
            } else {
                self.unchanged.push(index);
            }
        }
        out.push(b'}');
        Ok(())
    }
}
