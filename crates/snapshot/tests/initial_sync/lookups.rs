//! Rows by key.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use walcast_model::RelationName;
use walcast_snapshot::{Error, Key, SnapshotLimits, SnapshotTable};
use walcast_testkit::for_each_version;

use crate::harness::Source;

fn key(id: &str) -> Key {
    BTreeMap::from([("id".to_owned(), RawValue::from_string(id.to_owned()).unwrap())])
}

/// What is found by these keys.
async fn look_up(source: &Source, table: &str, keys: &[&str]) -> Result<Vec<Option<String>>, Error> {
    let table = SnapshotTable::from(RelationName::new("public", table));
    let keys: Vec<Key> = keys.iter().map(|id| key(id)).collect();
    let found = source.snapshots(SnapshotLimits::default()).rows(&table, &keys).await?;
    Ok(found.rows.into_iter().map(|row| row.map(|row| String::from_utf8(row.to_vec()).unwrap())).collect())
}

/// The check of a domain is a function of whoever made it, which walcast's role must not run on what clients send.
#[tokio::test]
async fn no_function_of_a_domain_is_run_on_the_keys_of_a_client() {
    for_each_version(async |cluster| {
        let setup = r"
            CREATE FUNCTION spy(text) RETURNS boolean LANGUAGE plpgsql AS $$
                BEGIN
                    IF $1 LIKE '%666%' THEN RAISE EXCEPTION USING ERRCODE = '22000', MESSAGE = 'run by ' || current_user; END IF;
                    RETURN true;
                END $$;
            CREATE DOMAIN inner_number AS numeric(8,2) CHECK (spy(VALUE::text));
            CREATE DOMAIN number AS inner_number CHECK (spy(VALUE::text));
            CREATE DOMAIN word AS varchar(5) CHECK (spy(VALUE));
            CREATE DOMAIN words AS text[] CHECK (spy(VALUE::text));
            CREATE TYPE pair AS (n number, t text);
            CREATE TYPE nested AS (pairs pair[]);
            CREATE TYPE span AS RANGE (subtype = number);
            CREATE DOMAIN pairs AS pair CHECK (spy(VALUE::text));
            CREATE TABLE numbers (id number PRIMARY KEY);
            CREATE TABLE texts (id word PRIMARY KEY);
            CREATE TABLE lists (id words PRIMARY KEY);
            CREATE TABLE plain (id int[] PRIMARY KEY);
            CREATE TABLE in_arrays (id number[] PRIMARY KEY);
            CREATE TABLE in_composites (id pair PRIMARY KEY);
            CREATE TABLE in_nested (id nested PRIMARY KEY);
            CREATE TABLE in_ranges (id span PRIMARY KEY);
            CREATE TABLE in_domains (id pairs PRIMARY KEY);
            INSERT INTO numbers VALUES (1.5); INSERT INTO texts VALUES ('a'); INSERT INTO lists VALUES ('{a,b}');
            INSERT INTO plain VALUES ('{1,2}');
            CREATE PUBLICATION p FOR ALL TABLES;";
        let source = Source::new(cluster, setup).await;
        for (table, there, not_there, row) in [
            ("numbers", "1.5", "666", r#"{"id":1.50}"#),
            ("texts", r#""a""#, r#""6666666""#, r#"{"id":"a"}"#),
            ("lists", r#"["a","b"]"#, r#"["666"]"#, r#"{"id":["a", "b"]}"#),
            ("plain", "[1,2]", "[666]", r#"{"id":[1, 2]}"#),
        ] {
            let found = look_up(&source, table, &[there, not_there]).await.unwrap();
            assert_eq!(found, [Some(row.to_owned()), None], "{table}");
        }
        for (table, id) in [
            ("in_arrays", "[666]"),
            ("in_composites", r#"{"n":666,"t":"x"}"#),
            ("in_nested", r#"{"pairs":[{"n":666,"t":"x"}]}"#),
            ("in_ranges", r#""[1,666]""#),
            ("in_domains", r#"{"n":666,"t":"x"}"#),
        ] {
            let error = look_up(&source, table, &[id]).await.unwrap_err();
            assert!(matches!(error, Error::Key { .. }), "{table}: {error}");
            assert!(error.to_string().contains("domain inside its type"), "{error}");
        }
        let error = look_up(&source, "numbers", &[r#""x""#]).await.unwrap_err();
        assert!(matches!(error, Error::KeyValue { .. }), "{error}");
    })
    .await;
}
