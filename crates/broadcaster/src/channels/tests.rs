//! Channels against a model that knows nothing of frames, shards or intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::time::Instant;
use walcast_model::DatabaseMessage;
use walcast_policy::{ChannelGrant, ChannelRights, Policies};
use walcast_protocol::{ErrorCode, JoinChannel, PublishMessage};

use super::{Channels, Memberships};
use crate::limits::Limits;

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).unwrap()
}

fn join_message(channel: &str, state: Option<&Value>) -> JoinChannel {
    let (client_id, reference) = (None, None);
    JoinChannel { channel: channel.into(), state: state.map(raw), client_id, reference }
}

fn publish(client: &mut Memberships, channel: &str, payload: &Value, echo: bool) {
    let message = PublishMessage { channel: channel.into(), payload: raw(payload), echo, reference: None };
    client.publish(message).unwrap();
}

/// Everything that waits for a client.
fn taken(client: &Memberships) -> Vec<Value> {
    let mut taken = Vec::new();
    while let Some(frame) = client.next() {
        let text = [frame.head, frame.tail].concat();
        taken.push(serde_json::from_slice(&text).unwrap());
    }
    taken
}

fn limits() -> Limits {
    Limits { presence_interval: Duration::ZERO, ..Limits::default() }
}

fn said_by_database(channel: &str, payload: &Value) -> DatabaseMessage {
    let content = json!({"channel": channel, "payload": payload}).to_string();
    DatabaseMessage::parse("0/2A".parse().unwrap(), content.as_bytes()).unwrap()
}

#[tokio::test]
async fn everybody_but_the_sender_hears_it_and_who_may_not_see_is_not_told_who_said_it() {
    let text =
        "[[policy]]\nrole = 'blind'\nchannel = 'a'\nallow = []\n[[policy]]\nrole = 'user'\nchannel = '*'\n";
    let rights = |role| {
        Policies::parse(text).unwrap().channel_rights(role, &walcast_filter::Claims::parse("{}").unwrap())
    };
    let channels = Channels::new(limits());
    let mut clients: Vec<Memberships> = ["user", "user", "blind"]
        .iter()
        .map(|role| {
            let mut client = Memberships::new(channels.clone());
            let mut join = join_message("a", (*role == "user").then(|| json!({"role": role})).as_ref());
            join.client_id = Some("phone".into());
            client.join(join, &rights(role), Some("ann")).unwrap();
            client
        })
        .collect();
    clients.iter().for_each(|client| drop(taken(client)));
    publish(&mut clients[0], "a", &json!({"n": 1}), false);
    channels.say_for_database(said_by_database("a", &json!("hello")));
    channels.say_for_database(said_by_database("nobody is here", &json!("hello")));
    let of_database = json!({"type": "message", "channel": "a", "payload": "hello", "lsn": "0/2A"});
    assert_eq!(taken(&clients[0]), std::slice::from_ref(&of_database));
    let seen = taken(&clients[1]);
    assert_eq!((&seen[0]["from"]["user"], &seen[0]["from"]["client_id"]), (&json!("ann"), &json!("phone")));
    let blind = taken(&clients[2]);
    assert_eq!(blind[0]["from"], json!({"member": seen[0]["from"]["member"]}));
    assert_eq!((&blind[0]["payload"], &blind[1]), (&json!({"n": 1}), &of_database));
    // One frame for all who may see the same.
    publish(&mut clients[0], "a", &json!(2), true);
    let frame = |client: &Memberships| client.next().unwrap().tail;
    assert_eq!(frame(&clients[0]).as_ptr(), frame(&clients[1]).as_ptr());
    // The blind one cannot say or show anything.
    let publish =
        PublishMessage { channel: "a".into(), payload: raw(&json!(1)), echo: false, reference: None };
    for refused in [clients[2].publish(publish), clients[2].set_state("a", Some(raw(&json!(1))))] {
        assert_eq!(refused.unwrap_err().code, ErrorCode::Forbidden);
    }
}

