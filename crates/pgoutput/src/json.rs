//! Column text to JSON: what the server's `to_jsonb(column)` prints, byte for byte.
//!
//! The text must have been printed under `DateStyle=ISO`, `IntervalStyle=postgres`, `TimeZone=UTC`,
//! `bytea_output=hex`, `extra_float_digits=3`. How a type is written follows the server's `to_jsonb`
//! (`jsonb_categorize_type`, `datum_to_jsonb` in `src/backend/utils/adt/jsonb.c`):
//!
//! | type | JSON |
//! | --- | --- |
//! | bool | `true`, `false` |
//! | int2, int4, int8, float4, float8, numeric | a number in plain digits with its scale, never through a float; NaN and the infinities are strings |
//! | timestamp, timestamptz | a string with `T`, and `+00:00` |
//! | json | as `jsonb` would hold it: keys by length and bytes, the last of equal keys, numbers in plain digits |
//! | jsonb | its text |
//! | arrays, int2vector, oidvector | an array; lower bounds are dropped |
//! | composites | an object, keys ordered as in `jsonb` |
//! | domains | as their base type |
//! | hstore | an object of strings and nulls |
//! | everything else | a string: the type's text form |
//!
//! Where the server's function fails or its output is not JSON, this one still writes JSON:
//!
//! - `json` can hold what `jsonb` cannot: `\u0000` and lone surrogates stay escaped as they are, and numbers beyond
//!   numeric's range stay as they are written. So do numbers once those with exponents have grown one value by
//!   [`EXPANDED_BYTES_MAX`], which keeps a few hostile kilobytes from becoming gigabytes.
//! - Bytes that are not UTF-8 (possible in SQL_ASCII databases, and in `"char"`) become U+FFFD.
//! - Types other than hstore that come with a cast to `json` are written in their text form: the cast is a function
//!   that only the server can run.

mod array;
mod builtin;
mod composite;
mod document;
mod hstore;
mod number;
mod string;
mod time;
mod types;

use std::sync::Arc;

pub use document::EXPANDED_BYTES_MAX;
pub use types::{TYPE_DEPTH_MAX, TypeKind, Types};

/// Writes the values of one type. Cheap to clone; made by [`Types::writer`].
#[derive(Clone, Debug)]
pub struct ValueWriter(Writer);

/// What a type's text is, resolved down to the types it is made of.
#[derive(Clone, Debug)]
enum Writer {
    Text,
    Bool,
    Integer,
    Number,
    Timestamp,
    TimestampTz,
    Json,
    Jsonb,
    Hstore,
    Array(Arc<array::ArrayWriter>),
    Vector(Arc<Writer>),
    Composite(Arc<composite::CompositeWriter>),
}

/// Why a text is not a value of its type: the type is not (or no longer) what [`Types`] was told.
///
/// Read the types again from the catalog and retry once; if that fails too, write the value with
/// [`ValueWriter::text`], which never fails. (A composite type can have changed since the row was written; its text
/// form is then all that can be said truthfully.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text does not have the form of its type.
    #[error(
        "value does not have the text form of {expected}; its type is not the one that is known, read it again"
    )]
    Malformed {
        /// What the type was taken for.
        expected: &'static str,
    },
    /// A composite value has more or fewer fields than its type.
    #[error(
        "composite value has {found} fields and its type {expected}; the type has changed, read it again"
    )]
    Fields {
        /// The fields that the type has.
        expected: usize,
        /// The fields that the value has.
        found: usize,
    },
}

const fn malformed(expected: &'static str) -> ValueError {
    ValueError::Malformed { expected }
}

impl ValueWriter {
    /// Writes any value as a string of its text form: what types that JSON has no form for get anyway.
    #[must_use]
    pub const fn text() -> Self {
        Self(Writer::Text)
    }

    /// Appends the JSON of a value, given in its text form, to `out`.
    ///
    /// # Errors
    /// When `text` is not of this type, see [`ValueError`]; `out` is then as it was. Types whose JSON is a string
    /// take any text.
    #[inline]
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = out.len();
        self.0.write(text, out).inspect_err(|_| out.truncate(start))
    }
}

impl Writer {
    fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        match self {
            Self::Text => string::write(text, out),
            Self::Integer => return number::write_integer(text, out),
            Self::Number => return number::write(text, out),
            Self::Bool => match text {
                b"t" => out.extend_from_slice(b"true"),
                b"f" => out.extend_from_slice(b"false"),
                _ => return Err(malformed("bool")),
            },
            Self::Timestamp => time::write_timestamp(text, out),
            Self::TimestampTz => time::write_timestamptz(text, out),
            Self::Json => return document::write(text, out),
            Self::Jsonb => string::write_valid_utf8(text, out),
            Self::Hstore => return hstore::write(text, out),
            Self::Array(array) => return array.write(text, out),
            Self::Vector(element) => return array::write_vector(element, text, out),
            Self::Composite(composite) => return composite.write(text, out),
        }
        Ok(())
    }
}
