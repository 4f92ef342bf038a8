//! What walcast's role may not have, and the statement that each error names.

use walcast_postgres::ErrorClass;
use walcast_snapshot::{Error, SnapshotLimits};
use walcast_testkit::{StopMode, cluster_builder, for_each_version, own_cluster, shared_cluster};

use crate::harness::{Outcome, Source, collect, named};

#[tokio::test]
async fn each_missing_privilege_is_named_with_the_statement_that_gives_it() {
    for_each_version(async |cluster| {
        let source = Source::new(
            cluster,
            "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY); INSERT INTO s.t VALUES (1), (2);
             ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON s.t USING (id = 1);
             CREATE PUBLICATION p FOR TABLE s.t;",
        )
        .await;
        let role = source.database.unique("Reader");
        source.database.run(&format!("CREATE ROLE \"{role}\" LOGIN")).await;
        let sync = async || -> Result<Outcome, Error> {
            let snapshots = source.snapshots_as(&source.database.url_as(&role), SnapshotLimits::default());
            collect(&snapshots, named(&["s.t"])).await
        };
        let forbidden = sync().await.unwrap_err();
        assert!(matches!(&forbidden, Error::Forbidden { .. }), "{forbidden}");
        assert_eq!(forbidden.class(), ErrorClass::Operator);
        source.database.run(&forbidden.hint().unwrap()).await;

        let hidden = sync().await.unwrap_err();
        assert!(matches!(&hidden, Error::RowSecurity { .. }), "{hidden}");
        source.database.run(&hidden.hint().unwrap()).await;

        assert_eq!(sync().await.unwrap().rows, [r#"{"id":1}"#, r#"{"id":2}"#]);
        source.database.run(&format!("DROP OWNED BY \"{role}\"")).await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_is_not_there_and_one_that_is_not_published_are_told_apart() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); CREATE VIEW v AS SELECT 1;
         CREATE PUBLICATION p FOR TABLE t;",
    )
    .await;
    for name in ["public.nope", "nope.t", "public.T"] {
        let error = source.try_sync(&["public.t", name]).await.unwrap_err();
        assert!(matches!(&error, Error::UnknownTable { table } if table.to_string() == name), "{error}");
    }
    for name in ["public.other", "public.v", "pg_catalog.pg_class"] {
        let error = source.try_sync(&[name]).await.unwrap_err();
        assert!(matches!(&error, Error::NotPublished { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_standby_is_refused() {
    let source = Source::new(
        shared_cluster().await,
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t;",
    )
    .await;
    let installation = shared_cluster().await.installation().clone();
    let primary = own_cluster(&installation).await;
    primary.stop(StopMode::Fast).await.unwrap();
    let standby = cluster_builder(&installation).standby_of(&primary).start().await.unwrap();
    let snapshots = source.snapshots_as(&standby.url("postgres"), SnapshotLimits::default());
    let error = collect(&snapshots, named(&["public.t"])).await.unwrap_err();
    assert!(matches!(error, Error::Standby), "{error}");
}
