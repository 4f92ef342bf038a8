//! Some columns of a row, or its key alone.

use walcast_model::{Change, Part, Relation, json};
use walcast_protocol::Payload;

use crate::wanted::Selection;

/// Which fields of a table's rows are taken: the selected columns and those of the key. The `key` of a change is
/// always taken whole.
#[derive(Debug)]
pub(crate) struct Projection {
    /// Names as they stand between the quotes of a JSON key, for each column of the relation that is taken.
    taken: Vec<Box<[u8]>>,
    /// Of changes the key is all that is told, and no row.
    payload: Payload,
}

impl Projection {
    /// `None` when all columns are taken.
    pub(crate) fn new(relation: &Relation, selection: &Selection) -> Option<Self> {
        let columns = selection.columns.as_ref()?;
        let taken: Vec<Box<[u8]>> = relation
            .columns()
            .iter()
            .enumerate()
            .filter(|(_, column)| column.key || columns.contains(&column.name))
            .map(|(index, _)| column_key(relation, index).into())
            .collect();
        let payload = selection.payload;
        let takes_less = payload == Payload::Key || taken.len() < relation.columns().len();
        takes_less.then_some(Self { taken, payload })
    }

    fn takes(&self, key: &[u8]) -> bool {
        self.taken.iter().any(|taken| **taken == *key)
    }

    /// Appends the taken fields of a JSON object, as one.
    fn write_object(&self, out: &mut Vec<u8>, object: &[u8]) {
        out.push(b'{');
        let mut first = true;
        for (key, value) in json::fields(object).filter(|(key, _)| self.takes(key)) {
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(key);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
        }
        out.push(b'}');
    }

    /// Appends a change with the taken columns of its row and old row.
    pub(crate) fn write_change(&self, out: &mut Vec<u8>, part: &Part, change: &Change) {
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(change.op.as_str().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(change.relation.table_json().as_bytes());
        if let Some(key) = part.key(change) {
            out.extend_from_slice(b",\"key\":");
            out.extend_from_slice(key);
            if self.payload == Payload::Key
                && let Some(row) = part.row(change)
            {
                write_new_key(out, key, row);
            }
        }
        Self::write_images(Some(self), out, part.row(change), part.old(change), part.unchanged(change));
        out.push(b'}');
    }

    /// Appends row, old row and the names of unchanged columns, as far as they are there: what is taken of them.
    pub(super) fn write_images(
        projection: Option<&Self>,
        out: &mut Vec<u8>,
        row: Option<&[u8]>,
        old: Option<&[u8]>,
        unchanged: Option<&[u8]>,
    ) {
        if projection.is_some_and(|projection| projection.payload == Payload::Key) {
            return;
        }
        for (name, object) in [("row", row), ("old", old)] {
            let Some(object) = object else { continue };
            for piece in [",\"", name, "\":"] {
                out.extend_from_slice(piece.as_bytes());
            }
            match projection {
                Some(projection) => projection.write_object(out, object),
                None => out.extend_from_slice(object),
            }
        }
        match (projection, unchanged) {
            (_, None) => {}
            (Some(projection), Some(names)) => projection.write_unchanged(out, names),
            (None, Some(names)) => {
                out.extend_from_slice(b",\"unchanged\":");
                out.extend_from_slice(names);
            }
        }
    }

    /// Appends the taken names of a JSON array of names; nothing when none is.
    fn write_unchanged(&self, out: &mut Vec<u8>, names: &[u8]) {
        // Rare: TOASTed values that an update left alone. Our own array, so parsing cannot fail.
        let names: Vec<&serde_json::value::RawValue> = serde_json::from_slice(names).unwrap_or_default();
        let taken = names.into_iter().filter(|name| self.takes(between_quotes(name.get())));
        let mut opened = false;
        for name in taken {
            out.extend_from_slice(if opened { b"," } else { b",\"unchanged\":[" });
            out.extend_from_slice(name.get().as_bytes());
            opened = true;
        }
        if opened {
            out.push(b']');
        }
    }
}

/// Appends the key of a row that had another one before.
fn write_new_key(out: &mut Vec<u8>, key: &[u8], row: &[u8]) {
    // What is not in the row was not written.
    let now = |name: &[u8], was| json::fields(row).find(|(now, _)| *now == name).map_or(was, |(_, now)| now);
    if json::fields(key).all(|(name, was)| now(name, was) == was) {
        return;
    }
    out.extend_from_slice(b",\"new_key\":{");
    for (index, (name, was)) in json::fields(key).enumerate() {
        out.extend_from_slice(if index > 0 { b",\"" } else { b"\"" });
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(now(name, was));
    }
    out.push(b'}');
}

/// A column's name as it stands between the quotes of a JSON key.
pub(super) fn column_key(relation: &Relation, index: usize) -> &[u8] {
    between_quotes(relation.column_json(index))
}

/// `name` of `"name"` or `"name":`.
fn between_quotes(text: &str) -> &[u8] {
    let text = text.strip_suffix(':').unwrap_or(text);
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).as_bytes()
}

/// Appends rows (JSON objects separated by commas) with the taken columns.
pub(crate) fn project_rows(out: &mut Vec<u8>, projection: &Projection, rows: &[u8]) {
    let mut array = Vec::with_capacity(rows.len() + 2);
    array.push(b'[');
    array.extend_from_slice(rows);
    array.push(b']');
    let rows: Vec<&serde_json::value::RawValue> = serde_json::from_slice(&array).unwrap_or_default();
    for (index, row) in rows.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        projection.write_object(out, row.get().as_bytes());
    }
}
