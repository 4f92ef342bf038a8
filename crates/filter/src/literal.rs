//! The text of a literal as a value of a type: what Postgres's input functions read, as far as it does not depend on
//! settings, the clock, or the server's version.

use crate::error::{FilterError, Refusal};
use crate::limits::{JSON_DEPTH_MAX, LIST_ITEMS_MAX, NAME_BYTES_MAX, NUMBER_DIGITS_MAX};
use crate::types::Type;
use crate::value::number::{Number, NumberError};
use crate::value::{Value, interval, network::Network, time};

/// A literal with its type: one spelling for all that mean the same.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Constant {
    pub(crate) value: Value,
    pub(crate) ty: ConstantType,
}

/// A type that can be ordered, for the sake of normal forms.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct ConstantType(String);

impl ConstantType {
    pub(crate) fn sql(&self) -> &str {
        &self.0
    }

    fn is(&self, ty: &Type) -> bool {
        self.0 == ty.to_string()
    }
}

impl Constant {
    pub(crate) fn new(value: Value, ty: &Type) -> Self {
        Self { value, ty: ConstantType(ty.to_string()) }
    }

    /// The value as text that Postgres reads back as the same.
    pub(crate) fn text(&self) -> String {
        let is = |ty| self.ty.is(&ty);
        match &self.value {
            Value::Bool(value) => value.to_string(),
            Value::Int(value) if is(Type::Date) => time::write_date(*value),
            Value::Int(value) if is(Type::Time) => time::write_time(*value),
            Value::Int(value) if is(Type::Timestamp) => time::write_timestamp(*value, time::Zone::Absent),
            Value::Int(value) if is(Type::TimestampTz) => time::write_timestamp(*value, time::Zone::Required),
            Value::Int(value) if is(Type::Char) => match u8::try_from(*value) {
                Ok(byte) if byte != 0 => char::from(byte).to_string(),
                _ => String::new(),
            },
            Value::Int(value) => value.to_string(),
            Value::Float(bits) => match f64::from_bits(*bits) {
                value if value.is_nan() => "NaN".to_owned(),
                value if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
                // Exact in both, because it came from a single one.
                value if is(Type::Float4) => format!("{:e}", value as f32),
                value => format!("{value:e}"),
            },
            Value::Number(number) => number.as_str().to_owned(),
            Value::Text(text) | Value::Json(text) => text.to_string(),
            Value::Wide(value) if is(Type::TimeTz) => time::write_timetz(*value),
            Value::Wide(value) => interval::write(*value),
            Value::Network(network) => network.to_string(),
        }
    }
}

pub(crate) fn bad_literal(text: &str, ty: &Type, hint: &str) -> FilterError {
    let shown: String = text.chars().take(40).collect();
    let name = ty.to_string();
    let name = name.strip_prefix("pg_catalog.").unwrap_or(&name);
    FilterError::new(Refusal::Literal, format!("{shown:?} is not a value of type {name}"), hint)
}

/// What Postgres trims around numbers and booleans.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

fn boolean(text: &str) -> Option<bool> {
    let text = trimmed(text).to_ascii_lowercase();
    let short_for = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if short_for("true", 1) || short_for("yes", 1) || text == "on" || text == "1" {
        return Some(true);
    }
    (short_for("false", 1) || short_for("no", 1) || short_for("off", 2) || text == "0").then_some(false)
}

