//! Values that only the server can turn into JSON: their type comes with a cast to `json`, which `to_jsonb` follows, and
//! a cast is a function.
//!
//! Here is only what was asked for and what came back; whoever has a session asks.

use std::collections::HashMap;

use walcast_model::Oid;

use super::{Context, ValueError};

/// A value to be converted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Conversion {
    /// Its type: one of [`super::TypeKind::Cast`].
    pub type_oid: Oid,
    /// Its text.
    pub text: Box<[u8]>,
}

/// What became of each text of one type; `None` when the server could not convert it.
type ByText = HashMap<Box<[u8]>, Option<Box<[u8]>>>;

/// What the server made of values, as `to_jsonb` prints it.
#[derive(Debug, Default)]
pub struct Conversions {
    by_type: HashMap<Oid, ByText>,
}

impl Conversions {
    /// Keeps what became of a value; `None` when the server could not convert it.
    pub fn insert(&mut self, conversion: Conversion, json: Option<Box<[u8]>>) {
        self.by_type.entry(conversion.type_oid).or_default().insert(conversion.text, json);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.by_type.clear();
    }

    fn get(&self, type_oid: Oid, text: &[u8]) -> Option<&Option<Box<[u8]>>> {
        self.by_type.get(&type_oid)?.get(text)
    }
}

/// Appends what the server made of `text`, or asks for it.
pub(super) fn write(
    type_oid: Oid,
    text: &[u8],
    context: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    match context.conversions.and_then(|conversions| conversions.get(type_oid, text)) {
        Some(Some(json)) => out.extend_from_slice(json),
        Some(None) => return Err(ValueError::NotConverted),
        None => {
            let wanted = context.wanted.as_mut().ok_or(ValueError::NotConverted)?;
            wanted.push(Conversion { type_oid, text: text.into() });
        }
    }
    Ok(())
}
