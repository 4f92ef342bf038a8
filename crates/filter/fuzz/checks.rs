//! What must hold for any filter of a client, and any row; run by the fuzz target and by `cargo test`.

use std::sync::Arc;

use walcast_filter::{Collation, Filter, Predicate, Schema, limits};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

/// One column of each kind of type that filters know.
const COLUMNS: &[(&str, u32)] = &[
    ("id", 20),
    ("owner", 25),
    ("n", 23),
    ("f", 701),
    ("num", 1700),
    ("d", 1082),
    ("at", 1184),
    ("span", 1186),
    ("j", 3802),
    ("tags", 1009),
    ("numbers", 1007),
    ("flag", 16),
    ("code", 1042),
    ("u", 2950),
    ("b", 17),
];

fn schema() -> Schema {
    let column = |(name, oid): &(&str, u32)| Column {
        name: (*name).into(),
        type_name: String::new(),
        type_oid: Oid::new(*oid),
        key: *name == "id",
        nullable: *name != "id",
    };
    let columns = COLUMNS.iter().map(column).collect();
    let name = RelationName::new("public", "t");
    let relation = Relation::new(Oid::new(1), name, ReplicaIdentity::Default, columns);
    Schema::builder(Arc::new(relation)).with_database(Collation::C, true).build()
}

/// A filter, and after a zero byte a row: the filter is read or refused in few words; what is read means the same when it
/// is written as SQL and read again, and it has an answer for every row, the same each time.
pub(crate) fn filters(data: &[u8]) {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let (text, row) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let Ok(text) = std::str::from_utf8(text) else { return };
    let bound = |text: &str| Filter::parse(text).and_then(|filter| filter.bind(&schema()));
    let predicate: Predicate = match bound(text) {
        Ok(predicate) => predicate,
        Err(error) => {
            let message = error.to_string();
            assert!(message.len() < 2000, "{} bytes of error", message.len());
            assert!(!error.hint().is_empty(), "{message} without a hint");
            return;
        }
    };
    assert!(text.len() <= limits::TEXT_BYTES_MAX);
    let sql = predicate.to_sql();
    // Postgres reads escapes, filters do not; and what was normalized may be longer than a filter may be.
    if !sql.contains("E'") && sql.len() <= limits::TEXT_BYTES_MAX {
        match bound(&sql) {
            Ok(again) => assert_eq!(again.evaluate(row), predicate.evaluate(row), "{text:?} as {sql:?}"),
            Err(error) => panic!("{text:?} is written as {sql:?}, which is refused: {error}"),
        }
    }
    assert_eq!(predicate.evaluate(row), predicate.evaluate(row));
}
