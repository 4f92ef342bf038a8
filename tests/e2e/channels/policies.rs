//! Whose channel it is: policies by the real daemon, and attempts to get into what is somebody else's.

use std::path::PathBuf;

use serde_json::{Value, json};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, shared_cluster, within};

use super::{Client, states};
use crate::rights::{SECRET, token};

const POLICIES: &str = r#"
[[policy]]
role = "user"
channel = ["user:{claims.sub}", "room:{claims.sub}:*"]

[[policy]]
role = "user"
channel = "news"
allow = []
"#;

const LOBBY: &str = "\n[[policy]]\nrole = \"*\"\nchannel = \"lobby\"\n";

async fn daemon(database: &TestDatabase, folder: &tempfile::TempDir) -> (Daemon, PathBuf) {
    let path = folder.path().join("policies.toml");
    std::fs::write(&path, format!("{POLICIES}{LOBBY}")).expect("a file");
    let daemon = Daemon::of(database).flag("--jwt-secret", SECRET).flag("--policies", path.display());
    (daemon.start().await, path)
}

async fn connect(daemon: &Daemon, subject: &str, role: &str) -> Client {
    Client::connect(&format!("{}?token={}", daemon.ws_url(), token(subject, role))).await
}

async fn refused(client: &mut Client, message: Value) -> (String, String) {
    client.say(message).await;
    let error = client.until("error").await;
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (text("code"), text("message"))
}

#[tokio::test]
async fn what_is_somebody_elses_cannot_be_joined_published_to_or_listed() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, _) = daemon(&database, &folder).await;
    let mut ann = connect(&daemon, "ann", "user").await;
    let mut bob = connect(&daemon, "bob", "user").await;
    for channel in ["user:ann", "room:ann:1"] {
        ann.join(json!({"channel": channel, "state": "secret of ann", "client_id": "phone"})).await;
    }
    bob.join(json!({"channel": "user:bob"})).await;
    // Whether or not there is such a channel.
    for channel in [
        "user:ann",
        "room:ann:1",
        "room:ann:2",
        "user:nobody",
        "user:bob:x",
        "user:",
        "*",
        "room:*",
        "user:{claims.sub}",
    ] {
        let (code, text) = refused(&mut bob, json!({"type": "join", "channel": channel, "state": 1})).await;
        assert_eq!(
            (code.as_str(), text),
            ("forbidden", format!("no policy grants the channel {channel:?} to this client"))
        );
        for kind in ["publish", "presence", "leave"] {
            let (code, text) =
                refused(&mut bob, json!({"type": kind, "channel": channel, "payload": "evil", "state": 1}))
                    .await;
            assert_eq!(
                (code.as_str(), text),
                ("bad_message", format!("this connection is not in the channel {channel:?}"))
            );
        }
    }
    // Claims of others that would make the pattern another one.
    for evil in ["ann:1", "*", "", "ann\u{0}"] {
        let mut evil = connect(&daemon, evil, "user").await;
        for channel in ["user:ann", "user:ann:1", "room:ann:1:x", "room:ann:1"] {
            let (code, _) = refused(&mut evil, json!({"type": "join", "channel": channel})).await;
            assert_eq!(code, "forbidden");
        }
    }
    // Who sent it is what the token says, whatever the client does.
    ann.join(json!({"channel": "lobby"})).await;
    bob.join(json!({"channel": "lobby", "client_id": "phone", "user": "ann", "state": {"user": "ann"}}))
        .await;
    bob.say(json!({"type": "publish", "channel": "lobby", "payload": 1, "user": "ann", "from": {"user": "ann", "member": "m"}}))
        .await;
    let heard = ann.until("message").await;
    assert_eq!((&heard["from"]["user"], &heard["from"]["client_id"]), (&json!("bob"), &json!("phone")));
    // Only listening.
    ann.join(json!({"channel": "news"})).await;
    for kind in ["publish", "presence"] {
        let (code, _) =
            refused(&mut ann, json!({"type": kind, "channel": "news", "payload": 1, "state": 1})).await;
        assert_eq!(code, "forbidden");
    }
    let (code, _) = refused(&mut bob, json!({"type": "join", "channel": "news", "state": 1})).await;
    assert_eq!(code, "forbidden");
    bob.join(json!({"channel": "news"})).await;
    database
        .run("SELECT walcast.publish('news', '\"today\"'), walcast.publish('user:ann', '\"for ann\"')")
        .await;
    assert_eq!(ann.until("message").await["payload"], "today");
    assert_eq!(ann.until("message").await["payload"], "for ann");
    // Nothing of ann's came to him on the way.
    let told: Vec<Value> = bob.all_so_far().await;
    assert!(told.iter().any(|message| message["payload"] == "today"), "{told:?}");
    let told = json!(told).to_string();
    assert!(!told.contains("secret of ann") && !told.contains("for ann"), "{told}");
    // A role of which nothing is said.
    let mut guest = connect(&daemon, "guest", "guest").await;
    assert_eq!(refused(&mut guest, json!({"type": "join", "channel": "user:guest"})).await.0, "forbidden");
    guest.join(json!({"channel": "lobby"})).await;
}

