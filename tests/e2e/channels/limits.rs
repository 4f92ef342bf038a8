//! What is too much, and who does not read.

use serde_json::{Value, json};
use walcast_testkit::{
    Daemon, Direction, LIMIT, Proxy, TestDatabase, eventually, for_each_version, shared_cluster, within,
};

use super::Client;

#[tokio::test]
async fn what_others_are_told_is_counted_once_for_each_of_them_and_is_too_much_at_some_point() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).flag("--fan-out-bytes-per-second-max", "10KiB").start().await;
    let mut clients = Vec::new();
    for _ in 0..11 {
        let mut client = Client::connect(&daemon.ws_url()).await;
        client.join(json!({"channel": "room"})).await;
        clients.push(client);
    }
    // Ten are told 5 KB each, which is more than may be told at once: this one is, and the next has to wait.
    let filler = "z".repeat(5000);
    clients[0].say(json!({"type": "publish", "channel": "room", "payload": filler, "ref": "1"})).await;
    clients[0].say(json!({"type": "publish", "channel": "room", "payload": 2, "ref": "2"})).await;
    let error = within("the refusal", LIMIT, clients[0].until("error")).await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("limit_exceeded"), &json!("2")), "{error}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("fan_out_bytes_per_second_max")));
    assert_eq!(clients[10].until("message").await["payload"], filler);
    // Others are not kept from talking, and it may again after a while.
    clients[1].say(json!({"type": "publish", "channel": "room", "payload": "mine"})).await;
    assert_eq!(clients[10].until("message").await["payload"], "mine");
    let (first, others) = clients.split_at_mut(1);
    eventually("it may talk again", LIMIT, async || {
        first[0].say(json!({"type": "publish", "channel": "room", "payload": "again", "echo": true})).await;
        let told = first[0].all_so_far().await;
        told.iter().any(|message| message["payload"] == "again").then_some(())
    })
    .await;
    assert_eq!(others[9].until("message").await["payload"], "again");
}

#[tokio::test]
async fn each_limit_is_told_and_counted_by_its_name() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database)
        .flag("--channels-max", 3)
        .flag("--channels-per-connection-max", 2)
        .flag("--channel-members-max", 2)
        .flag("--channel-name-bytes-max", 8)
        .flag("--payload-bytes-max", 100)
        .flag("--state-bytes-max", 10)
        .flag("--publishes-per-second-max", 1)
        .flag("--messages-per-second-max", 1000)
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(&daemon.ws_url()).await);
    }
    let (ann, bob, eve) = (0, 1, 2);
    for (client, channel) in [(ann, "a"), (ann, "b"), (bob, "a"), (bob, "c")] {
        clients[client].join(json!({ "channel": channel })).await;
    }
    let long = "x".repeat(101);
    let refused = [
        (ann, "channels_per_connection_max", json!({"type": "join", "channel": "c"})),
        (eve, "channel_members_max", json!({"type": "join", "channel": "a"})),
        (eve, "channels_max", json!({"type": "join", "channel": "d"})),
        (eve, "channel_name_bytes_max", json!({"type": "join", "channel": "123456789"})),
        (eve, "state_bytes_max", json!({"type": "join", "channel": "b", "state": "1234567890"})),
        (bob, "state_bytes_max", json!({"type": "presence", "channel": "a", "state": "1234567890"})),
        (bob, "payload_bytes_max", json!({"type": "publish", "channel": "a", "payload": long})),
    ];
    for (client, limit, mut message) in refused {
        message["ref"] = json!(limit);
        clients[client].say(message).await;
        let error = clients[client].until("error").await;
        assert_eq!((&error["code"], &error["ref"]), (&json!("limit_exceeded"), &json!(limit)), "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(limit)), "{error}");
        let counted = format!("walcast_channel_requests_refused_total{{limit=\"{limit}\"}}");
        assert!(daemon.get("/metrics").await.is_some_and(|page| page.body.contains(&counted)), "{limit}");
    }
    database.run(&format!("SELECT walcast.publish('a', '\"{}\"')", "y".repeat(200))).await;
    daemon.until_log("is over payload_bytes_max (100) and was not told").await;
    // Too fast: refused, not delayed, and not held against it however often.
    for number in 0..150 {
        let publish =
            json!({"type": "publish", "channel": "a", "payload": number, "ref": number.to_string()});
        clients[bob].say(publish).await;
    }
    let mut told = clients[bob].all_so_far().await;
    told.retain(|message| message["type"] != "presence");
    let refs: Vec<u64> = told.iter().filter_map(|error| error["ref"].as_str()?.parse().ok()).collect();
    assert!(told.iter().all(|error| {
        error["message"].as_str().is_some_and(|text| text.contains("publishes_per_second_max"))
    }));
    let heard: Vec<u64> =
        clients[ann].all_so_far().await.iter().filter_map(|message| message["payload"].as_u64()).collect();
    assert!(!heard.is_empty() && refs.len() >= 100, "{heard:?} {refs:?}");
    let mut all = [heard, refs].concat();
    all.sort_unstable();
    assert_eq!(all, (0..150).collect::<Vec<u64>>(), "each is heard or refused");
}

