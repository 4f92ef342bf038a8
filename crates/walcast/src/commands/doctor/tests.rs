//! The doctor against real servers, misconfigured on purpose.

use walcast_postgres::ConnectionConfig;
use walcast_replication::publication::PublicationSettings;
use walcast_replication::slot::SlotSettings;
use walcast_testkit::{TestDatabase, cluster_builder, for_each_version, installations, shared_cluster};

use super::{Finding, Severity, examine, size};
use crate::commands::setup::{self, Target};

/// What `walcast` is told to use in this database, as `role`.
fn target(database: &TestDatabase, url: &str) -> Target {
    let source = ConnectionConfig::parse(url, &|_| None).unwrap();
    Target {
        history: source.clone(),
        source,
        publication: PublicationSettings::new("walcast"),
        slot: SlotSettings::new(database.slot_name()),
    }
}

async fn set_up(target: &Target) {
    let mut notes = Vec::new();
    setup::prepare(target, setup::StartOver::Never, &mut |note| notes.push(note))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

fn errors(findings: &[Finding]) -> Vec<(&'static str, &str)> {
    let bad = findings.iter().filter(|finding| finding.severity == Severity::Error);
    bad.map(|finding| (finding.check, finding.message.as_str())).collect()
}

fn find<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let worst =
        findings.iter().filter(|finding| finding.check == check).max_by_key(|finding| finding.severity);
    worst.unwrap_or_else(|| panic!("no {check} in {findings:#?}"))
}

fn fix<'a>(findings: &'a [Finding], check: &str) -> &'a str {
    find(findings, check).fix.as_deref().unwrap_or_else(|| panic!("{check} needs nothing: {findings:#?}"))
}

#[tokio::test]
async fn after_setup_there_is_nothing_to_mend() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let target = target(&database, database.url());
        let before = examine(&target, None).await;
        for check in ["publication", "slot", "history_schema"] {
            assert_eq!(fix(&before, check), "walcast setup", "{check}");
        }
        set_up(&target).await;
        let after = examine(&target, None).await;
        assert_eq!(errors(&after), [], "{after:#?}");
        // Before there was a feed it was only to be made; now what is written is missing in one.
        assert_eq!(find(&before, "publication").severity, Severity::Note);
        database.run("DROP PUBLICATION walcast").await;
        let dropped = examine(&target, None).await;
        assert_eq!(find(&dropped, "publication").severity, Severity::Error, "{dropped:#?}");
        assert_eq!(fix(&dropped, "publication"), "walcast setup");
        // The one that is there is not named.
        let message = |findings: &[Finding]| find(findings, "publication").message.clone();
        let lacks = "the feed cannot be read, and lacks what is written meanwhile";
        assert_eq!(message(&dropped), format!("publication \"walcast\" is not there: {lacks}"));
        assert_eq!(message(&before), "publications \"walcast\" and \"walcast_inserts\" are not there");
        database
            .run("DROP PUBLICATION walcast_inserts; CREATE PUBLICATION walcast FOR TABLE t WITH (publish = 'insert')")
            .await;
        let both = examine(&target, None).await;
        let expected = "publication \"walcast_inserts\" is not there, and publication \"walcast\" is not as it should be";
        assert_eq!(message(&both), format!("{expected}: {lacks}"));
    })
    .await;
}

#[tokio::test]
async fn the_tables_that_clients_can_ask_for_are_named_as_the_feed_names_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run(
                "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE \"B b\" (id int);
                 CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id);
                 CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (9);
                 CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (9) TO (99)",
            )
            .await;
        let mut target = target(&database, database.url());
        let told = async |target: &Target| {
            let findings = examine(target, None).await;
            let of_tables = findings.into_iter().filter(|finding| finding.check == "tables");
            of_tables.map(|finding| (finding.severity, finding.message)).collect::<Vec<_>>()
        };
        assert_eq!(told(&target).await, [], "nothing is published yet");
        set_up(&target).await;
        let ok = |message: &str| (Severity::Ok, message.to_owned());
        assert_eq!(
            told(&target).await,
            [
                ok("clients can ask for 4 tables: public.B b (no updates and deletes), public.a, public.m1, public.m2"),
                ok("partitioned tables are in the feed as their partitions: clients ask for those, not for public.m \
                    (public.m1, public.m2); public.* has those of the future too"),
            ]
        );
        database.run("CREATE PUBLICATION own FOR TABLE a, m WITH (publish_via_partition_root = true)").await;
        target.publication = PublicationSettings::new("own");
        target.publication.manage = false;
        assert_eq!(
            told(&target).await,
            [
                ok("clients can ask for 2 tables: public.a, public.m"),
                ok("partitioned tables that the publication publishes as their root (publish_via_partition_root): clients ask \
                    for public.m, not for partitions"),
            ]
        );
        let many = "DO $$ BEGIN FOR i IN 1..40 LOOP
                        EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY); ALTER PUBLICATION own ADD TABLE t%s', i, i);
                    END LOOP; END $$";
        database.run(many).await;
        let (_, message) = &told(&target).await[0];
        assert!(message.starts_with("clients can ask for 42 tables: public.a, "), "{message}");
        assert!(message.ends_with(", and 12 more: the view pg_publication_tables has all"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn tables_without_a_key_are_named_with_the_statement_that_mends_them() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database
            .run("CREATE TABLE keyless (id int); CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)")
            .await;
        let target = target(&database, database.url());
        set_up(&target).await;
        let findings = examine(&target, None).await;
        let found: Vec<&Finding> =
            findings.iter().filter(|finding| finding.check == "replica_identity").collect();
        assert_eq!(found.len(), 2, "{findings:#?}");
        for finding in found {
            assert_eq!(finding.severity, Severity::Warning);
            database.run(finding.fix.as_deref().unwrap()).await;
        }
        set_up(&target).await;
        let findings = examine(&target, None).await;
        assert!(findings.iter().all(|finding| finding.check != "replica_identity"), "{findings:#?}");
        assert_eq!(errors(&findings), []);
    })
    .await;
}

