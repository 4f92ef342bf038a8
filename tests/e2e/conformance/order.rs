//! Cases 25 and 27: the order of commits, and cursors between commits that touch.

use walcast_testkit::{for_each_version, installations, own_cluster};

use super::trial::Trial;
use super::witness::{Told, Witness};

/// Rounds of two simultaneous commits, most of which touch.
const ROUNDS: i32 = 200;

/// Where one transaction's end is the next one's start: the cursor between them.
fn touching(log: &[Told]) -> Vec<usize> {
    let ends = log.iter().enumerate().filter_map(|(at, told)| match (told, log.get(at + 1)) {
        (Told::Commit { cursor, .. }, Some(Told::Change { lsn, .. })) if cursor.lsn() == *lsn => Some(at),
        _ => None,
    });
    ends.collect()
}

#[tokio::test]
async fn case_25_a_client_that_resumes_between_two_commits_that_touch_gets_the_second() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        trial.mark().await;
        trial.database.run("INSERT INTO t VALUES (-1)").await;
        let sessions = [trial.database.session().await, trial.database.session().await];
        for session in &sessions {
            session.batch_execute("SET synchronous_commit = off").await.unwrap();
        }
        for round in 0..ROUNDS {
            for (n, session) in sessions.iter().enumerate() {
                let id = round * 2 + i32::try_from(n).unwrap();
                session.batch_execute(&format!("BEGIN; INSERT INTO t VALUES ({id})")).await.unwrap();
            }
            let (one, two) =
                tokio::join!(sessions[0].batch_execute("COMMIT"), sessions[1].batch_execute("COMMIT"));
            one.and(two).unwrap();
        }
        trial.finish().await;
        let log = trial.live.log.clone();
        let touching = touching(&log);
        assert!(!touching.is_empty(), "no two of {ROUNDS} pairs of commits touched");
        // The daemon was restarted: the first ones come from history, what is written now from memory.
        for &at in touching.iter().take(5) {
            let Told::Commit { cursor, .. } = log[at] else { unreachable!() };
            let mut rest = Witness::at(&trial.daemon.ws_url(), &cursor.to_string()).await;
            rest.until_at(trial.live.cursor).await;
            rest.log.retain(|told| !matches!(told, Told::Relation(_)));
            assert_eq!(rest.log.first(), log.get(at + 1), "after {cursor}");
            assert!(rest.log == log[at + 1..], "after {cursor}: {} entries", rest.log.len());
        }
    })
    .await;
}

#[tokio::test]
async fn case_27_a_transaction_that_commits_after_ten_thousand_others_comes_after_them() {
    for installation in installations() {
        // Of its own: the slots of other tests would wait for the transaction.
        let cluster = own_cluster(&installation).await;
        let mut trial = Trial::start(&cluster, "CREATE TABLE t (id int PRIMARY KEY)").await;
        let small =
            "2> DO $$ BEGIN FOR id IN 1..10000 LOOP INSERT INTO t VALUES (id); COMMIT; END LOOP; END $$";
        let steps = [
            "BEGIN; INSERT INTO t VALUES (-1)",
            "2> SET synchronous_commit = off",
            small,
            "INSERT INTO t VALUES (-2)",
            "COMMIT",
        ];
        let told = trial.told(&steps).await;
        let changes = told.iter().filter(|told| matches!(told, Told::Change { .. })).map(Told::line);
        let expected = (1..=10_000).chain([-1, -2]);
        let expected = expected.map(|id| format!(r#"insert public.t key {{"id":{id}}} row {{"id":{id}}}"#));
        assert!(changes.eq(expected), "{} entries", told.len());
        assert_eq!(told.iter().filter(|told| matches!(told, Told::Commit { .. })).count(), 10_001);
        trial.finish().await;
    }
}
