//! Last images: what a change does to the newest full row that is kept of its key, in tables that were chosen for it.

use std::sync::Arc;

use crate::json;
use crate::position::Lsn;
use crate::relation::Relation;

/// The longest key, as JSON, under which a row is kept: what an index entry holds with certainty.
const KEY_BYTES_MAX: usize = 2000;
/// The largest row, as JSON, that is kept.
const ROW_BYTES_MAX: usize = 16 << 20;

/// Names one state of how the source keeps a table and publishes it. While it is the same, a row is what its last
/// change made of it: the table was not rewritten, and no change was left out of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StorageId(i64);

impl StorageId {
    /// The id with this stored value.
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

/// How a table is kept and published, and since when it surely is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Storage {
    /// Which state it is.
    pub id: StorageId,
    /// For every change whose commit record starts here or later it was this one, until another one was seen.
    pub since: Lsn,
}

/// What a change does to the last images of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageEffect {
    /// The change's row is whole: it is the image of its key. That of the key before is gone.
    Keep,
    /// Nothing is known of the row: its key has no image, and neither has the key before.
    Forget,
    /// No row of the table has an image.
    Clear,
}

/// A change's effect on last images. Images of a table are good for one definition and one storage: a change under
/// another one removes those that are there. A change without this mark removes all of its table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageMark {
    /// The table's storage.
    pub storage: Arc<Storage>,
    /// What happens.
    pub effect: ImageEffect,
}

/// Whether this row can be kept under this key.
#[must_use]
pub const fn can_keep(key: &[u8], row: &[u8]) -> bool {
    key.len() <= KEY_BYTES_MAX && row.len() <= ROW_BYTES_MAX
}

/// Whether there may be an image of this key.
#[must_use]
pub const fn may_have_image(key: &[u8]) -> bool {
    key.len() <= KEY_BYTES_MAX
}

/// The key of a row as changes of this table have it, by the row's JSON. `None` when the row leaves out a column of the
/// key, or there is none.
#[must_use]
pub fn key_of(relation: &Relation, row: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    let mut fields = json::fields(row).peekable();
    for (index, column) in relation.columns().iter().enumerate() {
        let name = relation.column_json(index).as_bytes();
        let name_within = relation.column_name_json(index);
        let field = fields.next_if(|(name, _)| *name == name_within);
        if !column.key {
            continue;
        }
        let (_, value) = field?;
        key.push(if key.is_empty() { b'{' } else { b',' });
        key.extend_from_slice(name);
        key.extend_from_slice(value);
    }
    if key.is_empty() {
        return None;
    }
    key.push(b'}');
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::key_of;
    use crate::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    fn relation(columns: &[(&str, bool)]) -> Relation {
        let columns = columns.iter().map(|(name, key)| Column {
            name: (*name).to_owned(),
            type_name: "text".to_owned(),
            type_oid: Oid::new(25),
            key: *key,
            nullable: true,
        });
        let name = RelationName::new("public", "t");
        Relation::new(Oid::new(1), name, ReplicaIdentity::Default, columns.collect())
    }

    #[test]
    fn a_key_is_read_from_its_row_even_where_that_leaves_columns_out() {
        let table = relation(&[("a", true), ("big", false), ("b\"", true)]);
        let key = |row: &str| key_of(&table, row.as_bytes()).map(|key| String::from_utf8(key).unwrap());
        assert_eq!(key(r#"{"a":1,"big":"x","b\"":[2]}"#).as_deref(), Some(r#"{"a":1,"b\"":[2]}"#));
        assert_eq!(key(r#"{"a":1,"b\"":"q"}"#).as_deref(), Some(r#"{"a":1,"b\"":"q"}"#));
        assert_eq!(key(r#"{"a":1,"big":"x"}"#), None);
        assert_eq!(key("{}"), None);
        assert_eq!(key_of(&relation(&[("a", false)]), b"{\"a\":1}"), None);
    }
}
