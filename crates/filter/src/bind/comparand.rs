//! What a column is compared with: the type that Postgres resolves for both sides, and the value of the literal.

use super::{Subject, type_error};
use crate::error::{FilterError, Refusal};
use crate::literal::{Constant, bad_literal, float, input, integer, number};
use crate::schema::Collation;
use crate::syntax::{Comparison, Literal, Word};
use crate::types::Type;
use crate::value::Value;
use crate::value::number::Number;
use crate::value::read::Reading;

/// Where a literal stands. Postgres resolves the types of a list together, and of one pair by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Operator,
    List,
}

/// A literal beside a column: how both are read, and the value; `None` for NULL.
pub(crate) type Comparand = (Reading, Option<Constant>);

/// A literal with the type that it has by itself.
enum Typed {
    Null,
    /// In quotes, without a cast.
    Unknown(String),
    Known(Type, Value),
}

fn shown(ty: &Type) -> String {
    let name = ty.to_string();
    name.strip_prefix("pg_catalog.").unwrap_or(&name).to_owned()
}

/// The type that a cast names; for enums by the name of the one at hand.
fn cast_type(name: &str, subject: &Type) -> Result<Type, FilterError> {
    if let Some(ty) = Type::named(name) {
        return Ok(ty);
    }
    if let Type::Enum(kind) = subject
        && (kind.name == name || kind.name.rsplit('.').next() == Some(name))
    {
        return Ok(subject.clone());
    }
    let hint = "cast to the column's type, without a length or precision, or leave the cast out";
    Err(type_error(format!("a cast to {name} is not supported here"), hint))
}

fn typed(subject: &Type, literal: &Literal) -> Result<Typed, FilterError> {
    let cast = literal.cast.as_deref().map(|name| cast_type(name, subject)).transpose()?;
    match (&literal.word, cast) {
        (Word::Null, None) => Ok(Typed::Null),
        (Word::Null, Some(ty)) if ty == *subject || ty.is_text() && subject.is_text() => Ok(Typed::Null),
        (Word::Quoted(text), None) => Ok(Typed::Unknown(text.clone())),
        (Word::Quoted(text), Some(ty)) => input(&ty, text).map(|value| Typed::Known(ty, value)),
        (Word::Bool(value), None | Some(Type::Bool)) => Ok(Typed::Known(Type::Bool, Value::Bool(*value))),
        (Word::Number(digits), None) => {
            if let Some(value) = integer(digits) {
                let ty = if i32::try_from(value).is_ok() { Type::Int4 } else { Type::Int8 };
                return Ok(Typed::Known(ty, Value::Int(value)));
            }
            number(digits, &Type::Numeric).map(|number| Typed::Known(Type::Numeric, Value::Number(number)))
        }
        (Word::Number(digits), Some(ty)) if ty.is_integer() || ty == Type::Oid => {
            let hint = "cast a whole number within the range of the type";
            integer(digits).ok_or_else(|| bad_literal(digits, &ty, hint))?;
            input(&ty, digits).map(|value| Typed::Known(ty, value))
        }
        (Word::Number(digits), Some(ty)) if ty.is_float() || ty == Type::Numeric => {
            input(&ty, digits).map(|value| Typed::Known(ty, value))
        }
        (_, cast) => {
            let cast = cast.map_or_else(String::new, |ty| format!(" cast to {}", shown(&ty)));
            let message = format!("this literal{cast} is not compared with {}", shown(subject));
            Err(type_error(message, "write the literal in quotes: it then has the column's type"))
        }
    }
}

/// A value as the bits of a float, as the server casts it.
fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Number(number) => float(number.as_str(), false),
        Value::Float(bits) => Some(f64::from_bits(*bits)),
        _ => None,
    }
}

fn float_constant(value: f64) -> Constant {
    // One spelling where both have the same meaning.
    let single = f64::from(value as f32);
    let exact = single == value || value.is_nan();
    Constant::new(Value::float(value), if exact { &Type::Float4 } else { &Type::Float8 })
}

/// Resolves a literal beside a subject of a scalar type.
pub(crate) fn comparand(
    subject: &Subject,
    op: Comparison,
    literal: &Literal,
    place: Place,
) -> Result<Comparand, FilterError> {
    check_collation(subject, op).map_err(|error| error.at(literal.at))?;
    resolve(subject, op, literal, place).map_err(|error| error.at(literal.at))
}

/// Equality needs a deterministic collation, order one that goes by bytes.
pub(crate) fn check_collation(subject: &Subject, op: Comparison) -> Result<(), FilterError> {
    if !subject.ty.is_collatable() {
        return Ok(());
    }
    match subject.collation {
        Collation::NonDeterministic => Err(FilterError::new(
            Refusal::Collation,
            format!("column {:?} has a collation that is not deterministic", subject.operand.name),
            "compare another column, or give the column a deterministic collation",
        )),
        _ if op.is_equality() => Ok(()),
        Collation::C | Collation::CodePoint if subject.utf8 => Ok(()),
        _ => Err(FilterError::new(
            Refusal::Collation,
            format!("the order of column {:?} depends on the server's locale", subject.operand.name),
            "compare by = or IN, or give the column the collation \"C\"",
        )),
    }
}

