//! How the value of a column is read for a comparison.

use std::sync::Arc;

use walcast_model::json::elements;

use super::text::TextRef;
use super::time::Zone;
use super::{Datum, NumberRef, interval, network::Network, time};
use crate::types::EnumType;

/// What a column's JSON is taken for. Two values that were read alike can be compared.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Reading {
    Bool,
    Integer,
    /// An integer that is compared with a float.
    IntegerAsFloat,
    Float4,
    Float8,
    /// A numeric, or an integer that is compared with one.
    Number,
    /// Strings, and what has one spelling that sorts as its values do: `uuid`, `bytea`, labels for `=`.
    Text,
    /// `bpchar`: without the spaces at the end.
    Padded,
    /// `"char"`.
    Char,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// A label's place among those of its enum.
    Rank(Arc<EnumType>),
    Network,
    Json,
}

/// Why a value could not be read: it is not of its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unreadable;

/// How arrays may be nested (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

impl Reading {
    /// Reads a value that is not NULL.
    pub(crate) fn read<'a>(&self, json: &'a [u8]) -> Result<Datum<'a>, Unreadable> {
        self.datum(json).ok_or(Unreadable)
    }

    fn datum<'a>(&self, json: &'a [u8]) -> Option<Datum<'a>> {
        Some(match self {
            Self::Bool => Datum::Int(match json {
                b"true" => 1,
                b"false" => 0,
                _ => return None,
            }),
            Self::Integer => Datum::Int(integer(json)?),
            // As the server casts: rounded to the nearest.
            Self::IntegerAsFloat => Datum::Float(integer(json)? as f64),
            Self::Float4 => {
                let text = std::str::from_utf8(unquoted(json)).ok()?;
                Datum::Float(text.parse::<f32>().ok()?.into())
            }
            Self::Float8 => Datum::Float(std::str::from_utf8(unquoted(json)).ok()?.parse().ok()?),
            Self::Number => Datum::Number(NumberRef::read(unquoted(json))?),
            Self::Text => Datum::Text(TextRef::quoted(json)?),
            Self::Padded => Datum::Text(TextRef::quoted(json)?.without_padding()),
            Self::Char => Datum::Int(character(TextRef::quoted(json)?)),
            Self::Date => Datum::Int(time::date(string(json)?)?),
            Self::Time => Datum::Int(time::time(string(json)?)?),
            Self::TimeTz => Datum::Wide(time::timetz(string(json)?)?),
            Self::Timestamp => Datum::Int(time::timestamp(string(json)?, Zone::Absent)?),
            Self::TimestampTz => Datum::Int(time::timestamp(string(json)?, Zone::Required)?),
            Self::Interval => Datum::Wide(interval::parse(string(json)?)?),
            Self::Rank(kind) => {
                let label = TextRef::quoted(json)?;
                let rank = kind.labels.iter().position(|known| label.equals(known.as_bytes()))?;
                Datum::Int(i64::try_from(rank).ok()?)
            }
            Self::Network => Datum::Network(Network::parse(std::str::from_utf8(string(json)?).ok()?)?),
            Self::Json => Datum::Json(json),
        })
    }

    /// Reads the elements of an array, all dimensions as one, until `each` has seen enough (`false`); `None` for a NULL
    /// element. Answers whether it came to the end.
    pub(crate) fn each<'a>(
        &self,
        array: &'a [u8],
        each: &mut impl FnMut(Option<Datum<'a>>) -> bool,
    ) -> Result<bool, Unreadable> {
        self.each_within(array, DIMENSIONS_MAX, each)
    }

    fn each_within<'a>(
        &self,
        array: &'a [u8],
        dimensions_left: usize,
        each: &mut impl FnMut(Option<Datum<'a>>) -> bool,
    ) -> Result<bool, Unreadable> {
        if dimensions_left == 0 || array.first() != Some(&b'[') {
            return Err(Unreadable);
        }
        for element in elements(array) {
            let go_on = match element {
                [b'[', ..] => self.each_within(element, dimensions_left - 1, each)?,
                b"null" => each(None),
                _ => each(Some(self.read(element)?)),
            };
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A string that has no escapes, as those of all types but text.
fn string(json: &[u8]) -> Option<&[u8]> {
    json.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// A number, or the name of one that JSON has no digits for.
fn unquoted(json: &[u8]) -> &[u8] {
    string(json).unwrap_or(json)
}

fn integer(json: &[u8]) -> Option<i64> {
    // An oid may come as a string of digits.
    let text = unquoted(json);
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    // Towards the negative side, which has one more number.
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// The byte of a `"char"`: none is NUL, and what is not one ASCII character is a byte above all of them, whichever.
fn character(text: TextRef<'_>) -> i64 {
    let mut bytes = text.bytes();
    match (bytes.next(), bytes.next()) {
        (None, _) => 0,
        (Some(byte), None) if byte.is_ascii() => byte.into(),
        _ => i64::from(u8::MAX),
    }
}
