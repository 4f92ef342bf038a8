//! Setup and teardown against real servers.

use walcast_postgres::ConnectionConfig;
use walcast_replication::publication::{PublicationSettings, Selection};
use walcast_replication::slot::SlotSettings;
use walcast_testkit::{TestDatabase, for_each_version, shared_cluster};

use super::{Note, SetupError, StartOver, Target, prepare, print};
use crate::commands::status::{Listener, Status};
use crate::commands::teardown::Belongings;

fn target(database: &TestDatabase, url: &str) -> Target {
    let source = ConnectionConfig::parse(url, &|_| None).unwrap();
    Target {
        history: source.clone(),
        source,
        publication: PublicationSettings::new("walcast"),
        slot: SlotSettings::new(database.slot_name()),
    }
}

async fn set_up(target: &Target, start_over: bool) -> (String, Vec<Note>) {
    let mut notes = Vec::new();
    let start_over = if start_over { StartOver::Always } else { StartOver::Never };
    let prepared = prepare(target, start_over, &mut |note| notes.push(note)).await;
    (prepared.unwrap_or_else(|error| panic!("{error}")).id.to_string(), notes)
}

#[tokio::test]
async fn setup_says_what_it_did_and_does_nothing_twice() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE keyless (id int);
                 CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id);
                 CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (9);",
            )
            .await;
        let target = target(&database, database.url());
        let (feed, notes) = set_up(&target, false).await;
        let changed: Vec<&str> = notes.iter().filter(|note| note.changed).map(|note| note.subject).collect();
        for subject in ["schema", "publication", "table", "slot", "feed"] {
            assert!(changed.contains(&subject), "{subject} in {notes:#?}");
        }
        let keyless =
            notes.iter().find(|note| note.fix.is_some()).expect("a fix for the table without a key");
        assert!(keyless.message.contains("public.keyless"), "{keyless:?}");
        let (again, notes) = set_up(&target, false).await;
        assert_eq!(again, feed);
        assert!(notes.iter().all(|note| !note.changed), "{notes:#?}");
        let (other, notes) = set_up(&target, true).await;
        assert_ne!(other, feed);
        assert!(notes.iter().any(|note| note.message.contains("dropped")), "{notes:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_slot_that_an_interrupted_setup_left_is_made_again_and_another_one_is_not_touched() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let target = target(&database, database.url());
    set_up(&target, false).await;
    let slot = target.slot.name.clone();
    database.run("DELETE FROM walcast.feed").await;
    let refused = prepare(&target, StartOver::Never, &mut |_| ()).await.expect_err("somebody else's slot");
    let hint = refused.hint("walcast setup").unwrap();
    assert!(hint.contains("--history-url") && hint.contains("--start-over"), "{refused}: {hint}");
    database.run(&format!("INSERT INTO walcast.planned_slot VALUES ('{slot}')")).await;
    let (_, notes) = set_up(&target, false).await;
    assert!(notes.iter().any(|note| note.message.contains("dropped")), "{notes:#?}");
    assert_eq!(database.scalar("SELECT count(*) FROM walcast.planned_slot").await.as_deref(), Some("0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setups_that_run_at_once_make_one_feed() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let target = target(&database, database.url());
    let setups: Vec<_> = (0..4)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move { set_up(&target, false).await.0 })
        })
        .collect();
    let mut feeds = Vec::new();
    for setup in setups {
        feeds.push(setup.await.expect("a setup"));
    }
    feeds.dedup();
    assert_eq!(feeds.len(), 1, "{feeds:?}");
}