#[tokio::test]
async fn who_loses_the_right_is_told_and_removed_and_what_he_may_do_follows_the_policies() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, path) = daemon(&database, &folder).await;
    let mut ann = connect(&daemon, "ann", "user").await;
    let mut bob = connect(&daemon, "bob", "guest").await;
    for (client, state) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        client.join(json!({"channel": "lobby", "state": state})).await;
    }
    assert_eq!(states(&bob.until("presence").await["members"]).len(), 2);
    // Only users, and nobody is shown.
    let narrower = "\n[[policy]]\nrole = \"user\"\nchannel = \"lobby\"\nallow = [\"publish\"]\n";
    std::fs::write(&path, format!("{POLICIES}{narrower}")).expect("a file");
    daemon.hang_up();
    let error = bob.until("error").await;
    assert_eq!((&error["code"], &error["channel"]), (&json!("forbidden"), &json!("lobby")));
    daemon.until_metric("walcast_policies_reloads_total", 1.0).await;
    // Each connection hears of it by itself.
    let narrowed = async {
        loop {
            ann.say(json!({"type": "presence", "channel": "lobby", "state": "ann"})).await;
            if ann.all_so_far().await.iter().any(|message| message["code"] == "forbidden") {
                return;
            }
        }
    };
    within("that ann may show herself no more", LIMIT, narrowed).await;
    let mut late = connect(&daemon, "late", "user").await;
    late.join(json!({"channel": "lobby"})).await;
    late.say(json!({"type": "publish", "channel": "lobby", "payload": "still"})).await;
    let heard = ann.until("message").await;
    let members: Vec<&str> = heard["from"].as_object().expect("who").keys().map(String::as_str).collect();
    assert_eq!(
        (&heard["payload"], members),
        (&json!("still"), vec!["member"]),
        "who may not see is not told who"
    );
    let (code, _) = refused(&mut bob, json!({"type": "publish", "channel": "lobby", "payload": 1})).await;
    assert_eq!(code, "bad_message");
    assert!(bob.all_so_far().await.iter().all(|message| message["type"] != "message"));
    // And back.
    std::fs::write(&path, format!("{POLICIES}{LOBBY}")).expect("a file");
    daemon.hang_up();
    assert_eq!(ann.until("presence").await["members"], json!([]), "what he was shown as is gone");
    ann.say(json!({"type": "presence", "channel": "lobby", "state": "again"})).await;
    assert_eq!(states(&ann.until("presence").await["joined"]), [&json!("again")]);
    let joined = async {
        loop {
            bob.say(json!({"type": "join", "channel": "lobby"})).await;
            let answer = bob.until_said().await;
            if answer["type"] == "joined" {
                return;
            }
            assert_eq!(answer["code"], "forbidden", "{answer}");
        }
    };
    within("that bob may come back", LIMIT, joined).await;
}
