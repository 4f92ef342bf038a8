//! Rows as the WAL carries them.

use std::fmt;

use bytes::Bytes;

use crate::decode::DecodeError;
use crate::reader::Reader;

/// The columns of one row: a slice of the message it came in, checked when the message was decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Tuple {
    columns: u16,
    data: Bytes,
}

/// One column of a [`Tuple`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TupleColumn<'a> {
    /// SQL NULL; in [`OldTuple::Key`] also every column that is not part of the identity.
    Null,
    /// A value stored out of line that the statement did not touch: the WAL does not carry it. Not NULL.
    Unchanged,
    /// The value as its type's output function prints it, in the client encoding.
    Text(&'a [u8]),
    /// The value as its type's send function writes it (only with `binary 'true'`).
    Binary(&'a [u8]),
}

/// The row before an UPDATE or DELETE, as far as the WAL has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OldTuple {
    /// The columns of the replica identity; all others are [`TupleColumn::Null`], which says nothing about them.
    Key(Tuple),
    /// All columns (REPLICA IDENTITY FULL).
    Full(Tuple),
}

impl OldTuple {
    /// The columns, whatever they stand for.
    #[must_use]
    pub const fn tuple(&self) -> &Tuple {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => tuple,
        }
    }
}

/// Takes one column off the front of `data`: the column, and what follows it.
fn split_column(data: &[u8]) -> Option<(TupleColumn<'_>, &[u8])> {
    let (&kind, rest) = data.split_first()?;
    match kind {
        b'n' => Some((TupleColumn::Null, rest)),
        b'u' => Some((TupleColumn::Unchanged, rest)),
        b't' | b'b' => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            Some((if kind == b't' { TupleColumn::Text(value) } else { TupleColumn::Binary(value) }, rest))
        }
        _ => None,
    }
}

impl Tuple {
    /// Reads and checks a tuple, whose type byte was read before.
    pub(crate) fn read(reader: &mut Reader) -> Result<Self, DecodeError> {
        let columns = reader.u16("number of columns")?;
        let mut rest = reader.peek();
        for _ in 0..columns {
            let Some((_, after)) = split_column(rest) else {
                return Err(match rest.first() {
                    Some(kind) if !b"nutb".contains(kind) => reader.invalid("kind of column", *kind),
                    _ => reader.truncated("column"),
                });
            };
            rest = after;
        }
        let length = reader.left().saturating_sub(rest.len());
        Ok(Self { columns, data: reader.bytes(length, "columns")? })
    }

    /// The number of columns; the receiver compares it with the relation's.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it has no columns (a table can have none).
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Bytes of the columns, including five a value for kind and length.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.data.len()
    }

    /// The columns in the relation's order.
    #[must_use]
    pub fn iter(&self) -> TupleColumns<'_> {
        TupleColumns { columns: self.columns, data: &self.data }
    }
}

impl<'a> IntoIterator for &'a Tuple {
    type Item = TupleColumn<'a>;
    type IntoIter = TupleColumns<'a>;

    fn into_iter(self) -> TupleColumns<'a> {
        self.iter()
    }
}

/// The columns of a [`Tuple`]; exactly [`Tuple::len`] of them.
#[derive(Clone)]
pub struct TupleColumns<'a> {
    columns: u16,
    data: &'a [u8],
}

impl<'a> Iterator for TupleColumns<'a> {
    type Item = TupleColumn<'a>;

    #[inline]
    fn next(&mut self) -> Option<TupleColumn<'a>> {
        self.columns = self.columns.checked_sub(1)?;
        let (column, rest) = split_column(self.data)?;
        self.data = rest;
        Some(column)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.columns), Some(usize::from(self.columns)))
    }
}

impl ExactSizeIterator for TupleColumns<'_> {}

// Row values never reach a log, so `Debug` shows shapes and sizes only.

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tuple({} columns, {} bytes)", self.columns, self.data.len())
    }
}

impl fmt::Debug for TupleColumns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TupleColumns({} left)", self.columns)
    }
}

impl fmt::Debug for TupleColumn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(value) => write!(f, "Text({} bytes)", value.len()),
            Self::Binary(value) => write!(f, "Binary({} bytes)", value.len()),
        }
    }
}
