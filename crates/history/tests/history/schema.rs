//! The schema: applied once, by whoever may.

use walcast_history::{Error, ErrorClass, schema};
use walcast_testkit::{TestDatabase, for_each_version, shared_cluster};

use crate::transactions::{Source, flatten};
use crate::world::{START, World, config, connect, fast};

#[tokio::test]
async fn it_can_be_applied_by_several_at_once_and_again_and_removed() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(connect(&database).await);
        }
        let applied = futures_util::future::join_all(sessions.iter_mut().map(schema::apply)).await;
        let mut applied: Vec<_> = applied.into_iter().map(Result::unwrap).collect();
        applied.sort();
        assert_eq!(applied, [vec![], vec![], vec![], (1..=schema::LATEST).collect()]);
        let session = &mut sessions[0];
        schema::check(session).await.unwrap();
        schema::remove(session).await.unwrap();
        assert_eq!(schema::version(session).await.unwrap(), None);
        assert!(matches!(schema::check(session).await, Err(Error::SchemaMissing)));
        schema::remove(session).await.unwrap();
        assert!(!schema::apply(session).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_newer_one_is_left_alone() {
    let world = World::create(shared_cluster().await).await;
    world.database.run("INSERT INTO walcast.schema_version (version) VALUES (99)").await;
    let mut session = connect(&world.database).await;
    let error = schema::apply(&mut session).await.unwrap_err();
    assert!(
        matches!(error, Error::SchemaNewer { found: 99, .. }) && error.class() == ErrorClass::Operator,
        "{error}"
    );
    let ended = world.store(fast()).await.task.await.unwrap();
    assert!(matches!(ended, Err(Error::SchemaNewer { found: 99, .. })));
}

#[tokio::test]
async fn what_is_printed_can_be_run_by_an_administrator() {
    let database = TestDatabase::create(shared_cluster().await).await;
    // With a search_path that would lead unqualified names astray.
    database.run(&format!("CREATE SCHEMA evil; SET search_path = evil; {}", schema::print())).await;
    assert!(schema::apply(&mut connect(&database).await).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_role_that_owns_no_more_than_the_schema_can_do_everything() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("owner");
        database.run(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA walcast AUTHORIZATION {role}")).await;
        let config = config(&database.url_as(&role));
        let mut session = walcast_postgres::Session::connect(&config, "test").await.unwrap();
        schema::apply(&mut session).await.unwrap();
        let feed =
            walcast_history::FeedRecord::create(&mut session, &crate::world::new_feed()).await.unwrap();
        let pool = walcast_postgres::Pool::new(config.clone(), "test", 2);
        let reader = walcast_history::Reader::new(pool, feed.id);
        let world = World { database, config, reader };
        let parts = Source::new(1, START, 1000).transactions(20, 10, 50);
        world.store_all(&parts).await;
        assert_eq!(flatten(&world.stored_parts().await), flatten(&parts));
        drop(session);
    })
    .await;
}
