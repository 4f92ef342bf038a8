//! Values: those of literals, which are kept, and those of rows, which are looked at where they are.

pub(crate) mod interval;
pub(crate) mod json;
pub(crate) mod network;
pub(crate) mod number;
pub(crate) mod read;
pub(crate) mod text;
pub(crate) mod time;

use std::cmp::Ordering;

use network::Network;
use number::{Number, NumberRef};
use text::TextRef;

/// A literal's value, in one spelling for all that mean the same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    Bool(bool),
    /// Integers; also dates in days, times and timestamps in microseconds, labels of enums by their rank, and `"char"`.
    Int(i64),
    /// The bits of a float, without negative zero and with one NaN.
    Float(u64),
    Number(Number),
    Text(Box<str>),
    /// Intervals in microseconds, and `timetz`, see [`time`].
    Wide(i128),
    Network(Network),
    /// A jsonb document as Postgres prints it.
    Json(Box<str>),
}

/// A value to compare: of a row, not copied, or of a literal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Datum<'a> {
    Int(i64),
    Float(f64),
    Number(NumberRef<'a>),
    Text(TextRef<'a>),
    Wide(i128),
    Network(Network),
    Json(&'a [u8]),
}

impl Value {
    pub(crate) fn float(value: f64) -> Self {
        let value = if value.is_nan() {
            f64::NAN
        } else if value == 0.0 {
            0.0
        } else {
            value
        };
        Self::Float(value.to_bits())
    }

    pub(crate) fn datum(&self) -> Datum<'_> {
        match self {
            Self::Bool(value) => Datum::Int(i64::from(*value)),
            Self::Int(value) => Datum::Int(*value),
            Self::Float(bits) => Datum::Float(f64::from_bits(*bits)),
            Self::Number(number) => Datum::Number(number.as_ref()),
            Self::Text(text) => Datum::Text(TextRef::plain(text.as_bytes())),
            Self::Wide(value) => Datum::Wide(*value),
            Self::Network(network) => Datum::Network(*network),
            Self::Json(text) => Datum::Json(text.as_bytes()),
        }
    }
}

/// The order of floats in Postgres: NaN equals itself and is greater than everything else.
fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// How two values compare that were read alike; `None` when they were not. For jsonb only equality is known, and
/// everything else is `Less`.
pub(crate) fn compare(left: Datum<'_>, right: Datum<'_>) -> Option<Ordering> {
    Some(match (left, right) {
        (Datum::Int(left), Datum::Int(right)) => left.cmp(&right),
        (Datum::Float(left), Datum::Float(right)) => compare_floats(left, right),
        (Datum::Number(left), Datum::Number(right)) => left.compare(right),
        (Datum::Text(left), Datum::Text(right)) => left.compare(right),
        (Datum::Wide(left), Datum::Wide(right)) => left.cmp(&right),
        (Datum::Network(left), Datum::Network(right)) => left.compare(&right),
        (Datum::Json(left), Datum::Json(right)) => {
            if json::equal(left, right) {
                Ordering::Equal
            } else {
                Ordering::Less
            }
        }
        _ => return None,
    })
}
