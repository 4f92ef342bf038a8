use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use walcast_filter::{Claims, Filter};
use walcast_model::{Relation, RelationName};
use walcast_policy::{Denial, Grant, Policies, Rights};
use walcast_protocol::{ErrorCode, TablePattern};

use super::{Choice, ShapeKey, Wanted};
use crate::request::Asked;
use crate::testing::{key, request, schema, table};

/// A table, the columns of it, and the rows.
type Granted<'a> = (&'a str, Option<&'a [&'a str]>, Option<&'a str>);

fn rights(grants: &[Granted<'_>]) -> Rights {
    let grant = |columns: Option<&[&str]>, rows: Option<&str>| Grant {
        meta: false,
        columns: columns.map(|columns| columns.iter().map(ToString::to_string).collect()),
        rows: rows.map(|rows| Filter::parse(rows).unwrap()),
    };
    let grants =
        grants.iter().map(|(table, columns, rows)| (table.parse().unwrap(), Ok(grant(*columns, *rows))));
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
fn what_is_denied_does_not_show_through_a_wider_grant() {
    let policies = Policies::parse(
        "[[policy]]\nrole = \"r\"\ntable = \"*\"\n[[policy]]\nrole = \"r\"\ntable = \"a.t\"\nwhere = \"x = claims.sub\"\n",
    );
    let claims = Claims::parse(r#"{"sub":["a list"]}"#).unwrap();
    let rights = policies.unwrap().rights("r", &claims);
    let resolve = |fields: &str| ShapeKey::resolve(&request(fields).unwrap().tables, &rights);
    assert_eq!(resolve(r#""tables":[{"table":"a.t"}]"#).unwrap_err().code, ErrorCode::Forbidden);
    let relation = table("t", &["x"]);
    let relation = Relation::new(
        relation.oid(),
        RelationName::new("a", "t"),
        relation.identity(),
        relation.columns().to_vec(),
    );
    for tables in [r#""tables":[{"table":"*"}]"#, r#""tables":[{"table":"a.*"},{"table":"a.u"}]"#] {
        let wanted = Wanted::new(Arc::new(resolve(tables).unwrap()));
        wanted.bind(&schema(Arc::new(relation.clone()))).unwrap();
        let choice = wanted.choice(&relation).unwrap();
        assert!(matches!(choice, Choice::Nothing), "{tables}: {choice:?}");
        assert!(!wanted.of(&RelationName::new("a", "u")).unwrap().is_filtered());
    }
}

/// Any will do: all are equal.
fn denial() -> Denial {
    let policies =
        Policies::parse("[[policy]]\nrole = \"r\"\ntable = \"*\"\nwhere = \"x = claims.sub\"\n").unwrap();
    let rights = policies.rights("r", &Claims::parse(r#"{"sub":[]}"#).unwrap());
    rights.denied(&RelationName::new("a", "t")).unwrap().clone()
}

#[test]
fn who_asks_for_a_denied_schema_beside_everything_gets_nothing_of_it() {
    let everything = Grant::everything();
    let entries = [("*", Ok(everything.clone())), ("a.*", Err(denial())), ("a.u", Ok(everything))];
    let rights =
        Rights::Granted(entries.into_iter().map(|(of, entry)| (of.parse().unwrap(), entry)).collect());
    let asked = request(r#""tables":[{"table":"*"},{"table":"a.*"}]"#).unwrap();
    let shape = ShapeKey::resolve(&asked.tables, &rights).unwrap();
    assert_eq!(columns(&shape, "a", "t"), None);
    assert_eq!(columns(&shape, "a", "u").as_deref(), Some("all"));
    assert_eq!(columns(&shape, "b", "t").as_deref(), Some("all"));
    let asked = request(r#""tables":[{"table":"a.*"}]"#).unwrap();
    let shape = ShapeKey::resolve(&asked.tables, &rights).unwrap();
    assert_eq!((columns(&shape, "a", "t"), columns(&shape, "a", "u").as_deref()), (None, Some("all")));
}

/// How much an entry says.
const fn rank(pattern: &TablePattern) -> u8 {
    match pattern {
        TablePattern::Table(_) => 2,
        TablePattern::Schema(_) => 1,
        TablePattern::All => 0,
    }
}

const PATTERNS: [&str; 7] = ["*", "a.*", "b.*", "a.t", "a.u", "b.t", "c.t"];

proptest! {
    /// What a shape takes of a table is what both sides say of it, each by its entry that says most.
    #[test]
    fn a_shape_is_what_is_asked_for_and_granted(
        asked in 1_u8..128, granted in 0_u8..128, denied in prop_oneof![Just(0_u8), 0_u8..128],
    ) {
        let is_denied = |name: &str| PATTERNS.iter().enumerate().any(|(bit, _)| denied >> bit & 1 == 1 && name == format!("c{bit}"));
        let chosen = |bits: u8| {
            let patterns = PATTERNS.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1);
            patterns.map(|(index, text)| (text.parse::<TablePattern>().unwrap(), format!("c{index}")))
        };
        let column = |column: String| Some([column, "both".to_owned()].into());
        let tables: BTreeMap<_, _> =
            chosen(asked).map(|(table, name)| (table, Asked { columns: column(name), ..Asked::default() })).collect();
        let grants: BTreeMap<_, _> =
            chosen(granted).map(|(table, name)| {
                let entry = if is_denied(&name) { Err(denial()) } else { Ok(Grant { columns: column(name), ..Grant::everything() }) };
                (table, entry)
            }).collect();
        let most = |entries: &mut dyn Iterator<Item = (TablePattern, String)>, name: &RelationName| {
            let matching = entries.filter(|(pattern, _)| pattern.matches(name));
            matching.max_by_key(|(pattern, _)| rank(pattern)).map(|(_, column)| column)
        };
        let resolved = ShapeKey::resolve(&tables, &Rights::Granted(grants));
        for (schema, table) in [("a", "t"), ("a", "u"), ("a", "v"), ("b", "t"), ("b", "v"), ("c", "t"), ("d", "t")] {
            let name = RelationName::new(schema, table);
            let granted = most(&mut chosen(granted), &name).filter(|name| !is_denied(name));
            let both = most(&mut chosen(asked), &name).zip(granted);
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
