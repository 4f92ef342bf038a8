//! Cases 30 to 32: daemons that die between steps, and one that comes back late.

use walcast_testkit::{Direction, Proxy, TestDatabase, for_each_version};

use super::trial::{Trial, daemon_of, history};
use super::witness::Told;

const SETUP: &str = "CREATE TABLE mark (n int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)";
/// Lets history be read, and nothing be written to it.
const HOLD: &str = "BEGIN; LOCK TABLE walcast.change_history IN EXCLUSIVE MODE";

fn changes(log: &[Told]) -> Vec<String> {
    log.iter().filter(|told| matches!(told, Told::Change { .. })).map(Told::line).collect()
}

fn insert(id: i32) -> String {
    format!(r#"insert public.t key {{"id":{id}}} row {{"id":{id}}}"#)
}

#[tokio::test]
async fn case_30_a_daemon_that_dies_between_the_commit_of_history_and_its_acknowledgement_repeats_nothing() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(SETUP).await;
        let proxy = Proxy::to(cluster.port()).await;
        let daemon = daemon_of(&database)
            .flag("--history-url", database.url())
            .flag("--database-url", database.url_via(&proxy));
        let mut trial = Trial::of(database, daemon.start().await).await;
        trial.told(&["INSERT INTO t VALUES (1)"]).await;
        // From now on the server hears nothing more of its consumer.
        proxy.blackhole(Direction::ToServer);
        trial.told(&["INSERT INTO t VALUES (2)"]).await;
        let cursor = trial.live.cursor.lsn();
        trial.database.until(&format!("SELECT position_lsn >= '{cursor}' FROM walcast.feed"), "t").await;
        let acknowledged = format!(
            "SELECT confirmed_flush_lsn >= '{cursor}' FROM pg_replication_slots WHERE slot_name = '{}'",
            trial.database.slot_name()
        );
        assert_eq!(trial.database.scalar(&acknowledged).await.as_deref(), Some("f"));
        trial.daemon.kill9().await;
        proxy.cut();
        proxy.heal();
        trial.daemon.restart().await;
        trial.reconnect().await;
        trial.told(&["INSERT INTO t VALUES (3)"]).await;
        trial.finish().await;
        let told = changes(&trial.live.log);
        let told: Vec<_> = told.iter().filter(|line| line.contains("public.t ")).collect();
        assert_eq!(told, [&insert(1), &insert(2), &insert(3)]);
    })
    .await;
}

#[tokio::test]
async fn case_31_a_daemon_that_dies_before_the_commit_of_history_loses_nothing() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(SETUP).await;
        let daemon = daemon_of(&database).start().await;
        let mut trial = Trial::of(database, daemon).await;
        trial.told(&["INSERT INTO t VALUES (1)"]).await;
        let cursor = trial.live.cursor.lsn();
        trial.database.until(&format!("SELECT position_lsn >= '{cursor}' FROM walcast.feed"), "t").await;
        let stored = history(&trial.database, trial.start.lsn()).await;
        let lock = trial.database.session().await;
        lock.batch_execute(HOLD).await.unwrap();
        // Live does not wait for history.
        trial.told(&["INSERT INTO t VALUES (2)"]).await;
        trial.daemon.kill9().await;
        assert_eq!(history(&trial.database, trial.start.lsn()).await, stored);
        lock.batch_execute("ROLLBACK").await.unwrap();
        trial.daemon.restart().await;
        // The client knows more than the daemon did when it started.
        trial.reconnect().await;
        trial.told(&["INSERT INTO t VALUES (3)"]).await;
        trial.finish().await;
        let told = changes(&trial.live.log);
        let told: Vec<_> = told.iter().filter(|line| line.contains("public.t ")).collect();
        assert_eq!(told, [&insert(1), &insert(2), &insert(3)]);
    })
    .await;
}

#[tokio::test]
async fn case_32_a_daemon_that_was_replaced_while_it_hung_writes_nothing_more_and_ends() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run(SETUP).await;
        let mut stale = daemon_of(&database).start().await;
        let mut old = super::witness::Witness::at(&stale.ws_url(), "latest").await;
        old.until("caught_up").await;
        // It has something to store when it stops in its tracks, and loses all its sessions.
        let lock = database.session().await;
        lock.batch_execute(HOLD).await.unwrap();
        database.run("INSERT INTO t VALUES (1)").await;
        old.until("transaction").await;
        let waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() \
                       AND application_name = 'walcast history' AND wait_event_type = 'Lock'";
        database.until(waiting, "t").await;
        stale.pause();
        database
            .run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name LIKE 'walcast%'",
            )
            .await;
        let slot = database.slot_name();
        database
            .until(&format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'"), "f")
            .await;
        lock.batch_execute("ROLLBACK").await.unwrap();

        let successor = daemon_of(&database).start().await;
        database.run("INSERT INTO t VALUES (2)").await;
        let both = "SELECT count(*) FROM walcast.change_history WHERE table_name = 't'";
        database.until(both, "2").await;
        stale.resume();
        let status = stale.until_exit().await;
        assert!(!status.success(), "{:?}", stale.log());
        assert!(stale.log().join("\n").contains("another walcast"), "{:?}", stale.log());

        let mut new = super::witness::Witness::at(&successor.ws_url(), &old.cursor.to_string()).await;
        database.run("INSERT INTO t VALUES (3)").await;
        while changes(&new.log).len() < 2 {
            new.until("transaction").await;
        }
        assert_eq!(changes(&new.log), [insert(2), insert(3)]);
        database.until(both, "3").await;
        let log = history(&database, walcast_model::Lsn::ZERO).await;
        assert_eq!(changes(&log), [insert(1), insert(2), insert(3)]);
    })
    .await;
}
