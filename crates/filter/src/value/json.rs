//! jsonb documents, looked at where they stand in the row.
//!
//! The text is what Postgres prints for `jsonb`: keys are ordered by their length and bytes and occur once, strings have
//! one spelling. So equal keys have equal bytes, and objects are walked side by side.

use std::cmp::Ordering;

use walcast_model::json::{elements, fields, write_string};

use super::number::NumberRef;
use super::text::TextRef;
use crate::syntax::Step;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    Scalar,
}

fn kind(json: &[u8]) -> Kind {
    match json.first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        _ => Kind::Scalar,
    }
}

/// A key as it stands between its quotes.
pub(crate) fn key_text(key: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(key.len() + 2);
    write_string(&mut text, key);
    text.pop();
    text.drain(..1);
    text
}

/// A step of a path, ready to be compared with the keys of a row.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct PathStep {
    pub(crate) step: Step,
    key: Box<[u8]>,
}

impl PathStep {
    pub(crate) fn new(step: Step) -> Self {
        let key = match &step {
            Step::Key(key) => key_text(key).into(),
            Step::Index(_) => Box::default(),
        };
        Self { step, key }
    }

    /// Whether the step leads from a scalar to itself: Postgres keeps a bare scalar in an array of one.
    pub(crate) const fn keeps_scalars(&self) -> bool {
        matches!(self.step, Step::Index(0 | -1))
    }

    /// `json -> step`; `None` for NULL.
    pub(crate) fn follow<'a>(&self, json: &'a [u8]) -> Option<&'a [u8]> {
        match (&self.step, kind(json)) {
            (Step::Key(_), Kind::Object) => {
                fields(json).find(|(key, _)| *key == &*self.key).map(|(_, value)| value)
            }
            (Step::Index(index), Kind::Array) => match usize::try_from(*index) {
                Ok(index) => elements(json).nth(index),
                Err(_) => {
                    let back = usize::try_from(index.unsigned_abs()).ok()?;
                    elements(json).nth(elements(json).count().checked_sub(back)?)
                }
            },
            (Step::Index(_), Kind::Scalar) => self.keeps_scalars().then_some(json),
            _ => None,
        }
    }
}

/// `json #>> '{}'`: a string without its quotes, everything else as it is printed; `None` for `null`.
pub(crate) fn as_text(json: &[u8]) -> Option<TextRef<'_>> {
    match json {
        b"null" => None,
        _ => Some(TextRef::quoted(json).unwrap_or_else(|| TextRef::plain(json))),
    }
}

fn equal_scalars(left: &[u8], right: &[u8]) -> bool {
    match (left.first(), right.first()) {
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => {
            match (NumberRef::read(left), NumberRef::read(right)) {
                (Some(left), Some(right)) => left.compare(right) == Ordering::Equal,
                _ => left == right,
            }
        }
        _ => left == right,
    }
}

/// `left = right`.
pub(crate) fn equal(left: &[u8], right: &[u8]) -> bool {
    let both = (kind(left), kind(right));
    match both {
        (Kind::Object, Kind::Object) => {
            let (mut left, mut right) = (fields(left), fields(right));
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return true,
                    (Some((key, value)), Some((other_key, other)))
                        if key == other_key && equal(value, other) => {}
                    _ => return false,
                }
            }
        }
        (Kind::Array, Kind::Array) => {
            let (mut left, mut right) = (elements(left), elements(right));
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return true,
                    (Some(value), Some(other)) if equal(value, other) => {}
                    _ => return false,
                }
            }
        }
        (Kind::Scalar, Kind::Scalar) => equal_scalars(left, right),
        _ => false,
    }
}

/// `json @> part` (`jsonb_contains`).
pub(crate) fn contains(json: &[u8], part: &[u8]) -> bool {
    match (kind(json), kind(part)) {
        // An array contains a scalar that is one of its elements, at the top only.
        (Kind::Array, Kind::Scalar) => has_element(json, part),
        _ => contains_deep(json, part),
    }
}

fn has_element(array: &[u8], scalar: &[u8]) -> bool {
    elements(array).any(|element| kind(element) == Kind::Scalar && equal_scalars(element, scalar))
}

fn contains_deep(json: &[u8], part: &[u8]) -> bool {
    match (kind(json), kind(part)) {
        (Kind::Object, Kind::Object) => {
            // Both are in the same order: one walk finds all keys.
            let mut pairs = fields(json);
            fields(part).all(|(key, wanted)| {
                pairs.find(|(other, _)| *other == key).is_some_and(|(_, value)| contains_deep(value, wanted))
            })
        }
        (Kind::Array, Kind::Array) => elements(part).all(|wanted| match kind(wanted) {
            Kind::Scalar => has_element(json, wanted),
            _ => elements(json).any(|element| contains_deep(element, wanted)),
        }),
        (Kind::Scalar, Kind::Scalar) => equal_scalars(json, part),
        _ => false,
    }
}

/// `json ? key`: a key of an object, a string in an array, or the string itself.
pub(crate) fn has_key(json: &[u8], key: &str) -> bool {
    let is_key = |value: &[u8]| TextRef::quoted(value).is_some_and(|text| text.equals(key.as_bytes()));
    match kind(json) {
        Kind::Object => fields(json).any(|(name, _)| TextRef::inside(name).equals(key.as_bytes())),
        Kind::Array => elements(json).any(is_key),
        Kind::Scalar => is_key(json),
    }
}
