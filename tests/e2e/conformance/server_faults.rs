//! Cases 28, 29, 58, 61 and 67: servers that stop and crash, and quiet ends of the WAL.

use std::time::{Duration, Instant};

use walcast_testkit::{Cluster, LIMIT, StopMode, eventually, installations, own_cluster};

use super::trial::{Trial, history};
use super::witness::{Told, Witness};

#[tokio::test]
async fn case_28_29_58_61_67_a_server_of_ones_own() {
    for installation in installations() {
        // Of its own: it is stopped, and nobody else moves the end of its WAL.
        let cluster = own_cluster(&installation).await;
        let flags = |builder: walcast_testkit::DaemonBuilder| {
            builder.flag("--idle-persist-interval", "200ms").flag("--heartbeat", "100ms")
        };
        let mut trial = Trial::with(&cluster, "CREATE TABLE t (id int PRIMARY KEY)", flags).await;
        caught_up_at_quiet_ends(&mut trial).await;
        positions_never_go_back(&mut trial).await;
        for mode in [StopMode::Fast, StopMode::Immediate] {
            stopped(&mut trial, &cluster, mode).await;
        }
        trial.finish().await;
    }
}

/// Case 61: what was committed is told at once where waiting for a WAL position would wait for the server's next
/// record, 15 seconds and more.
async fn caught_up_at_quiet_ends(trial: &mut Trial) {
    let open = trial.database.session().await;
    let mut took = Vec::new();
    for (id, tail) in [(1, "INSERT INTO t VALUES (100)"), (2, "SELECT pg_switch_wal()")] {
        trial.database.run(&format!("INSERT INTO t VALUES ({id})")).await;
        open.batch_execute("BEGIN").await.expect("the statement runs");
        open.batch_execute(tail).await.expect("the statement runs");
        let started = Instant::now();
        let mut client = Witness::at(&trial.daemon.ws_url(), &trial.start.to_string()).await;
        client.until("caught_up").await;
        took.push(started.elapsed());
        let told = client.log.iter().filter(|told| matches!(told, Told::Change { .. })).count();
        assert_eq!(told, id, "after {tail}");
        open.batch_execute("ROLLBACK").await.expect("the statement runs");
    }
    println!("caught up after {took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(10)), "{took:?}");
}

/// Case 58: a slot that has to read again from far before what was acknowledged.
async fn positions_never_go_back(trial: &mut Trial) {
    let slot = trial.database.slot_name();
    let open = trial.database.session().await;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (10)").await.expect("the statement runs");
    for _ in 0..20 {
        trial.database.run("SELECT pg_logical_emit_message(false, 'app', repeat('x', 1000000))").await;
    }
    trial.mark().await;
    trial.until_acknowledged().await;
    let between = format!(
        "SELECT confirmed_flush_lsn - restart_lsn > 20000000 FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    assert_eq!(trial.database.scalar(&between).await.as_deref(), Some("t"));
    let positions = format!(
        "SELECT s.confirmed_flush_lsn::text, f.position_lsn::text
         FROM pg_replication_slots AS s CROSS JOIN walcast.feed AS f WHERE s.slot_name = '{slot}'"
    );
    let session = trial.database.session().await;
    let read = async || -> (walcast_model::Lsn, walcast_model::Lsn) {
        let row = session.query_one(&positions, &[]).await.expect("the statement runs");
        (
            row.get::<_, &str>(0).parse().expect("a position"),
            row.get::<_, &str>(1).parse().expect("a position"),
        )
    };
    let mut before = read().await;
    trial.daemon.kill9().await;
    trial.daemon.restart_without_waiting();
    let daemon = &trial.daemon;
    eventually("the daemon is ready", LIMIT, async || {
        let now = read().await;
        assert!(before.0 <= now.0 && before.1 <= now.1, "from {before:?} to {now:?}");
        before = now;
        daemon.get("/readyz").await.is_some_and(|answer| answer.status == 200).then_some(())
    })
    .await;
    // Its heartbeats are checked against those of before.
    trial.reconnect().await;
    trial.live.until("heartbeat").await;
    open.batch_execute("COMMIT").await.expect("the statement runs");
    trial.mark().await;
    assert!(trial.live.log.iter().any(|told| told.line().contains(r#"row {"id":10}"#)));
}

/// Cases 28, 29 and 67: what was acknowledged and comes again from the slot is not told and not stored again; the
/// client stays connected, and a history in the same database does not hold up the server's end.
async fn stopped(trial: &mut Trial, cluster: &Cluster, mode: StopMode) {
    let ids = if mode == StopMode::Fast { 1000..1050 } else { 2000..2050 };
    for id in ids {
        trial.database.run(&format!("INSERT INTO t VALUES ({id})")).await;
    }
    trial.mark().await;
    trial.until_acknowledged().await;
    let stored = history(&trial.database, trial.start.lsn()).await;
    let started = Instant::now();
    // Half of what the server would wait for a consumer that does not let go.
    cluster.stop_within(mode, LIMIT).await.expect("the server stops");
    println!("{mode:?} stop took {:?}", started.elapsed());
    cluster.start().await.expect("the server starts");
    trial.mark().await;
    let now = history(&trial.database, trial.start.lsn()).await;
    assert!(now[..stored.len()] == stored, "the history changed");
}