pub(crate) fn integer(text: &str) -> Option<i64> {
    let text = trimmed(text);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The most that an integer type holds.
fn in_range(ty: &Type, value: i64) -> bool {
    match ty {
        Type::Int2 => i16::try_from(value).is_ok(),
        Type::Int4 => i32::try_from(value).is_ok(),
        Type::Oid => u32::try_from(value).is_ok(),
        _ => true,
    }
}

/// A float as the server reads it; `None` where it fails, or where only newer versions know the form.
pub(crate) fn float(text: &str, single: bool) -> Option<f64> {
    let text = trimmed(text);
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix(['-', '+']).unwrap_or(&lower) {
        "nan" if lower.len() == 3 => return Some(f64::NAN),
        "inf" | "infinity" => {
            return Some(if lower.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        digits if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {}
        _ => return None,
    }
    let value = if single { f64::from(text.parse::<f32>().ok()?) } else { text.parse::<f64>().ok()? };
    let mantissa = lower.split('e').next().unwrap_or_default();
    let vanished = value == 0.0 && mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    (value.is_finite() && !vanished).then_some(value)
}

pub(crate) fn number(text: &str, ty: &Type) -> Result<Number, FilterError> {
    Number::parse(text).map_err(|error| match error {
        NumberError::Malformed => bad_literal(text, ty, "write numbers in decimal digits"),
        NumberError::TooLong => FilterError::new(
            Refusal::NumberTooLong,
            format!("a number of more than {NUMBER_DIGITS_MAX} digits"),
            "use a number with fewer digits",
        ),
    })
}

/// Forms that Postgres accepts and that mean something else tomorrow, or in another session.
fn depends_on_session(text: &str) -> bool {
    let lower = trimmed(text).to_ascii_lowercase();
    ["now", "today", "tomorrow", "yesterday", "allballs", "epoch"].iter().any(|word| lower.contains(word))
        || lower.contains('/')
        || lower.bytes().any(|byte| byte.is_ascii_alphabetic() && byte != b't' && byte != b'z')
            && !lower.ends_with(" bc")
}

fn moment(text: &str, ty: &Type, value: Option<Value>, hint: &str) -> Result<Value, FilterError> {
    value.ok_or_else(|| {
        if depends_on_session(text) {
            let message = format!("the meaning of {text:?} depends on the clock or on a setting");
            return FilterError::new(Refusal::Setting, message, hint);
        }
        bad_literal(text, ty, hint)
    })
}

/// A uuid in the spelling that Postgres prints.
fn uuid(text: &str) -> Option<String> {
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::new();
    let mut previous = '-';
    for character in inner.chars() {
        match character {
            // Hyphens may stand after each group of four digits.
            '-' if previous != '-' && digits.len().is_multiple_of(4) && digits.len() < 32 => {}
            _ if character.is_ascii_hexdigit() => digits.push(character.to_ascii_lowercase()),
            _ => return None,
        }
        previous = character;
    }
    if digits.len() != 32 {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    Some([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

/// A bytea in the hex form that the feed has; only that form is taken.
fn bytea(text: &str) -> Option<String> {
    let digits = text.strip_prefix("\\x")?;
    let valid = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| text.to_ascii_lowercase())
}

/// A jsonb document as Postgres prints it.
pub(crate) fn json(text: &str) -> Result<String, FilterError> {
    let bad = |hint: &str| bad_literal(text, &Type::Jsonb, hint);
    let parsed: serde_json::Value = serde_json::from_str(text)
        .map_err(|_| bad("write it as JSON, numbers within the range of a float"))?;
    if depth(&parsed) > JSON_DEPTH_MAX {
        let message = format!("a jsonb literal is nested deeper than {JSON_DEPTH_MAX} levels");
        return Err(FilterError::new(Refusal::TooDeep, message, "compare with a smaller document"));
    }
    let mut out = Vec::new();
    walcast_pgoutput::json::Types::new()
        .writer(walcast_model::Oid::new(114))
        .write(text.as_bytes(), &mut out)
        .map_err(|_| bad("write it as JSON"))?;
    let written = String::from_utf8(out).map_err(|_| bad("write it as JSON"))?;
    if written.contains("\\u0000") {
        return Err(bad("Postgres has no \\u0000 in jsonb"));
    }
    Ok(written)
}

pub(crate) fn depth(value: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Strings that cannot be told from what walcast makes of broken ones are not compared.
fn plain_text(text: &str, ty: &Type) -> Result<Value, FilterError> {
    if text.contains('\u{FFFD}') {
        return Err(bad_literal(
            text,
            ty,
            "U+FFFD stands for bytes that are no characters and is not compared",
        ));
    }
    Ok(Value::Text(text.into()))
}

/// Reads a literal in quotes as a value of `ty`; enums give their label.
pub(crate) fn input(ty: &Type, text: &str) -> Result<Value, FilterError> {
    let bad = |hint: &str| bad_literal(text, ty, hint);
    if text.contains('\0') {
        return Err(bad("Postgres has no NUL in strings"));
    }
    match ty {
        Type::Bool => boolean(text).map(Value::Bool).ok_or_else(|| bad("write true or false")),
        Type::Int2 | Type::Int4 | Type::Int8 | Type::Oid => integer(text)
            .filter(|value| in_range(ty, *value))
            .map(Value::Int)
            .ok_or_else(|| bad("write it in decimal digits, within the range of the type")),
        Type::Float4 | Type::Float8 => float(text, *ty == Type::Float4)
            .map(Value::float)
            .ok_or_else(|| bad("write it in decimal digits, within the range of the type")),
        Type::Numeric => number(text, ty).map(Value::Number),
        Type::Name if text.len() > NAME_BYTES_MAX => Err(bad("names have at most 63 bytes")),
        Type::Text | Type::Varchar | Type::Name => plain_text(text, ty),
        Type::Bpchar => plain_text(text.trim_end_matches(' '), ty),
        Type::Char => match text.as_bytes() {
            [] => Ok(Value::Int(0)),
            [byte] if byte.is_ascii() => Ok(Value::Int((*byte).into())),
            _ => Err(bad("\"char\" is compared with one ASCII character")),
        },
        Type::Uuid => uuid(text)
            .map(|text| Value::Text(text.into()))
            .ok_or_else(|| bad("write it as 00000000-0000-0000-0000-000000000000")),
        Type::Bytea => {
            bytea(text).map(|text| Value::Text(text.into())).ok_or_else(|| bad("write it as '\\x00ff'"))
        }
        Type::Date => {
            let hint = "write it as 2026-01-31, with ' BC' behind it where needed";
            moment(text, ty, time::date(text.as_bytes()).map(Value::Int), hint)
        }
        Type::Time => {
            let hint = "write it as 13:30 or 13:30:05.123456";
            moment(text, ty, time::time(text.as_bytes()).map(Value::Int), hint)
        }
        Type::TimeTz => {
            let hint = "write it as 13:30:05+00, with the zone in numbers";
            moment(text, ty, time::timetz(text.as_bytes()).map(Value::Wide), hint)
        }
        Type::Timestamp => {
            let hint = "write it as 2026-01-31 13:30:05.123456, without a zone";
            moment(text, ty, time::timestamp(text.as_bytes(), time::Zone::Absent).map(Value::Int), hint)
        }
        Type::TimestampTz => {
            let hint = "write it with its zone in numbers: 2026-01-31 13:30:05+00";
            let value = time::timestamp(text.as_bytes(), time::Zone::Required).map(Value::Int);
            if value.is_none() && time::timestamp(text.as_bytes(), time::Zone::Absent).is_some() {
                let message = format!("the meaning of {text:?} depends on the setting TimeZone");
                return Err(FilterError::new(Refusal::Setting, message, hint));
            }
            moment(text, ty, value, hint)
        }
        Type::Interval => interval::parse(text.as_bytes())
            .filter(|total| interval::in_range(*total))
            .map(Value::Wide)
            .ok_or_else(|| bad("write it as '1 year 2 months 3 days 04:05:06.789'")),
        Type::Inet => network(text).ok_or_else(|| bad("write the address in full: 10.0.0.1 or 10.0.0.0/8")),
        Type::Cidr => match network(text) {
            Some(Value::Network(network)) if !network.has_host_bits() => Ok(Value::Network(network)),
            _ => Err(bad("write the network in full, without bits behind its length: 10.0.0.0/8")),
        },
        Type::Jsonb => json(text).map(|text| Value::Json(text.into())),
        Type::Enum(kind) => {
            if kind.labels.iter().any(|label| label == text) {
                return Ok(Value::Text(text.into()));
            }
            Err(bad("it is none of the labels of this enum"))
        }
        Type::Array(_) | Type::Json | Type::Composite | Type::Other => {
            Err(FilterError::new(Refusal::Type, "this type is not compared", "filter by another column"))
        }
    }
}

fn network(text: &str) -> Option<Value> {
    Network::parse(text).map(Value::Network)
}

/// The elements of an array literal `{a,"b c",NULL}`, of one dimension; `None` for a NULL element.
pub(crate) fn array_elements(text: &str) -> Result<Vec<Option<String>>, FilterError> {
    let bad = || {
        let hint =
            "write it as '{1,2,3}', elements with commas, braces or spaces in double quotes; one dimension";
        FilterError::new(Refusal::Literal, "this is not an array literal", hint)
    };
    let body = trimmed(text).strip_prefix('{').ok_or_else(bad)?;
    let mut characters = body.chars().peekable();
    let mut elements = Vec::new();
    let skip = |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
        while characters.next_if(|next| matches!(next, ' ' | '\t' | '\n' | '\r')).is_some() {}
    };
    skip(&mut characters);
    if characters.next_if_eq(&'}').is_some() {
        return if characters.next().is_none() { Ok(elements) } else { Err(bad()) };
    }
    loop {
        skip(&mut characters);
        let mut element = String::new();
        let quoted = characters.next_if_eq(&'"').is_some();
        loop {
            match characters.peek().copied().ok_or_else(bad)? {
                '"' if quoted => {
                    characters.next();
                    break;
                }
                '\\' if quoted => {
                    characters.next();
                    element.push(characters.next().ok_or_else(bad)?);
                }
                ',' | '}' if !quoted => break,
                '"' | '\\' | '{' if !quoted => return Err(bad()),
                other => {
                    characters.next();
                    element.push(other);
                }
            }
        }
        skip(&mut characters);
        let element = if quoted { element } else { trimmed(&element).to_owned() };
        if !quoted && element.is_empty() {
            return Err(bad());
        }
        let is_null = !quoted && element.eq_ignore_ascii_case("null");
        elements.push((!is_null).then_some(element));
        if elements.len() > LIST_ITEMS_MAX {
            let message = format!("an array of more than {LIST_ITEMS_MAX} elements");
            return Err(FilterError::new(Refusal::ListTooLong, message, "use a shorter array"));
        }
        match characters.next() {
            Some(',') => {}
            Some('}') if characters.next().is_none() => return Ok(elements),
            _ => return Err(bad()),
        }
    }
}