fn resolve(
    subject: &Subject,
    op: Comparison,
    literal: &Literal,
    place: Place,
) -> Result<Comparand, FilterError> {
    let ty = &subject.ty;
    let reading = reading(ty, op)?;
    let (from, value) = match typed(ty, literal)? {
        Typed::Null => return Ok((reading, None)),
        Typed::Unknown(text) => {
            // There are no operators of cidr: beside one, a literal is an inet.
            let as_inet = *ty == Type::Cidr && place == Place::Operator;
            let own = if as_inet { Type::Inet } else { ty.clone() };
            let value = input(&own, &text)?;
            (own, value)
        }
        Typed::Known(from, value) => (from, value),
    };
    let mismatch = || {
        let message = format!("{} is not compared with {}", shown(ty), shown(&from));
        type_error(message, "write the literal in quotes: it then has the column's type")
    };
    if ty.is_float() {
        return floating(ty, &from, &value, literal, place).ok_or_else(mismatch);
    }
    let constant = match (ty, &from) {
        (ty, from) if ty.is_integer() && from.is_integer() => Constant::new(value, &Type::Int8),
        (ty, Type::Numeric) if ty.is_integer() => {
            return Ok((Reading::Number, Some(Constant::new(value, &Type::Numeric))));
        }
        (ty, from) if ty.is_integer() && from.is_float() && place == Place::Operator => {
            return Ok((
                Reading::IntegerAsFloat,
                as_float(&value).map(|value| Constant::new(Value::float(value), &Type::Float8)),
            ));
        }
        (Type::Oid, from) if from.is_integer() => match value {
            Value::Int(number) if u32::try_from(number).is_ok() => Constant::new(value, &Type::Oid),
            _ => return Err(mismatch()),
        },
        (Type::Numeric, from) if from.is_integer() => match value {
            Value::Int(value) => Constant::new(Value::Number(Number::from_int(value)), &Type::Numeric),
            _ => return Err(mismatch()),
        },
        (Type::Text | Type::Varchar, Type::Text | Type::Varchar)
        | (Type::Name, Type::Text | Type::Varchar | Type::Name) => Constant::new(value, &Type::Text),
        (Type::Inet | Type::Cidr, Type::Inet | Type::Cidr) => Constant::new(value, &Type::Inet),
        (ty, from) if ty == from => with_rank(value, ty, &reading)?,
        _ => return Err(mismatch()),
    };
    Ok((reading, Some(constant)))
}

/// An enum's label, as its rank where the order matters.
fn with_rank(value: Value, ty: &Type, reading: &Reading) -> Result<Constant, FilterError> {
    if let (Reading::Rank(kind), Value::Text(label)) = (reading, &value) {
        let rank = kind.labels.iter().position(|known| **known == **label);
        let rank = rank.and_then(|rank| i64::try_from(rank).ok());
        let rank = rank.ok_or_else(|| bad_literal(label, ty, "it is none of the labels of this enum"))?;
        return Ok(Constant::new(Value::Int(rank), ty));
    }
    Ok(Constant::new(value, ty))
}

/// Beside a single float a literal without a cast is a double, unless it is in quotes or in a list of several.
fn floating(ty: &Type, from: &Type, value: &Value, literal: &Literal, place: Place) -> Option<Comparand> {
    let single = *ty == Type::Float4;
    let reading = if single { Reading::Float4 } else { Reading::Float8 };
    if !(from.is_integer() || from.is_float() || *from == Type::Numeric) {
        return None;
    }
    let value = match (&literal.word, place) {
        (Word::Number(digits), Place::List) if single && literal.cast.is_none() => match value {
            // From an integer the server rounds the integer, not its digits; both round to the nearest.
            Value::Int(value) => f64::from(*value as f32),
            _ => float(digits, true)?,
        },
        _ if single && place == Place::List && *from != Type::Float4 => return None,
        _ => as_float(value)?,
    };
    Some((reading, Some(float_constant(value))))
}

/// How a column of a type is read for an operator.
pub(crate) fn reading(ty: &Type, op: Comparison) -> Result<Reading, FilterError> {
    Ok(match ty {
        Type::Bool => Reading::Bool,
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => Reading::Integer,
        Type::Float4 => Reading::Float4,
        Type::Float8 => Reading::Float8,
        Type::Numeric => Reading::Number,
        Type::Text | Type::Varchar | Type::Name | Type::Uuid | Type::Bytea => Reading::Text,
        Type::Bpchar => Reading::Padded,
        Type::Char => Reading::Char,
        Type::Date => Reading::Date,
        Type::Time => Reading::Time,
        Type::TimeTz => Reading::TimeTz,
        Type::Timestamp => Reading::Timestamp,
        Type::TimestampTz => Reading::TimestampTz,
        Type::Interval => Reading::Interval,
        Type::Inet | Type::Cidr => Reading::Network,
        Type::Enum(_) if op.is_equality() => Reading::Text,
        Type::Enum(kind) => Reading::Rank(std::sync::Arc::clone(kind)),
        Type::Jsonb if op.is_equality() => Reading::Json,
        Type::Jsonb => {
            let hint = "compare by =, or take a value out of it: column ->> 'key'";
            return Err(type_error("the order of jsonb is not supported", hint));
        }
        Type::Array(_) => {
            let message =
                "arrays are compared by @>, <@, && and ANY alone, because the feed has no array bounds";
            return Err(type_error(message, "write column @> '{a,b}', or 'a' = ANY (column)"));
        }
        Type::Json => return Err(type_error("json has no comparison", "make the column jsonb")),
        Type::Composite | Type::Other => {
            return Err(type_error("columns of this type are not compared", "filter by another column"));
        }
    })
}