#[tokio::test]
async fn what_is_said_costs_once_for_everybody_who_is_told() {
    let channels = Channels::new(limits());
    let mut clients: Vec<Memberships> = (0..4).map(|_| Memberships::new(channels.clone())).collect();
    assert!(clients[0].seat.is_none(), "who is in no channel has nothing for it");
    for client in &mut clients {
        client.join(join_message("a", None), &ChannelRights::Everything, None).unwrap();
    }
    assert_eq!(clients[0].take_handed_out(), 0, "who is not shown costs nothing");
    publish(&mut clients[0], "a", &json!("x".repeat(1000)), false);
    clients.iter().for_each(|client| drop(taken(client)));
    assert!((3000..3600).contains(&clients[0].take_handed_out()));
    clients[0].set_state("a", Some(raw(&json!("s".repeat(98))))).unwrap();
    assert_eq!((clients[0].take_handed_out(), clients[0].take_handed_out()), (400, 0));
    clients[0].leave("a").unwrap();
    assert!(clients[0].seat.is_none() && clients[1].seat.is_some());
}

#[tokio::test]
async fn what_some_client_could_not_read_is_refused() {
    let mut client = Memberships::new(Channels::new(limits()));
    client.join(join_message("a", None), &ChannelRights::Everything, None).unwrap();
    for text in [r#""\ud800""#.to_owned(), "[".repeat(200) + &"]".repeat(200)] {
        let payload = RawValue::from_string(text).unwrap();
        let message =
            PublishMessage { channel: "a".into(), payload: payload.clone(), echo: true, reference: None };
        for refused in [client.publish(message), client.set_state("a", Some(payload))] {
            assert_eq!(refused.unwrap_err().code, ErrorCode::BadMessage);
        }
        assert!(taken(&client).iter().all(|told| told["type"] == "presence"));
    }
}

#[tokio::test]
async fn each_limit_is_told_by_its_name() {
    let limits = Limits {
        channels_max: 3,
        channels_per_connection_max: 2,
        channel_members_max: 2,
        channel_name_bytes_max: 4,
        payload_bytes_max: 6,
        state_bytes_max: 6,
        ..limits()
    };
    let channels = Channels::new(limits);
    let all = ChannelRights::Everything;
    let mut clients: Vec<Memberships> = (0..3).map(|_| Memberships::new(channels.clone())).collect();
    let mut join = |client: usize, channel: &str, state: Option<&Value>| {
        let joined = clients[client].join(join_message(channel, state), &all, None);
        joined.map(drop).map_err(|refusal| refusal.to_string())
    };
    let refused = |outcome: Result<(), String>, limit: &str| {
        let text = outcome.unwrap_err();
        assert!(text.starts_with("limit_exceeded") && text.contains(limit), "{text}");
    };
    refused(join(0, "abcde", None), "channel_name_bytes_max");
    refused(join(0, "a", Some(&json!("12345"))), "state_bytes_max");
    join(0, "a", Some(&json!("1234"))).unwrap();
    join(0, "b", None).unwrap();
    refused(join(0, "c", None), "channels_per_connection_max");
    join(1, "a", None).unwrap();
    refused(join(2, "a", None), "channel_members_max");
    join(1, "c", None).unwrap();
    refused(join(2, "d", None), "channels_max");
    assert!(join(2, "", None).unwrap_err().starts_with("bad_message"));
    let message =
        PublishMessage { channel: "a".into(), payload: raw(&json!("12345")), echo: false, reference: None };
    refused(clients[0].publish(message).map_err(|refusal| refusal.to_string()), "payload_bytes_max");
    channels.say_for_database(said_by_database("a", &json!("12345")));
    assert!(taken(&clients[1]).iter().all(|told| told["type"] == "presence"), "nor by the database");
    // Whoever goes makes room.
    clients.remove(0);
    assert_eq!(channels.shared.rooms.load(std::sync::atomic::Ordering::Relaxed), 2);
    clients[1].join(join_message("a", None), &all, None).unwrap();
    drop(clients);
    assert_eq!(channels.shared.rooms.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn who_came_and_went_is_gathered_and_who_did_both_is_not_told() {
    let interval = Duration::from_millis(100);
    let channels = Channels::new(Limits { presence_interval: interval, ..Limits::default() });
    let following = tokio::spawn({
        let channels = channels.clone();
        async move { channels.follow().await }
    });
    let all = ChannelRights::Everything;
    let come = |name: &str| {
        let mut client = Memberships::new(channels.clone());
        client.join(join_message("a", Some(&json!(name))), &all, None).unwrap();
        client
    };
    let mut ann = come("ann");
    // The first is told at once.
    assert_eq!(taken(&ann)[0]["members"].as_array().unwrap().len(), 1);
    let bob = come("bob");
    let gone = come("gone");
    ann.set_state("a", Some(raw(&json!("ann 2")))).unwrap();
    assert!(taken(&ann).is_empty() && taken(&bob).is_empty());
    drop(gone);
    tokio::time::sleep(interval * 2).await;
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|member| member["state"].clone()).collect()
    };
    let [told] = &taken(&ann)[..] else { panic!("one message") };
    assert_eq!((names(&told["joined"]), &told["left"]), (vec![json!("ann 2"), json!("bob")], &json!([])));
    let [told] = &taken(&bob)[..] else { panic!("one message") };
    assert_eq!(names(&told["members"]), [json!("ann 2"), json!("bob")]);
    drop(bob);
    tokio::time::sleep(interval * 2).await;
    let [told] = &taken(&ann)[..] else { panic!("one message") };
    assert_eq!((told["left"].as_array().unwrap().len(), &told["joined"]), (1, &json!([])));
    // Who is silent for long is shown again when he is heard.
    ann.set_away(true);
    tokio::time::sleep(interval * 2).await;
    assert_eq!(taken(&ann)[0]["left"].as_array().unwrap().len(), 1);
    ann.set_away(false);
    tokio::time::sleep(interval * 2).await;
    assert_eq!(names(&taken(&ann)[0]["joined"]), [json!("ann 2")]);
    following.abort();
}

