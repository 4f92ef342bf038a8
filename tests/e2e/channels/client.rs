//! The Rust client in channels.

use serde_json::json;
use walcast_client::{Channel, Client, ErrorKind, Event};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, program, shared_cluster, within};

use super::Client as Socket;

fn client(daemon: &Daemon) -> Client {
    Client::builder(&format!("ws://127.0.0.1:{}", daemon.port())).build().expect("a client")
}

/// The next event of a client for which `is_it` is true.
async fn until(client: &mut Client, what: &str, mut is_it: impl FnMut(&Event) -> bool) -> Event {
    within(what, LIMIT, async {
        loop {
            let event = client.next().await.expect("it goes on").expect("it goes on");
            if is_it(&event) {
                return event;
            }
        }
    })
    .await
}

async fn until_members(client: &mut Client, channel: &Channel, count: usize) {
    let what = format!("{count} members");
    until(client, &what, |event| matches!(event, Event::Presence(_)) && channel.members().len() == count)
        .await;
}

async fn until_said(client: &mut Client, payload: &str) {
    until(client, payload, |event| matches!(event, Event::Message(said) if said.payload.get() == payload))
        .await;
}

#[tokio::test]
async fn the_rust_client_joins_again_by_itself_and_knows_who_is_there() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let mut daemon = Daemon::of(&database).start().await;
    let (mut ann, mut bob) = (client(&daemon), client(&daemon));
    let (ann_room, bob_room) = (ann.channel("room").client_id("phone"), bob.channel("room"));
    assert_eq!(ann_room.publish(&1).expect_err("no connection").kind(), ErrorKind::Unavailable);
    ann_room.show(&json!({"name": "Ann"})).expect("a state");
    bob_room.join();
    until_members(&mut ann, &ann_room, 1).await;
    until_members(&mut bob, &bob_room, 1).await;
    bob_room.show(&"Bob").expect("a state");
    until_members(&mut bob, &bob_room, 2).await;
    until_members(&mut ann, &ann_room, 2).await;
    assert!(bob_room.members().iter().any(|member| Some(&member.who.member) == bob_room.member().as_ref()));
    ann_room.publish_with_echo(&"hello").expect("a connection");
    until_said(&mut ann, "\"hello\"").await;
    until_said(&mut bob, "\"hello\"").await;
    // The daemon goes, and nobody is there until it is back.
    daemon.kill9().await;
    until(&mut bob, "the end", |event| matches!(event, Event::Reconnecting { .. })).await;
    assert!(bob_room.members().is_empty() && bob_room.member().is_none());
    bob_room.show(&"Bob again").expect("a state, for later");
    daemon.restart().await;
    until(&mut bob, "joining", |event| matches!(event, Event::Joined(_))).await;
    until(&mut ann, "joining", |event| matches!(event, Event::Joined(_))).await;
    until_members(&mut ann, &ann_room, 2).await;
    let states: Vec<String> = ann_room.members().iter().map(|member| member.state.get().to_owned()).collect();
    assert!(states.contains(&"\"Bob again\"".to_owned()), "{states:?}");
    database.run("SELECT walcast.publish('room', '\"of the database\"', true)").await;
    until_said(&mut ann, "\"of the database\"").await;
    until_said(&mut bob, "\"of the database\"").await;
    bob_room.leave();
    bob.channel("room 2").join();
    until(&mut bob, "joining", |event| matches!(event, Event::Joined(joined) if joined.channel == "room 2"))
        .await;
    until_members(&mut ann, &ann_room, 1).await;
    ann_room.hide().expect("a connection");
    until_members(&mut ann, &ann_room, 0).await;
}

#[tokio::test]
async fn tail_prints_what_is_said_in_a_channel() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).start().await;
    let mut tail = tokio::process::Command::new(program())
        .args(["tail", "--channel", "room", "--json", "--limit", "1", "--url", &daemon.ws_url()])
        .env_remove("WALCAST_TOKEN")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("tail runs");
    let mut ann = Socket::connect(&daemon.ws_url()).await;
    ann.join(json!({"channel": "room", "state": "Ann"})).await;
    let ended = eventually("tail has heard it", LIMIT, async || {
        ann.say(json!({"type": "publish", "channel": "room", "payload": {"n": 1.10}})).await;
        tail.try_wait().expect("a process")
    })
    .await;
    assert!(ended.success(), "{ended}");
    let output = within("tail", LIMIT, tail.wait_with_output()).await.expect("its output");
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |kind: &str| lines.lines().filter(|line| line.contains(&format!("\"type\":\"{kind}\""))).count();
    assert_eq!((of("joined"), of("message")), (1, 1), "{lines}");
}
