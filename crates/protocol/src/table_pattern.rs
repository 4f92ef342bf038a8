//! Which tables a subscription names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use walcast_model::RelationName;

/// The tables that one entry of `subscribe.tables` names: `schema.name`, `schema.*` or `*`. A part that holds a dot, a
/// quote or a star is quoted as in SQL, so `public."*"` is a table that is called `*`. In order of how much they say: `*`, then
/// schemas, then tables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TablePattern {
    /// `*`: every published table, those of the future too.
    All,
    /// `schema.*`: every published table of the schema, those of the future too.
    Schema(String),
    /// One table.
    Table(RelationName),
}

impl TablePattern {
    /// Whether `name` is one of the tables.
    #[must_use]
    pub fn matches(&self, name: &RelationName) -> bool {
        match self {
            Self::All => true,
            Self::Schema(schema) => name.schema == *schema,
            Self::Table(table) => name == table,
        }
    }

    /// Of entries that are all about one table, or all about the tables of one pattern, the one that says most, which is the one
    /// that counts: a table's own name before its schema's, that before `*`.
    pub fn most_telling<'a, T>(entries: impl Iterator<Item = (&'a Self, T)>) -> Option<(&'a Self, T)> {
        entries.max_by(|(one, _), (other, _)| one.cmp(other))
    }

    /// Whether every table that `other` can name is one of the tables.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Schema(schema), Self::Table(name)) => name.schema == *schema,
            _ => self == other,
        }
    }
}

/// Why a text names no tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no table: write schema.table, schema.* or *")]
pub struct ParseTablePatternError {
    text: String,
}

impl FromStr for TablePattern {
    type Err = ParseTablePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTablePatternError { text: text.chars().take(140).collect() };
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(schema) = text.strip_suffix(".*") {
            // The rules for quoting a schema are those of a table's name; any table will do.
            let name: RelationName = format!("{schema}.x").parse().map_err(|_| error())?;
            return Ok(Self::Schema(name.schema));
        }
        text.parse().map(Self::Table).map_err(|_| error())
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Schema(schema) => {
                let name = RelationName::new(schema, "x").to_string();
                write!(f, "{}*", name.strip_suffix('x').unwrap_or(&name))
            }
            Self::Table(name) => name.fmt(f),
        }
    }
}

impl Serialize for TablePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TablePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::RelationName;

    use super::TablePattern;

    #[test]
    fn patterns_with_odd_names_survive_their_text_form() {
        let table = |schema: &str, table: &str| TablePattern::Table(RelationName::new(schema, table));
        let patterns = [
            ("*", TablePattern::All),
            ("public.*", TablePattern::Schema("public".into())),
            ("\"a.b\".*", TablePattern::Schema("a.b".into())),
            ("public.\"*\"", table("public", "*")),
            ("public.x", table("public", "x")),
            ("\"x\"\"\".t", table("x\"", "t")),
        ];
        for (text, pattern) in patterns {
            assert_eq!(text.parse().as_ref(), Ok(&pattern), "{text}");
            assert_eq!(pattern.to_string(), text);
        }
        for text in ["", "files", "*.*", "*.t", "a.b.*", ".*", "a.b.c"] {
            assert!(text.parse::<TablePattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_entry_that_says_most_is_the_tables_own_before_its_schemas_before_all() {
        let patterns = ["*", "z.*", "a.a"].map(|text| text.parse::<TablePattern>().unwrap());
        for left in 1..=patterns.len() {
            let entries = || patterns[..left].iter().map(|pattern| (pattern, ()));
            for entries in [entries().collect::<Vec<_>>(), entries().rev().collect()] {
                let most = TablePattern::most_telling(entries.into_iter());
                assert_eq!(most, Some((&patterns[left - 1], ())));
            }
        }
    }

    #[test]
    fn a_schema_pattern_matches_its_own_tables_alone() {
        let pattern: TablePattern = "public.*".parse().unwrap();
        assert!(pattern.matches(&RelationName::new("public", "t")));
        assert!(!pattern.matches(&RelationName::new("publicity", "t")));
    }
}
