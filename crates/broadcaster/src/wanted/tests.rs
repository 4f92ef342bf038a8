use std::collections::BTreeMap;

use proptest::prelude::*;
use walcast_filter::{Claims, Filter};
use walcast_model::RelationName;
use walcast_policy::{Grant, Policies, Rights};
use walcast_protocol::{ErrorCode, TablePattern};

use super::{ShapeKey, rank};
use crate::request::Asked;
use crate::testing::{key, request};

/// A table, the columns of it, and the rows.
type Granted<'a> = (&'a str, Option<&'a [&'a str]>, Option<&'a str>);

fn rights(grants: &[Granted<'_>]) -> Rights {
    let grant = |columns: Option<&[&str]>, rows: Option<&str>| Grant {
        columns: columns.map(|columns| columns.iter().map(ToString::to_string).collect()),
        rows: rows.map(|rows| Filter::parse(rows).unwrap()),
    };
    let grants = grants.iter().map(|(table, columns, rows)| (table.parse().unwrap(), grant(*columns, *rows)));
    Rights::Granted(grants.collect())
}

fn columns(shape: &ShapeKey, schema: &str, table: &str) -> Option<String> {
    let selection = shape.wants(&RelationName::new(schema, table))?;
    let columns = selection.columns.as_ref();
    Some(columns.map_or("all".to_owned(), |columns| columns.iter().cloned().collect::<Vec<_>>().join(",")))
}

#[test]
fn the_entry_that_says_most_about_a_table_counts() {
    let shape =
        key(r#""tables":[{"table":"*"},{"table":"a.*","columns":["x"]},{"table":"a.t","columns":["y"]}]"#);
    let columns = |schema, table| columns(&shape, schema, table).unwrap();
    assert_eq!(columns("a", "t"), "y");
    assert_eq!(columns("a", "u"), "x");
    assert_eq!(columns("b", "t"), "all");
    let shape = key(r#""tables":[{"table":"a.*"}]"#);
    assert!(shape.wants(&RelationName::new("b", "t")).is_none());
}

#[test]
fn the_order_of_tables_and_columns_and_the_spelling_of_filters_do_not_matter() {
    let one = key(r#""tables":[{"table":"a.t","columns":["x","y"],"where":"x=1"},{"table":"b.*"}]"#);
    let other = key(r#""tables":[{"table":"b.*"},{"table":"a.t","where":"x  =  1","columns":["y","x"]}]"#);
    assert_eq!(one, other);
    assert_ne!(one, key(r#""tables":[{"table":"a.t","columns":["x","y"],"where":"x=2"},{"table":"b.*"}]"#));
}

#[test]
fn a_pattern_comes_to_what_is_granted_of_it_and_a_name_that_is_not_granted_is_refused() {
    let rights = rights(&[("a.*", Some(&["x"]), None), ("a.t", Some(&["x", "y"]), Some("x = 1"))]);
    let resolve = |fields: &str| ShapeKey::resolve(&request(fields).unwrap().tables, &rights);
    let shape = resolve(r#""tables":[{"table":"*"}]"#).unwrap();
    assert_eq!(columns(&shape, "a", "t").as_deref(), Some("x,y"));
    assert_eq!(columns(&shape, "a", "u").as_deref(), Some("x"));
    assert_eq!(columns(&shape, "b", "t"), None);
    assert!(shape.has_wildcard() && shape.named().next().is_none());
    let shape = resolve(r#""tables":[{"table":"a.t","columns":["y","z"]}]"#).unwrap();
    assert_eq!(columns(&shape, "a", "t").as_deref(), Some("y"));
    assert!(shape.wants(&RelationName::new("a", "t")).unwrap().is_filtered());
    for refused in [
        r#""tables":[{"table":"b.t"}]"#,
        r#""tables":[{"table":"b.*"}]"#,
        r#""tables":[{"table":"a.t"},{"table":"b.t"}]"#,
    ] {
        assert_eq!(resolve(refused).unwrap_err().code, ErrorCode::Forbidden, "{refused}");
    }
}

#[test]
fn what_is_denied_is_taken_out_of_a_pattern_and_refused_by_its_name() {
    let text = "[[policy]]\nrole = 'r'\ntable = '*'\n\n[[policy]]\nrole = 'r'\ntable = 'a.t'\nwhere = 'x = claims.x'\n";
    let policies = Policies::parse(text).unwrap();
    let rights = policies.rights("r", &Claims::parse(r#"{"x": [1]}"#).unwrap());
    let resolve = |fields: &str| ShapeKey::resolve(&request(fields).unwrap().tables, &rights);
    let shape = resolve(r#""tables":[{"table":"*"}]"#).unwrap();
    assert_eq!(columns(&shape, "a", "t"), None);
    assert_eq!(columns(&shape, "a", "u").as_deref(), Some("all"));
    for refused in [r#""tables":[{"table":"a.t"}]"#, r#""tables":[{"table":"a.t"},{"table":"*"}]"#] {
        assert_eq!(resolve(refused).unwrap_err().code, ErrorCode::Forbidden, "{refused}");
    }
    // Whoever does not ask for it shares with those who are denied nothing.
    let other = r#""tables":[{"table":"b.*"}]"#;
    assert_eq!(resolve(other).unwrap(), key(other));
    let denied = policies.rights("r", &Claims::parse(r#"{"x": {}}"#).unwrap());
    assert_eq!(
        ShapeKey::resolve(&request(r#""tables":[{"table":"*"}]"#).unwrap().tables, &denied).unwrap(),
        shape
    );
}

const PATTERNS: [&str; 7] = ["*", "a.*", "b.*", "a.t", "a.u", "b.t", "c.t"];

proptest! {
    /// What a shape takes of a table is what both sides say of it, each by its entry that says most.
    #[test]
    fn a_shape_is_what_is_asked_for_and_granted(asked in 1_u8..128, granted in 0_u8..128) {
        let chosen = |bits: u8| {
            let patterns = PATTERNS.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1);
            patterns.map(|(index, text)| (text.parse::<TablePattern>().unwrap(), format!("c{index}")))
        };
        let column = |column: String| Some([column, "both".to_owned()].into());
        let tables: BTreeMap<_, _> =
            chosen(asked).map(|(table, name)| (table, Asked { columns: column(name), rows: None })).collect();
        let grants: BTreeMap<_, _> =
            chosen(granted).map(|(table, name)| (table, Grant { columns: column(name), rows: None })).collect();
        let most = |entries: &mut dyn Iterator<Item = (TablePattern, String)>, name: &RelationName| {
            let matching = entries.filter(|(pattern, _)| pattern.matches(name));
            matching.max_by_key(|(pattern, _)| rank(pattern)).map(|(_, column)| column)
        };
        let resolved = ShapeKey::resolve(&tables, &Rights::Granted(grants));
        for (schema, table) in [("a", "t"), ("a", "u"), ("a", "v"), ("b", "t"), ("b", "v"), ("c", "t"), ("d", "t")] {
            let name = RelationName::new(schema, table);
            let both = most(&mut chosen(asked), &name).zip(most(&mut chosen(granted), &name));
            let expected = both.map(|(asked, granted)| {
                if asked == granted { format!("both,{asked}") } else { "both".to_owned() }
            });
            match &resolved {
                Ok(shape) => prop_assert_eq!(columns(shape, schema, table), expected, "{}", name),
                // All or nothing: what is named has to be granted.
                Err(refusal) => prop_assert_eq!(&refusal.code, &ErrorCode::Forbidden),
            }
        }
    }
}
