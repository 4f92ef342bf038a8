//! A history that is away: what clients and operators are told of it, and that it works again.

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use walcast_cluster::StopMode;
use walcast_testkit::{
    Daemon, LIMIT, TestDatabase, eventually, installations, own_cluster, shared_cluster, within,
};

use crate::http::begin;
use crate::observer::{Observer, Socket, open, receive, send, wal_position};
use crate::upkeep::readyz;

/// The whole answer, and its body.
async fn ask(daemon: &Daemon, line: &str, body: &str) -> (String, Value) {
    let mut text = String::new();
    let mut socket = begin(daemon, line, "", body).await;
    within("an answer", LIMIT, socket.read_to_string(&mut text)).await.expect("an answer");
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let body = serde_json::from_str(body).unwrap_or_default();
    (text, body)
}

async fn until(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let message = receive(socket).await.expect("a message");
        assert_ne!(message["type"], "error", "{message}");
        if message["type"] == kind {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_that_is_away_is_named_to_clients_and_all_that_it_held_up_works_again() {
    for installation in installations() {
        let history = own_cluster(&installation).await;
        let database = TestDatabase::create(shared_cluster().await).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut daemon = Daemon::of(&database)
            .flag("--history-url", history.url("postgres"))
            .flag("--heartbeat", "200ms")
            .flag("--retention-interval", "200ms")
            .flag("--ack-interval", "50ms")
            .start()
            .await;
        let from = wal_position(&database).await.to_string();
        let mut observer = Observer::subscribe(&daemon.ws_url(), &["public.t"], None).await;
        observer.until("caught_up").await;
        database.run("INSERT INTO t VALUES (1)").await;
        observer.until_transactions(1).await;
        daemon.terminate().await;
        // What it has read is in history alone now.
        daemon.restart().await;
        let tables = json!([{"table": "public.t"}]);
        let (mut acker, _) = open(&daemon.ws_url()).await;
        send(
            &mut acker,
            json!({"type": "subscribe", "id": "t", "tables": tables, "client_id": "c", "cursor": "latest"}),
        )
        .await;
        let cursor = until(&mut acker, "caught_up").await["cursor"].clone();

        history.stop(StopMode::Fast).await.expect("it stops");
        let (answer, page) =
            ask(&daemon, &format!("GET /v1/changes?tables=public.t&cursor={from}"), "").await;
        let rows = r#"{"table": "public.t", "keys": [{"id": 1}]}"#;
        let (looked_up, row) = ask(&daemon, "POST /v1/rows", rows).await;
        for (answer, said) in [(answer, page), (looked_up, row)] {
            assert!(answer.contains(" 503 ") && answer.to_lowercase().contains("retry-after: 5"), "{answer}");
            let (message, hint) = (said["message"].as_str(), said["hint"].as_str());
            let (message, hint) = (message.expect("a message"), hint.expect("a hint"));
            assert!(
                message.contains("history is not read, for ") && message.contains("reach Postgres"),
                "{message}"
            );
            assert!(hint.starts_with("ask again after a few seconds, from the same cursor"), "{hint}");
        }
        let (mut socket, _) = open(&daemon.ws_url()).await;
        send(&mut socket, json!({"type": "subscribe", "id": "s", "tables": tables, "cursor": from})).await;
        let waiting = until(&mut socket, "waiting").await;
        assert!(
            waiting["message"].as_str().is_some_and(|text| text.contains("history is not read")),
            "{waiting}"
        );
        send(&mut acker, json!({"type": "ack", "id": "t", "cursor": cursor})).await;
        for (effect, how) in [
            ("what clients acknowledge is not stored", "; trying again"),
            ("old changes are not dropped", "; trying again in "),
            ("history is not read", "; whoever needs it waits"),
        ] {
            let line = daemon.until_log(&format!("{effect}{how}")).await;
            assert!(line.contains(" WARN ") && line.contains("hint="), "{line}");
            eventually(effect, LIMIT, async || {
                readyz(&daemon).await.to_string().contains(effect).then_some(())
            })
            .await;
        }

        history.start().await.expect("it starts");
        assert_eq!(until(&mut acker, "acked").await["cursor"], cursor);
        assert_eq!(until(&mut socket, "transaction").await["changes"][0]["row"]["id"], 1);
        for again in [
            "what clients acknowledge is stored again, after ",
            "old changes are dropped again, after ",
            "history is read again, after ",
            "history is written again, after ",
        ] {
            let line = daemon.until_log(again).await;
            assert!(line.contains(" INFO "), "{line}");
        }
        eventually("no reasons", LIMIT, async || {
            (readyz(&daemon).await["reasons"] == json!([])).then_some(())
        })
        .await;
        let (answer, _) = ask(&daemon, &format!("GET /v1/changes?tables=public.t&cursor={from}"), "").await;
        assert!(answer.contains(" 200 "), "{answer}");
    }
}
