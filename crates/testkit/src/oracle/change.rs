//! A change as a client is told it, with every value as the text that came.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What happened to a row or table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A row is new.
    Insert,
    /// A row has new values.
    Update,
    /// A row is gone.
    Delete,
    /// All rows are gone.
    Truncate,
}

impl Op {
    /// As the feed calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }
}

/// The fields of a JSON object in their order, the values as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(Box<str>, Box<str>)>);

impl Fields {
    /// The JSON text of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// The object as text, for people and as a key.
    #[must_use]
    pub fn text(&self) -> String {
        let fields: Vec<String> = self.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<Box<str>, Box<RawValue>>()? {
                    fields.push((name, value.into()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A change as it stands in a `transaction` message.
#[derive(Clone, Debug)]
pub struct Told {
    /// What happened.
    pub op: Op,
    /// The table, quoted as the feed quotes it.
    pub table: Box<str>,
    /// `key`.
    pub key: Option<Fields>,
    /// `row`.
    pub row: Option<Fields>,
    /// `old`.
    pub old: Option<Fields>,
    /// `unchanged`; empty when there is none.
    pub unchanged: Vec<String>,
    /// Of everything above, byte for byte as it came.
    pub digest: u64,
}

#[derive(Deserialize)]
struct Raw<'a> {
    op: Op,
    table: Box<str>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    row: Option<&'a RawValue>,
    #[serde(borrow)]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    unchanged: Option<&'a RawValue>,
}

/// The digest of a change's parts: of a message of the feed as of a line of `change_history`.
pub(crate) fn digest(op: &str, table: &str, parts: [Option<&str>; 4]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (op, table, parts).hash(&mut hasher);
    hasher.finish()
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let fields = |text: Option<&RawValue>| {
            text.map(|text| Fields::parse(text.get()).map_err(serde::de::Error::custom)).transpose()
        };
        let unchanged = raw.unchanged.map_or_else(|| Ok(Vec::new()), |text| serde_json::from_str(text.get()));
        let parts = [raw.key, raw.row, raw.old, raw.unchanged].map(|part| part.map(RawValue::get));
        Ok(Self {
            digest: digest(raw.op.name(), &raw.table, parts),
            op: raw.op,
            key: fields(raw.key)?,
            row: fields(raw.row)?,
            old: fields(raw.old)?,
            unchanged: unchanged.map_err(serde::de::Error::custom)?,
            table: raw.table,
        })
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op.name(), self.table)?;
        for (name, part) in [("key", &self.key), ("row", &self.row), ("old", &self.old)] {
            if let Some(fields) = part {
                write!(f, " {name} {}", shortened(&fields.text()))?;
            }
        }
        if !self.unchanged.is_empty() {
            write!(f, " unchanged {:?}", self.unchanged)?;
        }
        Ok(())
    }
}

/// The beginning of a text that is long.
pub(crate) fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 300;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}
