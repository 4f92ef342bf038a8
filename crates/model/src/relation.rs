//! What a change is about: a table as it was at one point of the WAL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::json;

/// An object id of Postgres.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Oid(u32);

impl Oid {
    /// The id with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A table's name. Text form `schema.table`; a part that holds a dot, a quote or a star, or is empty, is
/// quoted as in SQL: `"odd.schema".table`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RelationName {
    /// The schema, as the catalog spells it.
    pub schema: String,
    /// The table, as the catalog spells it.
    pub table: String,
}

impl RelationName {
    /// Names a table by the catalog's spelling of both parts.
    #[must_use]
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    if part.is_empty() || part.contains(['.', '"', '*']) {
        write!(f, "\"{}\"", part.replace('"', "\"\""))
    } else {
        f.write_str(part)
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_part(f, &self.schema)?;
        f.write_str(".")?;
        write_part(f, &self.table)
    }
}

/// Why a text is not a table's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a table name such as public.files")]
pub struct ParseRelationNameError {
    text: String,
}

/// Takes one part off the front of `text`: the part, and what follows it.
fn split_part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (part, rest) = text.split_at(end);
        return (!part.is_empty() && !part.contains(['"', '*'])).then(|| (part.to_owned(), rest));
    };
    let mut part = String::new();
    loop {
        let quote = rest.find('"')?;
        part.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        let Some(after) = rest.strip_prefix('"') else {
            return Some((part, rest));
        };
        part.push('"');
        rest = after;
    }
}

impl FromStr for RelationName {
    type Err = ParseRelationNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (schema, rest) = split_part(text)?;
            let (table, rest) = split_part(rest.strip_prefix('.')?)?;
            rest.is_empty().then(|| Self::new(schema, table))
        };
        parse().ok_or_else(|| ParseRelationNameError { text: text.chars().take(140).collect() })
    }
}

impl Serialize for RelationName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RelationName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which old columns the WAL carries for UPDATE and DELETE (`pg_class.relreplident`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaIdentity {
    /// The primary key's columns, if there is one.
    Default,
    /// The columns of one unique index.
    Index,
    /// The whole old row.
    Full,
    /// Nothing.
    Nothing,
}

/// One column of a [`Relation`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The name, as the catalog spells it.
    pub name: String,
    /// The type as SQL spells it, with its modifier: `numeric(10,2)`, `text[]`, `public.mood`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The type's object id in the source database.
    pub type_oid: Oid,
    /// Part of the key by which a change names its row.
    pub key: bool,
    /// Whether the column may hold NULL, as far as the catalog said so.
    pub nullable: bool,
}

/// Identifies one definition of a table: equal for equal definitions, in every process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RelationDigest(i64);

impl RelationDigest {
    /// The digest with this stored value.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        Self(value)
    }

    /// The value that is stored.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// A table as it was at one point of the WAL: immutable and shared; another definition is another value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relation {
    oid: Oid,
    name: RelationName,
    identity: ReplicaIdentity,
    columns: Vec<Column>,
    digest: RelationDigest,
    /// `"table":"public.files"`, ready for a change.
    table_json: String,
    /// `"name":` of each column, ready for a row.
    column_json: Vec<String>,
}

impl Relation {
    /// A definition with `columns` in the order in which the WAL carries them.
    #[must_use]
    pub fn new(oid: Oid, name: RelationName, identity: ReplicaIdentity, columns: Vec<Column>) -> Self {
        let definition = (oid, &name, identity, &columns);
        // Cannot fail: strings, numbers and unit variants only.
        let text = serde_json::to_vec(&definition).unwrap_or_default();
        let hash: [u8; 32] = Sha256::digest(&text).into();
        let digest =
            i64::from_be_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]]);
        let mut table_json = b"\"table\":".to_vec();
        json::write_string(&mut table_json, &name.to_string());
        let column_json = columns.iter().map(|column| {
            let mut text = Vec::with_capacity(column.name.len() + 3);
            json::write_string(&mut text, &column.name);
            text.push(b':');
            String::from_utf8_lossy(&text).into_owned()
        });
        Self {
            oid,
            identity,
            digest: RelationDigest(digest),
            table_json: String::from_utf8_lossy(&table_json).into_owned(),
            column_json: column_json.collect(),
            name,
            columns,
        }
    }

    /// The table's object id in the source database; a dropped and recreated table has another.
    #[must_use]
    pub const fn oid(&self) -> Oid {
        self.oid
    }

    /// The table's name.
    #[must_use]
    pub const fn name(&self) -> &RelationName {
        &self.name
    }

    /// Which old columns the WAL carries.
    #[must_use]
    pub const fn identity(&self) -> ReplicaIdentity {
        self.identity
    }

    /// The published columns, in the order of a row.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// What identifies this definition.
    #[must_use]
    pub const fn digest(&self) -> RelationDigest {
        self.digest
    }

    /// `"table":"public.files"`, as it stands in a change.
    #[must_use]
    pub fn table_json(&self) -> &str {
        &self.table_json
    }

    /// `"name":` of the column at `index`, as it stands in a row; empty when there is no such column.
    #[must_use]
    pub fn column_json(&self, index: usize) -> &str {
        self.column_json.get(index).map_or("", String::as_str)
    }

    /// The name of the column at `index` as it stands between the quotes in a row ([`json::fields`]).
    #[must_use]
    pub fn column_name_json(&self, index: usize) -> &[u8] {
        let name = self.column_json(index).as_bytes();
        name.get(1..name.len().saturating_sub(2)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    #[test]
    fn names_with_dots_quotes_and_stars_survive_their_text_form() {
        for (schema, table) in [("public", "files"), ("a.b", "c"), ("", "x"), ("q\"q", "*"), ("S p", "Ünï")]
        {
            let name = RelationName::new(schema, table);
            assert_eq!(name.to_string().parse(), Ok(name.clone()), "{name}");
        }
        for text in ["files", "a.b.c", ".", "a.", ".b", "\"a.b", "public.*", "*", ""] {
            assert!(text.parse::<RelationName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_digest_follows_the_definition_alone() {
        let column = |name: &str| Column {
            name: name.into(),
            type_name: "text".into(),
            type_oid: Oid::new(25),
            key: false,
            nullable: true,
        };
        let relation = |columns| {
            Relation::new(Oid::new(1), RelationName::new("public", "t"), ReplicaIdentity::Default, columns)
        };
        assert_eq!(relation(vec![column("a")]).digest(), relation(vec![column("a")]).digest());
        assert_ne!(relation(vec![column("a")]).digest(), relation(vec![column("b")]).digest());
        let quoted = relation(vec![column("a\"b")]);
        assert_eq!(
            (quoted.column_json(0), quoted.column_name_json(0)),
            (r#""a\"b":"#, br#"a\"b"#.as_slice())
        );
        assert_eq!(quoted.column_name_json(1), b"");
    }
}
