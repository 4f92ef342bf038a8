//! What is read from the catalog.

use walcast_model::{Lsn, Oid, RelationName, ReplicaIdentity, Xid};
use walcast_pgoutput::json::{Conversions, Types, ValueError};
use walcast_postgres::catalog::{
    CatalogRelation, RelationKind, TypeReader, relation, relation_by_name, types,
};
use walcast_postgres::{Session, quote_identifier, quote_literal};
use walcast_testkit::{TestDatabase, for_each_version, shared_cluster};

use crate::connect;

async fn table(session: &Session, name: &str) -> CatalogRelation {
    let found = relation_by_name(session, &RelationName::new("public", name)).await.unwrap();
    let found = found.unwrap_or_else(|| panic!("no table {name}"));
    assert_eq!(relation(session, found.oid).await.unwrap().as_ref(), Some(&found));
    found
}

#[tokio::test]
async fn a_table_is_read_with_keys_identity_and_types() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .session()
            .await
            .batch_execute(
                "CREATE DOMAIN nn AS int NOT NULL; CREATE DOMAIN nn2 AS nn; CREATE TYPE mood AS ENUM ('a');
                 CREATE TABLE t (gone int, b text, n numeric(10,2), id int, d nn2, m mood[], i int,
                                 g int GENERATED ALWAYS AS (id + 1) STORED, PRIMARY KEY (id, b));
                 ALTER TABLE t DROP COLUMN gone;
                 CREATE TABLE full_identity (a int PRIMARY KEY, b int);
                 ALTER TABLE full_identity REPLICA IDENTITY FULL;
                 CREATE TABLE by_index (a int PRIMARY KEY, b int NOT NULL UNIQUE);
                 ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_b_key;
                 CREATE TABLE no_key (a int);
                 CREATE TABLE late (a int PRIMARY KEY DEFERRABLE);
                 CREATE TABLE nothing (a int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
                 CREATE TABLE parted (a int PRIMARY KEY) PARTITION BY LIST (a);
                 CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY);
                 CREATE TABLE empty (); CREATE VIEW v AS SELECT 1 AS x",
            )
            .await
            .unwrap();
        let session = connect(database.url()).await.unwrap();
        let t = table(&session, "t").await;
        assert_eq!((t.kind, t.permanent, t.identity), (RelationKind::Table, true, ReplicaIdentity::Default));
        assert!(t.identity_usable);
        let names: Vec<_> = t.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["b", "n", "id", "d", "m", "i", "g"]);
        let keys: Vec<_> = t.primary_key().map(|column| column.name.as_str()).collect();
        assert_eq!(keys, ["b", "id"]);
        let spelled = |name: &str| t.column(name).unwrap().type_name.clone();
        assert_eq!((spelled("n").as_str(), spelled("m").as_str()), ("numeric(10,2)", "public.mood[]"));
        let not_null: Vec<_> = t.columns.iter().filter(|c| c.not_null).map(|c| c.name.as_str()).collect();
        assert_eq!(not_null, ["b", "id", "d"]);
        assert!(t.column("g").unwrap().generated && !t.column("i").unwrap().generated);

        let identity = async |name: &str| {
            let table = table(&session, name).await;
            let columns = table.columns.iter().filter(|c| c.replica_identity).map(|c| c.name.as_str());
            (table.identity_usable, columns.collect::<Vec<_>>().join(","))
        };
        assert_eq!(identity("t").await, (true, "b,id".into()));
        assert_eq!(identity("full_identity").await, (true, "a,b".into()));
        assert_eq!(identity("by_index").await, (true, "b".into()));
        assert_eq!(identity("no_key").await, (false, String::new()));
        assert_eq!(identity("late").await, (false, String::new()));
        assert_eq!(identity("nothing").await, (false, String::new()));
        assert_eq!(table(&session, "parted").await.kind, RelationKind::PartitionedTable);
        assert!(!table(&session, "unlogged").await.permanent);
        assert_eq!(table(&session, "empty").await.columns, []);
        assert_eq!(table(&session, "v").await.kind, RelationKind::Other);
        assert_eq!(relation(&session, Oid::new(4)).await.unwrap(), None);
    })
    .await;
}

/// The JSON of the walcast writer and of the server, for one value.
async fn both(session: &Session, known: &mut Types, expression: &str) -> (String, String) {
    let query =
        format!("SELECT ({expression})::text, to_jsonb({expression})::text, pg_typeof({expression})::oid");
    let row = session.query_one(&query, &[]).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
    let oid = Oid::new(row.get(2));
    types(session, &[oid], known).await.unwrap();
    assert_eq!(known.missing([oid]), []);
    let mut json = Vec::new();
    known.writer(oid).write(row.get::<_, String>(0).as_bytes(), &mut json).unwrap();
    (String::from_utf8(json).unwrap(), row.get(1))
}