/// What a client makes of what it is told.
#[derive(Default)]
struct Copy {
    heard: BTreeMap<String, Vec<u64>>,
    dropped: BTreeMap<String, u64>,
    members: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Copy {
    fn hear(&mut self, message: &Value) {
        let channel = message["channel"].as_str().unwrap().to_owned();
        match message["type"].as_str().unwrap() {
            "message" => {
                self.heard.entry(channel).or_default().push(message["payload"]["n"].as_u64().unwrap())
            }
            "dropped" => *self.dropped.entry(channel).or_default() += message["count"].as_u64().unwrap(),
            "presence" => {
                let members = self.members.entry(channel).or_default();
                let name = |member: &Value| member["member"].as_str().unwrap().to_owned();
                if let Some(all) = message["members"].as_array() {
                    *members = all.iter().map(|one| (name(one), one["state"].clone())).collect();
                }
                for member in message["left"].as_array().unwrap() {
                    members.remove(&name(member));
                }
                for member in message["joined"].as_array().unwrap() {
                    members.insert(name(member), member["state"].clone());
                }
            }
            other => panic!("{other}"),
        }
    }
}

/// A client, and what it should have been told.
struct Watched {
    client: Memberships,
    copy: Copy,
    /// By channel: its name there, its state, whether it sees who is there.
    joined: BTreeMap<String, (String, Option<Value>, bool)>,
    /// How many messages of a channel were for it since it joined.
    owed: BTreeMap<String, u64>,
}

impl Watched {
    fn left(&mut self, channel: &str) {
        self.joined.remove(channel);
        self.owed.remove(channel);
        self.copy.heard.remove(channel);
        self.copy.dropped.remove(channel);
        self.copy.members.remove(channel);
    }
}

/// Rights to the channels in the set; presence in those that the second has.
fn rights(of: &BTreeSet<&str>, sees: &BTreeSet<&str>) -> ChannelRights {
    let policy = |channel: &&str| {
        let allow = if sees.contains(channel) { "['publish', 'presence']" } else { "['publish']" };
        format!("[[policy]]\nrole = 'r'\nchannel = '{channel}'\nallow = {allow}\n")
    };
    let text: String = of.iter().map(policy).collect();
    Policies::parse(&text).unwrap().channel_rights("r", &walcast_filter::Claims::parse("{}").unwrap())
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn some(random: &mut StdRng) -> BTreeSet<&'static str> {
    NAMES.into_iter().filter(|_| random.random_bool(0.8)).collect()
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let limits = Limits {
        presence_interval: Duration::from_millis(random.random_range(0..20)),
        channel_queue_bytes_max: random.random_range(1..2000),
        ..Limits::default()
    };
    let channels = Channels::new(limits);
    let mut clients: Vec<Watched> = Vec::new();
    for step in 0..400_u64 {
        let now = Instant::now();
        channels.tell_due(now).await;
        let count = clients.len();
        let channel = NAMES[random.random_range(0..NAMES.len())];
        match random.random_range(0..20) {
            0 | 1 if count < 6 => {
                let client = Memberships::new(channels.clone());
                let (copy, joined, owed) = (Copy::default(), BTreeMap::new(), BTreeMap::new());
                clients.push(Watched { client, copy, joined, owed });
            }
            2 if count > 0 => drop(clients.swap_remove(random.random_range(0..count))),
            3 => tokio::time::advance(Duration::from_millis(random.random_range(0..15))).await,
            _ if count == 0 => {}
            kind => {
                let at = random.random_range(0..count);
                act(&mut random, kind, step, channel, at, &mut clients);
            }
        }
    }
    // Until everything is told.
    for _ in 0..4 {
        for one in &mut clients {
            taken(&one.client).iter().for_each(|message| one.copy.hear(message));
        }
        tokio::time::advance(Duration::from_millis(20)).await;
        channels.tell_due(Instant::now()).await;
    }
    for one in &clients {
        for (channel, (_, _, sees)) in &one.joined {
            let shown = clients.iter().filter_map(|other| {
                let (name, state, _) = other.joined.get(channel)?;
                Some((name.clone(), state.clone()?))
            });
            let expected: BTreeMap<String, Value> = shown.collect();
            if *sees {
                assert_eq!(one.copy.members.get(channel), Some(&expected), "seed {seed}: {channel}");
            }
            let heard = one.copy.heard.get(channel).cloned().unwrap_or_default();
            assert!(heard.is_sorted(), "seed {seed}: {heard:?}");
            let dropped = one.copy.dropped.get(channel).copied().unwrap_or_default();
            let owed = one.owed.get(channel).copied().unwrap_or_default();
            assert_eq!(heard.len() as u64 + dropped, owed, "seed {seed}: {channel}");
        }
    }
}

fn act(random: &mut StdRng, kind: u32, step: u64, channel: &str, at: usize, clients: &mut [Watched]) {
    let one = &mut clients[at];
    match kind {
        4..8 if !one.client.has(channel) => {
            let state = random.random_bool(0.7).then(|| json!(step));
            let join = join_message(channel, state.as_ref());
            let joined = one.client.join(join, &ChannelRights::Everything, None).unwrap();
            one.joined.insert(channel.into(), (joined.member, state, true));
        }
        8 if one.client.has(channel) => {
            one.client.leave(channel).unwrap();
            one.left(channel);
        }
        9 if one.joined.get(channel).is_some_and(|(_, _, sees)| *sees) => {
            let state = random.random_bool(0.6).then(|| json!(step));
            one.client.set_state(channel, state.as_ref().map(raw)).unwrap();
            one.joined.get_mut(channel).unwrap().1 = state;
        }
        10 => {
            let (of, sees) = (some(random), some(random));
            for lost in one.client.change_rights(&rights(&of, &sees)) {
                one.left(&lost);
            }
            assert!(one.joined.keys().all(|channel| of.contains(channel.as_str())));
            for (channel, (_, state, may_see)) in &mut one.joined {
                *may_see = sees.contains(channel.as_str());
                if !*may_see {
                    *state = None;
                }
            }
        }
        11..14 => taken(&one.client).iter().for_each(|message| one.copy.hear(message)),
        _ if one.client.has(channel) => {
            let echo = random.random_bool(0.3);
            publish(&mut one.client, channel, &json!({"n": step, "text": "x".repeat(50)}), echo);
            for (other, watched) in clients.iter_mut().enumerate() {
                if watched.joined.contains_key(channel) && (other != at || echo) {
                    *watched.owed.entry(channel.to_owned()).or_default() += 1;
                }
            }
        }
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_everybody_knows_who_is_there_and_how_much_was_missed() {
    for seed in 0..60 {
        run(seed).await;
    }
}

#[test]
fn a_grant_of_everything_is_all_that_there_is() {
    assert_eq!(ChannelRights::Everything.of("any"), Some(ChannelGrant { publish: true, presence: true }));
}
