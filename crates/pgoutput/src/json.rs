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
//! | types with a cast to json | what the server makes of it, see [`Conversions`] |
//! | everything else | a string: the type's text form |
//!
//! Where the server's function fails or its output is not JSON, this one still writes JSON:
//!
//! - `json` can hold what `jsonb` cannot: `\u0000` and lone surrogates stay escaped as they are, and numbers beyond
//!   numeric's range stay as they are written. So do numbers once those with exponents have grown one value by
//!   [`EXPANDED_BYTES_MAX`], which keeps a few hostile kilobytes from becoming gigabytes.
//! - Bytes that are not UTF-8 (possible in SQL_ASCII databases, and in `"char"`) become U+FFFD.
//!
//! # Types that change
//!
//! The text of a composite says how many attributes the type had where the change stands in the WAL, and not which. It
//! is written with the attributes that the type has when it is looked up: those that the value does not have are null,
//! those that were dropped since are left out, as `to_jsonb` does it with rows that were stored before. For this, each
//! [`Attribute`] knows from which position in the WAL on it is certain. Where several readings of a text are possible,
//! writing fails rather than guesses.

mod array;
mod builtin;
mod composite;
mod conversions;
mod document;
mod hstore;
mod number;
mod string;
mod time;
mod types;

use std::sync::Arc;

use walcast_model::{Lsn, Oid};

pub use conversions::{Conversion, Conversions};
pub use document::EXPANDED_BYTES_MAX;
pub use types::{Attribute, TYPE_DEPTH_MAX, TypeKind, Types};

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
    /// What the server made of it, by this type's cast to json.
    Converted(Oid),
    /// Never.
    Impossible(ValueError),
}

/// What there is to write a value besides its text.
struct Context<'a> {
    /// Where its change stands in the WAL.
    at: Lsn,
    conversions: Option<&'a Conversions>,
    /// Where texts go that the server has yet to convert; what is written is then of no use.
    wanted: Option<&'a mut Vec<Conversion>>,
}

/// Why a value cannot be written as what its type says.
///
/// Write it with [`ValueWriter::text`] then, which never fails, and say so: its text form is all that is certain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text does not have the form of its type.
    #[error("it does not have the text form of {expected}")]
    Malformed {
        /// What the type was taken for.
        expected: &'static str,
    },
    /// A composite value has more or fewer fields than its type.
    #[error("it has {found} attributes, and its type has {expected}")]
    Fields {
        /// The fields that the type has.
        expected: usize,
        /// The fields that the value has.
        found: usize,
    },
    /// The type lost and gained attributes after the change was written, and the text fits more than one of the forms
    /// that it may have had.
    #[error("its type was altered since, and its {found} attributes may be one or another")]
    Ambiguous {
        /// The fields that the value has.
        found: usize,
    },
    /// The catalog has no such type any more.
    #[error("its type was dropped before it was read")]
    Dropped,
    /// The type has a cast to json, by a function that walcast must not run.
    #[error("its type's cast to json belongs to a role whose functions walcast does not run")]
    UntrustedCast,
    /// The server did not convert it: its own `to_jsonb` fails, or it was not asked.
    #[error("the server could not convert it with its type's cast to json")]
    NotConverted,
    /// Bytes that are not UTF-8 became U+FFFD: not an error of [`ValueWriter`], which writes them so, but one for those
    /// who count.
    #[error("it has bytes that are not UTF-8")]
    NotUtf8,
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

    /// Writes a value that is given as what `to_jsonb` prints.
    #[must_use]
    pub const fn jsonb() -> Self {
        Self(Writer::Jsonb)
    }

    /// Appends the JSON of a value, given in its text form, to `out`: of one that was printed now, and without help by
    /// the server.
    ///
    /// # Errors
    /// When `text` is not of this type, see [`ValueError`]; `out` is then as it was. Types whose JSON is a string
    /// take any text.
    #[inline]
    pub fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        self.run(text, &mut Context { at: Lsn::MAX, conversions: None, wanted: None }, out)
    }

    /// [`ValueWriter::write`], for a change that stands at `at` in the WAL, with what the server has converted.
    ///
    /// # Errors
    /// As [`ValueWriter::write`].
    #[inline]
    pub fn write_at(
        &self,
        text: &[u8],
        at: Lsn,
        conversions: &Conversions,
        out: &mut Vec<u8>,
    ) -> Result<(), ValueError> {
        self.run(text, &mut Context { at, conversions: Some(conversions), wanted: None }, out)
    }

    /// Adds to `wanted` what of this value the server has to convert and is not in `conversions`.
    pub fn collect(&self, text: &[u8], at: Lsn, conversions: &Conversions, wanted: &mut Vec<Conversion>) {
        if self.is_converted() {
            let mut context = Context { at, conversions: Some(conversions), wanted: Some(wanted) };
            // What cannot be written needs no conversion either.
            let _ = self.run(text, &mut context, &mut Vec::new());
        }
    }

    /// Whether values have parts that only the server can convert.
    #[must_use]
    pub fn is_converted(&self) -> bool {
        self.0.any(&|writer| matches!(writer, Writer::Converted(_)))
    }

    /// Whether values have parts with a cast to json whose function walcast must not run, and so no `to_jsonb` of them.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        self.0.any(&|writer| matches!(writer, Writer::Impossible(ValueError::UntrustedCast)))
    }

    fn run(&self, text: &[u8], context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = out.len();
        self.0.write(text, context, out).inspect_err(|_| out.truncate(start))
    }
}

impl Writer {
    fn write(&self, text: &[u8], context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
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
            Self::Array(array) => return array.write(text, context, out),
            Self::Vector(element) => return array::write_vector(element, text, context, out),
            Self::Composite(composite) => return composite.write(text, context, out),
            Self::Converted(oid) => return conversions::write(*oid, text, context, out),
            Self::Impossible(error) => return Err(error.clone()),
        }
        Ok(())
    }

    /// Whether `is` says so of this writer or of any that it is made of.
    fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Array(array) => array.element.any(is),
                Self::Composite(composite) => composite.writers().any(|writer| writer.any(is)),
                _ => false,
            }
    }
}