#[tokio::test]
async fn a_role_without_privileges_is_told_each_statement_and_they_suffice() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        let role = database.unique("plain");
        database.run("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION walcast FOR TABLE t").await;
        database.run(&format!("CREATE ROLE {role} LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC")).await;
        let mut target = target(&database, &database.url_as(&role));
        target.publication.manage = false;
        let findings = examine(&target, None).await;
        assert_eq!(fix(&findings, "replication_login"), format!("ALTER ROLE \"{role}\" REPLICATION;"));
        database.run(fix(&findings, "replication_login")).await;
        database.run(fix(&findings, "select_privilege")).await;
        database.run(fix(&findings, "history_schema").split(" then ").next().unwrap()).await;
        set_up(&target).await;
        let findings = examine(&target, None).await;
        assert_eq!(errors(&findings), [], "{findings:#?}");
        database.run("DROP SCHEMA walcast CASCADE").await;
        database.run(&format!("DROP OWNED BY {role}")).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_feed_anybody_is_told_how_to() {
    let installation = installations().pop().unwrap();
    let cluster = cluster_builder(&installation)
        .setting("wal_level", "replica")
        .setting("max_replication_slots", 1)
        .setting("max_wal_senders", 3)
        .start()
        .await
        .unwrap();
    let database = TestDatabase::create(&cluster).await;
    let target = target(&database, database.url());
    let findings = examine(&target, None).await;
    assert_eq!(fix(&findings, "wal_level"), "ALTER SYSTEM SET wal_level = 'logical'; then restart Postgres");
    assert_eq!(find(&findings, "replication_slots").severity, Severity::Ok);
    database.run("SELECT pg_create_physical_replication_slot('taken')").await;
    let findings = examine(&target, None).await;
    assert!(fix(&findings, "replication_slots").contains("max_replication_slots"), "{findings:#?}");
    let mut ignore = |_| {};
    let error = setup::prepare(&target, setup::StartOver::Never, &mut ignore).await.unwrap_err();
    // All at once, in the same words, and with what is missing for a role that may do little.
    let said = error.to_string();
    for check in ["wal_level", "replication_slots"] {
        let statement = fix(&findings, check).split(" then ").next().unwrap();
        assert!(said.contains(statement), "{check} in {said}");
    }
    let role = database.unique("plain");
    database.run("DROP PUBLICATION walcast, walcast_inserts; DROP SCHEMA walcast CASCADE").await;
    database.run(&format!("CREATE ROLE {role} LOGIN; CREATE TABLE t (id int PRIMARY KEY)")).await;
    let poor = self::target(&database, &database.url_as(&role));
    let error = setup::prepare(&poor, setup::StartOver::Never, &mut ignore).await.unwrap_err();
    let setup::SetupError::Missing(missing) = &error else { panic!("{error}") };
    let checks: Vec<&str> = missing.iter().map(|finding| finding.check).collect();
    assert_eq!(
        checks,
        [
            "history_schema",
            "wal_level",
            "replication_login",
            "replication_slots",
            "publication",
            "select_privilege"
        ],
        "{error}"
    );
    assert!(error.hint("walcast serve").unwrap().starts_with("then run walcast serve again"));
}

#[tokio::test]
async fn a_server_that_is_away_is_one_finding_and_the_rest_is_still_looked_at() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut target = target(&database, database.url());
    target.source = ConnectionConfig::parse("postgres://nobody@127.0.0.1:1/none", &|_| None).unwrap();
    let findings = examine(&target, None).await;
    assert_eq!(find(&findings, "connection").severity, Severity::Error);
    assert_eq!(fix(&findings, "history_schema"), "walcast setup");
}

#[tokio::test]
async fn one_database_that_is_away_is_said_once() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let nowhere = target(&database, "postgres://nobody@127.0.0.1:1/none");
    let findings = examine(&nowhere, None).await;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(fix(&findings, "connection").contains("start the server"), "{findings:#?}");
}

#[tokio::test]
async fn a_password_that_was_not_given_is_asked_for_by_the_names_of_its_places() {
    let installation = installations().pop().unwrap();
    let secretive = "host all secretive 127.0.0.1/32 scram-sha-256";
    let cluster = cluster_builder(&installation).hba(secretive).hba("host all all 127.0.0.1/32 trust");
    let cluster = cluster.start().await.unwrap();
    let database = TestDatabase::create(&cluster).await;
    database.run("CREATE ROLE secretive LOGIN PASSWORD 'x'").await;
    let findings = examine(&target(&database, &database.url_as("secretive")), None).await;
    assert!(fix(&findings, "connection").contains("PGPASSWORD, in ~/.pgpass"), "{findings:#?}");
    assert_eq!(findings.len(), 1, "{findings:#?}");
}

#[tokio::test]
async fn a_slot_that_somebody_else_moved_is_found() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let target = target(&database, database.url());
    set_up(&target).await;
    database.run("INSERT INTO t VALUES (1)").await;
    let slot = database.slot_name();
    database.scalar(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
    let findings = examine(&target, None).await;
    assert!(fix(&findings, "slot").contains("--start-over"), "{findings:#?}");
    let mut notes = Vec::new();
    setup::prepare(&target, setup::StartOver::Always, &mut |note| notes.push(note))
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(errors(&examine(&target, None).await), []);
}

#[test]
fn sizes_are_for_people() {
    assert_eq!([size(0), size(1023), size(1536), size(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
}