#[tokio::test]
async fn a_role_without_privileges_gets_all_statements_at_once_and_they_suffice() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("plain");
        database.run(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY)")).await;
        let target = target(&database, &database.url_as(&role));
        let error = prepare(&target, StartOver::Never, &mut |_| {}).await.unwrap_err();
        let SetupError::Missing(missing) = error else { panic!("{error}") };
        let fixes: Vec<&str> = missing.iter().map(|finding| finding.fix.as_deref().unwrap()).collect();
        database.run(&fixes.join("\n")).await;
        let (_, notes) = set_up(&target, false).await;
        assert!(notes.iter().any(|note| note.subject == "feed" && note.changed), "{notes:#?}");
        assert!(notes.iter().all(|note| note.fix.is_none()), "{notes:#?}");
        assert_eq!(
            database
                .scalar("SELECT count(*) FROM pg_publication_tables WHERE tablename = 't'")
                .await
                .as_deref(),
            Some("1")
        );
        database.run("DROP PUBLICATION walcast, walcast_inserts; DROP SCHEMA walcast CASCADE").await;
        database.run(&format!("DROP OWNED BY {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn what_print_prints_is_what_setup_needs() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("plain");
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE k (id int);
                 -- A name that would end its comment, and be run as whoever runs the rest.
                 CREATE TABLE \"l\nSELECT 1/0; --\" (id int)"
            ))
            .await;
        let target = target(&database, &database.url_as(&role));
        let sql = print(&target).await.unwrap();
        assert_eq!(
            database.scalar("SELECT count(*) FROM pg_publication").await.as_deref(),
            Some("0"),
            "changes nothing"
        );
        // For later: a table that gets a replica identity has to be moved, which this role may not do either.
        let moved = "REPLICA IDENTITY FULL; ALTER PUBLICATION \"walcast\" ADD TABLE ONLY \"public\".\"k\"; \
                     ALTER PUBLICATION \"walcast_inserts\" DROP TABLE ONLY \"public\".\"k\";";
        assert!(sql.contains(moved), "{sql}");
        database.run(&sql).await;
        let (_, notes) = set_up(&target, false).await;
        let changed: Vec<&str> = notes.iter().filter(|note| note.changed).map(|note| note.subject).collect();
        assert_eq!(changed, ["slot", "feed"], "{notes:#?}");
        database.run("DROP PUBLICATION walcast, walcast_inserts; DROP SCHEMA walcast CASCADE").await;
        database.run(&format!("DROP OWNED BY {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn only_tables_that_are_to_be_published_are_to_be_read() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("plain");
        database
            .run(&format!(
                "CREATE ROLE {role} LOGIN; CREATE SCHEMA app; CREATE SCHEMA hidden;
                 CREATE TABLE app.t (id int PRIMARY KEY); CREATE TABLE app.u (id int PRIMARY KEY);
                 CREATE TABLE app.salary (id int PRIMARY KEY); CREATE TABLE hidden.key (id int PRIMARY KEY)"
            ))
            .await;
        let mut target = target(&database, &database.url_as(&role));
        let listed = ["app.t", "app.u"].map(|name| name.parse().unwrap());
        target.publication.selection = Selection::Listed(listed.into());
        let error = prepare(&target, StartOver::Never, &mut |_| {}).await.unwrap_err();
        let SetupError::Missing(missing) = error else { panic!("{error}") };
        let asked = missing.iter().find(|finding| finding.check == "select_privilege").unwrap();
        let sql = print(&target).await.unwrap();
        for text in [asked.fix.as_deref().unwrap(), &sql] {
            let grant = format!("GRANT SELECT ON \"app\".\"t\", \"app\".\"u\" TO \"{role}\";");
            assert!(text.contains(&grant) && !text.contains("salary") && !text.contains("hidden"), "{text}");
        }
        database.run(&sql).await;
        let (_, notes) = set_up(&target, false).await;
        assert!(notes.iter().all(|note| note.fix.is_none()), "{notes:#?}");
        let may_read =
            |table: &str| format!("SELECT has_table_privilege('{role}', '{table}', 'SELECT')::text");
        assert_eq!(database.scalar(&may_read("app.t")).await.as_deref(), Some("true"));
        assert_eq!(database.scalar(&may_read("app.salary")).await.as_deref(), Some("false"));
        database.run("DROP PUBLICATION walcast, walcast_inserts; DROP SCHEMA walcast CASCADE").await;
        database.run(&format!("DROP OWNED BY {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn a_table_that_cannot_be_published_does_not_keep_the_others_from_it() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database
        .run(
            "CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE refused (id int PRIMARY KEY);
             CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF current_query() LIKE '%\"refused\"%' THEN RAISE EXCEPTION 'not this one'; END IF; END $$;
             CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('ALTER PUBLICATION')
                 EXECUTE FUNCTION refuse();",
        )
        .await;
    let (_, notes) = set_up(&target(&database, database.url()), false).await;
    assert!(notes.iter().any(|note| note.message.contains("not this one")), "{notes:#?}");
    let published = database.scalar("SELECT string_agg(tablename, ',') FROM pg_publication_tables").await;
    assert_eq!(published.as_deref(), Some("good"));
}

#[tokio::test]
async fn teardown_names_what_it_drops_and_leaves_nothing() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let target = target(&database, database.url());
    assert!(Belongings::find(&target).await.unwrap().is_empty());
    let (feed, _) = set_up(&target, false).await;
    let found = Belongings::find(&target).await.unwrap();
    let lines = found.lines().join("\n");
    for name in [database.slot_name().as_str(), "\"walcast\"", "\"walcast_inserts\"", feed.as_str()] {
        assert!(lines.contains(name), "{name} in {lines}");
    }
    let mut dropped = Vec::new();
    found.remove(&target, &mut |note| dropped.push(note.subject)).await.unwrap();
    assert_eq!(dropped, ["slot", "publication", "publication", "schema"]);
    assert!(Belongings::find(&target).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_publication_or_slot_of_somebody_else_stays() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION walcast FOR ALL TABLES").await;
    let slot = database.slot_name();
    database.scalar(&format!("SELECT pg_create_physical_replication_slot('{slot}')")).await;
    let found = Belongings::find(&target(&database, database.url())).await.unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(found.foreign.len(), 2);
    database.run("DROP PUBLICATION walcast").await;
    let error =
        prepare(&target(&database, database.url()), StartOver::Always, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("not walcast's"), "{error}");
    database.scalar(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
}

#[tokio::test]
async fn status_says_where_the_feed_stands() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let target = target(&database, database.url());
    let status = Status::gather(&target, "127.0.0.1:1", None).await;
    assert_eq!(status.problems.texts().len(), 1, "{:?}", status.problems);
    let (feed, _) = set_up(&target, false).await;
    let status = Status::gather(&target, "127.0.0.1:1", None).await;
    assert_eq!(status.problems.texts(), [] as [&str; 0]);
    assert_eq!(status.feed, Some(feed));
    assert!(status.stored.unwrap().lsn() <= status.source.unwrap());
    let slot = status.slot.as_ref().unwrap();
    assert_eq!((slot.active_pid, slot.wal_status.as_deref()), (None, Some("reserved")));
    assert_eq!(status.daemon.listener, Listener::Nobody);
    let lines: Vec<&str> = status.lines().iter().map(|(name, _)| *name).collect();
    assert!(lines.contains(&"WAL retained"), "{lines:?}");
}