#[tokio::test]
async fn who_does_not_read_has_every_transaction_and_is_told_how_many_messages_are_gone() {
    for_each_version(async |cluster| {
        let database = TestDatabase::create(cluster).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY, filler text)").await;
        let daemon = Daemon::of(&database)
            .flag("--channel-queue-bytes-max", "64KiB")
            .flag("--publishes-per-second-max", 100_000)
            .flag("--messages-per-second-max", 100_000)
            .start()
            .await;
        let proxy = Proxy::to(daemon.port()).await;
        let mut slow = Client::connect(&proxy.url(&daemon.ws_url())).await;
        slow.join(json!({"channel": "room"})).await;
        slow.until("presence").await;
        slow.say(
            json!({"type": "subscribe", "id": "t", "tables": [{"table": "public.t"}], "cursor": "latest"}),
        )
        .await;
        slow.until("caught_up").await;
        proxy.throttle(Direction::ToClient, 1);
        let mut loud = Client::connect(&daemon.ws_url()).await;
        loud.join(json!({"channel": "room", "state": "loud"})).await;
        loud.until("presence").await;
        // Until it is known that some are gone; with commits in between.
        let (mut said, mut committed) = (0_u64, 0_u64);
        let filler = "z".repeat(10_000);
        while daemon
            .metric("walcast_channel_messages_dropped_total")
            .await
            .is_none_or(|dropped| dropped < 500.0)
        {
            for _ in 0..200 {
                loud.say(
                    json!({"type": "publish", "channel": "room", "payload": {"n": said, "filler": filler}}),
                )
                .await;
                said += 1;
            }
            assert!(loud.all_so_far().await.iter().all(|message| message["type"] == "presence"));
            database.run(&format!("INSERT INTO t SELECT {committed}, '{filler}'")).await;
            committed += 1;
        }
        loud.say(json!({"type": "presence", "channel": "room", "state": "changed meanwhile"})).await;
        drop(loud.all_so_far().await);
        proxy.heal();
        let (mut rows, mut heard, mut gone, mut shown) = (0, Vec::new(), 0, Value::Null);
        while rows < committed || (heard.len() as u64) + gone < said || shown != "changed meanwhile" {
            let message = slow.next().await;
            match message["type"].as_str() {
                Some("transaction") => {
                    assert_eq!(message["changes"][0]["row"]["id"], rows, "in order, and whole");
                    rows += 1;
                }
                Some("message") => heard.push(message["payload"]["n"].as_u64().expect("a number")),
                Some("dropped") => gone += message["count"].as_u64().expect("a number"),
                Some("presence") => {
                    for list in ["members", "joined"] {
                        if let Some(member) = message[list].as_array().and_then(|list| list.first()) {
                            shown = member["state"].clone();
                        }
                    }
                }
                Some("relation") => {}
                other => panic!("{other:?}: {message}"),
            }
        }
        assert!(heard.is_sorted() && gone >= 500, "{heard:?} {gone}");
        // And it goes on as if nothing had been.
        loud.say(json!({"type": "publish", "channel": "room", "payload": {"n": said}})).await;
        assert_eq!(slow.until("message").await["payload"]["n"], said);
        eventually("it is counted", LIMIT, async || {
            (daemon.metric("walcast_channel_messages_dropped_total").await == Some(gone as f64)).then_some(())
        })
        .await;
    })
    .await;
}