#[tokio::test]
async fn types_of_every_kind_are_written_as_the_server_writes_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .session()
            .await
            .batch_execute(
                "CREATE TYPE mood AS ENUM ('a', 'b c'); CREATE DOMAIN small AS numeric(5,2); CREATE DOMAIN smaller AS small;
                 CREATE TYPE point2 AS (x int, gone int, y small, m mood[]); ALTER TYPE point2 DROP ATTRIBUTE gone;
                 CREATE TYPE line2 AS (a point2, b point2[]); CREATE DOMAIN ints AS int[];
                 CREATE TYPE span AS RANGE (subtype = float8); CREATE TABLE t (id int, l line2)",
            )
            .await
            .unwrap();
        let session = connect(database.url()).await.unwrap();
        let mut known = Types::new();
        for expression in [
            "'b c'::public.mood",
            "ARRAY['a', NULL, 'b c']::public.mood[]",
            "1.50::public.smaller",
            "ARRAY[1.50]::public.smaller[]",
            "ROW(1, 2.5, '{a}')::public.point2",
            "ROW(ROW(1, NULL, NULL), ARRAY[ROW(2, 3, '{\"b c\"}')::public.point2])::public.line2",
            "'{1,NULL}'::public.ints",
            "public.span(1, 2)",
            "ARRAY[box(point(1,2), point(3,4)), box(point(0,0), point(1,1))]",
            "ROW(7, NULL)::public.t",
        ] {
            let (ours, servers) = both(&session, &mut known, expression).await;
            assert_eq!(ours, servers, "{expression}");
        }
        let available = session.query("SELECT 1 FROM pg_available_extensions WHERE name = 'hstore'", &[]).await.unwrap();
        if !available.is_empty() {
            database.session().await.batch_execute("CREATE EXTENSION hstore SCHEMA public").await.unwrap();
            for expression in ["'a=>1, b=>NULL'::public.hstore", "ARRAY['a=>\"x\"'::public.hstore]"] {
                let (ours, servers) = both(&session, &mut known, expression).await;
                assert_eq!(ours, servers, "{expression}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_type_that_is_gone_is_known_to_be_so() {
    let session = connect(&shared_cluster().await.url("postgres")).await.unwrap();
    let (mut known, oid) = (Types::new(), Oid::new(u32::MAX));
    types(&session, &[oid], &mut known).await.unwrap();
    assert!(known.is_dropped(oid));
    assert_eq!(known.writer(oid).write(b"x", &mut Vec::new()), Err(ValueError::Dropped));
}

/// What lies between the slot's position and a reading may or may not have seen an alteration; after it, it has.
#[tokio::test]
async fn attributes_are_certain_from_the_reading_on_unless_they_are_older_than_the_slot() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let (admin, slot) = (database.session().await, database.slot_name());
        admin.batch_execute("CREATE TYPE pair AS (a text, b text)").await.unwrap();
        admin.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await.unwrap();
        let session = connect(database.url()).await.unwrap();
        let mut reader = TypeReader::for_slot(&session, &slot).await.unwrap();
        let (mut known, oid) = (Types::new(), admin.scalar("SELECT 'pair'::regtype::oid::text").await);
        let oid = Oid::new(oid.unwrap().parse().unwrap());
        reader.complete(&session, &[oid], &mut known).await.unwrap();
        let written = |known: &Types, at, text: &str| {
            let (mut out, conversions) = (Vec::new(), Conversions::default());
            known.writer(oid).write_at(text.as_bytes(), at, &conversions, &mut out)?;
            Ok(String::from_utf8(out).unwrap())
        };
        assert_eq!(written(&known, Lsn::ZERO, "(1,2)").as_deref(), Ok(r#"{"a": "1", "b": "2"}"#));
        let alter = "ALTER TYPE pair ADD ATTRIBUTE c text; ALTER TYPE pair RENAME ATTRIBUTE a TO x";
        admin.batch_execute(alter).await.unwrap();
        let position = reader.refresh(&session, &[oid], None, &mut known).await.unwrap().unwrap();
        assert_eq!(written(&known, Lsn::ZERO, "(1,2)").as_deref(), Ok(r#"{"b": "2", "c": null, "x": "1"}"#));
        assert_eq!(written(&known, position, "(1,2,3)").as_deref(), Ok(r#"{"b": "2", "c": "3", "x": "1"}"#));
        assert_eq!(written(&known, position, "(1,2)"), Err(ValueError::Fields { expected: 3, found: 2 }));
        // One who comes later, with nothing in memory, knows as much from the catalog.
        let (mut anew, mut later) = (Types::new(), TypeReader::for_slot(&session, &slot).await.unwrap());
        later.complete(&session, &[oid], &mut anew).await.unwrap();
        assert_eq!(written(&anew, Lsn::ZERO, "(1,2)").as_deref(), Ok(r#"{"b": "2", "c": null, "x": "1"}"#));
        // A transaction that is not seen, and does alter the type, is one to wait for.
        admin.batch_execute("BEGIN; ALTER TYPE pair DROP ATTRIBUTE b").await.unwrap();
        let xid: u64 = admin.scalar("SELECT pg_current_xact_id()").await.unwrap().parse().unwrap();
        let refreshed = reader.refresh(&session, &[oid], Some(Xid::new(xid)), &mut known).await.unwrap();
        assert_eq!(refreshed, None);
        admin.batch_execute("COMMIT").await.unwrap();
        assert!(reader.refresh(&session, &[oid], Some(Xid::new(xid)), &mut known).await.unwrap().is_some());
        assert_eq!(written(&known, Lsn::MAX, "(1,3)").as_deref(), Ok(r#"{"c": "3", "x": "1"}"#));
        admin.query("SELECT pg_drop_replication_slot($1)", &[&slot]).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn quoted_text_is_read_back_by_the_server() {
    let session = connect(&shared_cluster().await.url("postgres")).await.unwrap();
    for strings in ["on", "off"] {
        session.batch_execute(&format!("SET standard_conforming_strings = {strings}")).await.unwrap();
        for text in ["", "it's", "a\\b", "\\'", "\"q\"", "ünï", "''", "\\\\"] {
            let name = if text.is_empty() { "x" } else { text };
            let query = format!("SELECT {} AS {}", quote_literal(text), quote_identifier(name));
            let row = session.query_one(&query, &[]).await.unwrap();
            assert_eq!((row.get::<_, String>(0).as_str(), row.columns()[0].name()), (text, name));
        }
    }
}
