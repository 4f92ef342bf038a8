//! Updates that bring a row into what a client gets, or take it out: told as an insert, or as a delete.

use walcast_model::{Change, Op, Part, Relation, json};

use super::projection::{Projection, column_key};

/// Appends an update as the insert of a row that the client did not have.
pub(super) fn write_entering(
    out: &mut Vec<u8>,
    part: &Part,
    change: &Change,
    projection: Option<&Projection>,
) {
    begin(out, Op::Insert, &change.relation);
    let row = part.row(change).unwrap_or(b"{}");
    if change.relation.columns().iter().any(|column| column.key) {
        // The change's own key is that of the row before, which the client never had.
        out.extend_from_slice(b",\"key\":");
        write_key(out, &change.relation, row);
    }
    Projection::write_images(projection, out, Some(row), None, part.unchanged(change));
    out.push(b'}');
}

/// Appends an update as the delete of a row that the client does not get any more: the key alone, or the row that it had
/// where the table has no key.
pub(super) fn write_leaving(
    out: &mut Vec<u8>,
    part: &Part,
    change: &Change,
    projection: Option<&Projection>,
) {
    begin(out, Op::Delete, &change.relation);
    match part.key(change) {
        Some(key) => {
            out.extend_from_slice(b",\"key\":");
            out.extend_from_slice(key);
        }
        None => Projection::write_images(projection, out, None, part.old(change), None),
    }
    out.push(b'}');
}

fn begin(out: &mut Vec<u8>, op: Op, relation: &Relation) {
    for piece in ["{\"op\":\"", op.as_str(), "\",", relation.table_json()] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Appends the key of a row, as an object.
pub(crate) fn write_key(out: &mut Vec<u8>, relation: &Relation, row: &[u8]) {
    let keys = relation.columns().iter().enumerate().filter(|(_, column)| column.key);
    let keys: Vec<&[u8]> = keys.map(|(index, _)| column_key(relation, index)).collect();
    out.push(b'{');
    let mut first = true;
    for (name, value) in json::fields(row).filter(|(name, _)| keys.contains(name)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value);
    }
    out.push(b'}');
}
