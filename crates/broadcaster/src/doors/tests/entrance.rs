//! Getting in, and attempts to.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use walcast_auth::{KeyRing, KeySource, Rules, Verifier};
use walcast_policy::Policies;
use walcast_protocol::{ErrorCode, ServerMessage};
use walcast_testkit::undisturbed;

use super::{Client, EntranceSettings, House, PATIENCE, http};
use crate::access::{Authority, Tokens};
use crate::limits::Limits;

const SECRET: &[u8] = b"a secret of tests that is long enough for HS256";

/// For how long this process may not run in tests of tokens that live for a moment, and of short patience.
pub(super) const STILL_MAX: Duration = Duration::from_millis(200);

pub(super) fn seconds(from_now: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + from_now
}

pub(super) fn token_by(secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).unwrap()
}

pub(super) fn token(claims: &Value) -> String {
    token_by(SECRET, claims)
}

fn good() -> String {
    token(&json!({"sub": "ada", "aud": "app", "exp": seconds(60)}))
}

pub(super) async fn by_token(anonymous_role: Option<&str>) -> EntranceSettings {
    by_token_with(anonymous_role, "").await.0
}

/// Beside it, what changes the policies.
pub(super) async fn by_token_with(
    anonymous_role: Option<&str>,
    policies: &str,
) -> (EntranceSettings, watch::Sender<Arc<Policies>>) {
    let keys = KeyRing::load(KeySource::Secret(SECRET.to_vec())).await.unwrap();
    let rules = Rules { audiences: vec!["app".to_owned()], leeway: Duration::ZERO, ..Rules::default() };
    let (sender, policies) = watch::channel(Arc::new(Policies::parse(policies).unwrap()));
    let tokens = Tokens {
        verifier: Verifier::new(keys, rules),
        policies,
        anonymous_role: anonymous_role.map(Arc::from),
    };
    (EntranceSettings { authority: Authority::Tokens(tokens), ..EntranceSettings::open() }, sender)
}

async fn connect(
    house: &House,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Client, SocketError> {
    let url = format!("ws://{}/v1/stream{query}", house.address);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    connect_async(request).await.map(|(socket, _)| Client { socket })
}

/// The HTTP status that a connection is refused with.
async fn status(house: &House, headers: &[(&'static str, &str)]) -> u16 {
    match connect(house, "", headers).await {
        Err(SocketError::Http(response)) => response.status().as_u16(),
        Ok(_) => 101,
        Err(error) => panic!("{error}"),
    }
}

async fn with_auth(house: &House, token: &str) -> Client {
    let mut client = connect(house, "", &[]).await.unwrap();
    let first = client.next().await;
    assert!(matches!(first, ServerMessage::AuthRequired(_)), "{first:?}");
    client.send(&json!({"type": "auth", "token": token}).to_string()).await;
    client
}

impl Client {
    /// Checks that the client is told that a token is wanted, and nothing of the feed.
    async fn is_asked(&mut self, auth_max: Duration) {
        let ServerMessage::AuthRequired(asked) = self.next().await else {
            panic!("something else came first")
        };
        assert_eq!(u128::from(asked.within_ms), auth_max.as_millis());
        assert!(asked.hint.is_some_and(|hint| hint.contains(r#"{"type":"auth""#)), "{}", asked.message);
    }

    /// Checks that the client is told one thing and nothing else: why it is closed.
    async fn is_closed(&mut self, code: &ErrorCode, close: u16) -> String {
        let ServerMessage::Error(error) = self.next().await else { panic!("something else came first") };
        assert!(error.fatal && error.code == *code, "{error:?}");
        match self.raw().await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), close),
            other => panic!("{other:?}"),
        }
        error.message
    }

    async fn is_unauthorized(&mut self) -> String {
        self.is_closed(&ErrorCode::Unauthorized, 4401).await
    }

    async fn is_welcome(&mut self) {
        let first = self.next().await;
        assert!(matches!(first, ServerMessage::Welcome(_)), "{first:?}");
    }

    /// The next heartbeat that is about a token.
    async fn expiry(&mut self) -> f64 {
        loop {
            if let ServerMessage::Heartbeat(heartbeat) = self.next().await
                && let Some(expires_at) = heartbeat.token_expires_at
            {
                return expires_at.seconds_since(heartbeat.time);
            }
        }
    }
}

#[tokio::test]
async fn a_token_comes_in_three_ways_and_its_expiry_is_told() {
    let house = House::behind(by_token(None).await, Limits::default(), 1 << 20).await;
    let token = good();
    let bearer = format!("Bearer {token}");
    let mut clients = [
        connect(&house, "", &[("authorization", &bearer)]).await.unwrap(),
        connect(&house, &format!("?token={token}"), &[]).await.unwrap(),
        with_auth(&house, &token).await,
    ];
    for client in &mut clients {
        client.is_welcome().await;
        let left = client.expiry().await;
        assert!((50.0..=61.0).contains(&left), "{left}");
    }
    drop(clients);
    house.close().await;
}

#[tokio::test]
async fn strangers_learn_why_they_are_closed_and_nothing_else() {
    let limits = Limits { auth_max: Duration::from_secs(60), ..Limits::default() };
    let house = House::behind(by_token(None).await, limits, 1 << 20).await;
    let claims = json!({"sub": "ada", "aud": "app", "exp": seconds(60)});
    let (_, payload) = good().split_once('.').map(|(head, rest)| (head.to_owned(), rest.to_owned())).unwrap();
    let payload = payload.split('.').next().unwrap().to_owned();
    // {"alg":"none","typ":"JWT"}
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    let bad = [
        ("signed", token_by(b"another secret of tests, also long enough", &claims)),
        ("signed", none),
        ("audience", token(&json!({"sub": "ada", "aud": "others", "exp": seconds(60)}))),
        ("aud", token(&json!({"sub": "ada", "exp": seconds(60)}))),
        ("expired", token(&json!({"sub": "ada", "aud": "app", "exp": seconds(-60)}))),
        ("exp", token(&json!({"sub": "ada", "aud": "app"}))),
        ("not a JSON", "nonsense".to_owned()),
        ("not a JSON", String::new()),
    ];
    for (why, token) in bad {
        let mut client = with_auth(&house, &token).await;
        let said = client.is_unauthorized().await;
        assert!(said.contains(why), "{said}");
        let bearer = format!("Bearer {token}");
        let mut client = connect(&house, "", &[("authorization", &bearer)]).await.unwrap();
        // What it sends meanwhile changes nothing.
        let _ = client
            .socket
            .send(Message::text(r#"{"type":"subscribe","id":"s","tables":[{"table":"*"}]}"#))
            .await;
        assert_eq!(client.is_unauthorized().await, said);
        let mut client = connect(&house, &format!("?token={token}"), &[]).await.unwrap();
        assert_eq!(client.is_unauthorized().await, said);
    }
    for early in [
        r#"{"type":"subscribe","id":"s","tables":[{"table":"*"}]}"#,
        r#"{"type":"unsubscribe","id":"s"}"#,
        "nonsense",
    ] {
        let mut client = connect(&house, "", &[]).await.unwrap();
        // At once, and once.
        client.is_asked(limits.auth_max).await;
        client.socket.send(Message::Ping(vec![1].into())).await.unwrap();
        assert!(matches!(client.raw().await, Message::Pong(_)));
        client.send(early).await;
        assert!(client.is_unauthorized().await.contains("before"), "{early}");
    }
    house.close().await;
}

#[tokio::test]
async fn whoever_sends_no_token_in_time_is_closed() {
    let limits = Limits {
        auth_max: Duration::from_millis(50),
        heartbeat: Duration::from_millis(10),
        ..Limits::default()
    };
    let house = House::behind(by_token(None).await, limits, 1 << 20).await;
    let mut client = connect(&house, "", &[]).await.unwrap();
    client.is_asked(limits.auth_max).await;
    assert!(client.is_unauthorized().await.contains("auth_max"));
    let mut waiting = connect(&house, "", &[]).await.unwrap();
    house.shutdown.cancel();
    assert!([1001, 4401].contains(&waiting.close_code().await));
    house.close().await;
}

#[tokio::test]
async fn a_token_that_expires_meanwhile_ends_the_connection_unless_another_one_comes() {
    undisturbed(STILL_MAX, tokens_expire).await;
}

async fn tokens_expire() {
    let limits = Limits { heartbeat: Duration::from_millis(50), ..Limits::default() };
    let house = House::behind(by_token(None).await, limits, 1 << 20).await;
    let soon = || token(&json!({"sub": "ada", "aud": "app", "exp": seconds(3)}));
    let (mut silent, mut lively) = (with_auth(&house, &soon()).await, with_auth(&house, &soon()).await);
    lively.is_welcome().await;
    assert!(lively.expiry().await < 4.0);
    lively.send(&json!({"type": "auth", "token": good()}).to_string()).await;
    while lively.expiry().await < 30.0 {}
    silent.is_welcome().await;
    assert_eq!(silent.close_code().await, 4401);
    // It was let in as long, and is still there.
    assert!(lively.expiry().await > 30.0);
    house.close().await;
}

#[tokio::test]
async fn another_token_has_to_be_good_and_of_the_same_subject() {
    let house = House::behind(by_token(None).await, Limits::default(), 1 << 20).await;
    let others = [
        token(&json!({"sub": "bob", "aud": "app", "exp": seconds(60)})),
        token(&json!({"aud": "app", "exp": seconds(60)})),
        token(&json!({"sub": "ada", "aud": "app", "exp": seconds(-1)})),
        "nonsense".to_owned(),
    ];
    for other in others {
        let mut client = with_auth(&house, &good()).await;
        client.is_welcome().await;
        client.expiry().await;
        assert!(matches!(client.next().await, ServerMessage::Status(_)));
        client.send(&json!({"type": "auth", "token": other}).to_string()).await;
        client.is_unauthorized().await;
    }
    house.close().await;
}

#[tokio::test]
async fn the_anonymous_come_in_and_may_say_later_who_they_are() {
    let limits = Limits { connections_per_user_max: 1, ..Limits::default() };
    let house = House::behind(by_token(Some("guest")).await, limits, 1 << 20).await;
    let mut client = connect(&house, "", &[]).await.unwrap();
    client.is_welcome().await;
    assert!(matches!(client.next().await, ServerMessage::Status(_)));
    client.send(&json!({"type": "auth", "token": good()}).to_string()).await;
    assert!(client.expiry().await > 30.0);
    // It counts as that user's from now on.
    let mut second = connect(&house, "", &[]).await.unwrap();
    second.send(&json!({"type": "auth", "token": good()}).to_string()).await;
    second.is_welcome().await;
    loop {
        if let ServerMessage::Error(error) = second.next().await {
            assert_eq!(error.code, ErrorCode::LimitExceeded);
            break;
        }
    }
    // A wrong token makes nobody anonymous.
    let mut wrong = connect(&house, "?token=nonsense", &[]).await.unwrap();
    wrong.is_unauthorized().await;
    house.close().await;
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    let limits = Limits { connections_per_user_max: 1, ..Limits::default() };
    let house = House::behind(by_token(None).await, limits, 1 << 20).await;
    let mut first = with_auth(&house, &good()).await;
    first.is_welcome().await;
    let said = with_auth(&house, &good()).await.is_closed(&ErrorCode::LimitExceeded, 1008).await;
    assert!(said.contains("connections_per_user_max"), "{said}");
    let bob = token(&json!({"sub": "bob", "aud": "app", "exp": seconds(60)}));
    with_auth(&house, &bob).await.is_welcome().await;
    first.socket.close(None).await.unwrap();
    // It is gone when its close was answered, or a moment after.
    while timeout(PATIENCE, first.socket.next()).await.unwrap().is_some() {}
    loop {
        let mut next = with_auth(&house, &good()).await;
        if matches!(next.next().await, ServerMessage::Welcome(_)) {
            break;
        }
    }
    house.close().await;
}

#[tokio::test]
async fn a_page_of_another_site_may_not_connect() {
    let entrance = EntranceSettings {
        allowed_origins: vec!["https://app.example".to_owned()],
        ..EntranceSettings::open()
    };
    let house = House::behind(entrance, Limits::default(), 1 << 20).await;
    let own = format!("http://{}", house.address);
    for origin in ["https://app.example", &own] {
        assert_eq!(status(&house, &[("origin", origin)]).await, 101, "{origin}");
    }
    for origin in ["https://evil.example", "null", "http://localhost"] {
        assert_eq!(status(&house, &[("origin", origin)]).await, 403, "{origin}");
    }
    house.close().await;
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_whatever_it_says_it_is() {
    let limits = Limits { connections_per_address_max: 2, ..Limits::default() };
    let from = |address: &'static str| [("x-forwarded-for", address)];
    let house = House::behind(EntranceSettings::open(), limits, 1 << 20).await;
    let _two = [
        connect(&house, "", &from("1.1.1.1")).await.unwrap(),
        connect(&house, "", &from("2.2.2.2")).await.unwrap(),
    ];
    assert_eq!(status(&house, &from("3.3.3.3")).await, 429);
    house.close().await;
    let entrance = EntranceSettings {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..EntranceSettings::open()
    };
    let house = House::behind(entrance, limits, 1 << 20).await;
    let _four = [
        connect(&house, "", &from("1.1.1.1")).await.unwrap(),
        connect(&house, "", &from("1.1.1.1")).await.unwrap(),
        connect(&house, "", &from("1.1.1.1, 2.2.2.2")).await.unwrap(),
        connect(&house, "", &from("9.9.9.9, 2.2.2.2")).await.unwrap(),
    ];
    assert_eq!(status(&house, &from("1.1.1.1")).await, 429);
    assert_eq!(status(&house, &from("8.8.8.8, 2.2.2.2")).await, 429);
    assert_eq!(status(&house, &from("3.3.3.3")).await, 101);
    house.close().await;
}

#[tokio::test]
async fn whoever_talks_too_fast_is_read_later() {
    let limits = Limits { subscriptions_max: 2, subscribes_per_second_max: 10, ..Limits::default() };
    let house = House::open(limits, 1 << 20).await;
    let mut client = house.client().await;
    let begun = Instant::now();
    for n in 0..5 {
        client.subscribe(&format!("s{n}"), r#""tables":[]"#).await;
    }
    for _ in 0..5 {
        assert_eq!(client.error().await, ErrorCode::BadMessage);
    }
    // Two at once, one on credit, and two that were waited for.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    house.close().await;
}

#[tokio::test]
async fn a_connection_without_a_subscription_ends() {
    undisturbed(STILL_MAX, idle_connections_end).await;
}

async fn idle_connections_end() {
    let house =
        House::open(Limits { idle_max: Duration::from_millis(700), ..Limits::default() }, 1 << 20).await;
    house.gate.open();
    let (mut idle, mut busy) = (house.client().await, house.client().await);
    busy.subscribe("s", r#""tables":[{"table":"public.a"}],"cursor":"latest""#).await;
    assert_eq!(busy.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    assert_eq!(idle.close_code().await, 1001);
    busy.send(r#"{"type":"unsubscribe","id":"s"}"#).await;
    assert_eq!(busy.close_code().await, 1001);
    house.close().await;
}

#[tokio::test]
async fn initial_syncs_are_served_in_turn_and_told_their_place() {
    let limits = Limits { snapshots_max: 1, heartbeat: Duration::from_millis(50), ..Limits::default() };
    let house = House::open(limits, 1 << 20).await;
    house.gate.open();
    let (mut greedy, mut modest) = (house.client().await, house.client().await);
    let all = r#""tables":[{"table":"public.a"}]"#;
    async fn until_waiting(client: &mut Client, id: &str, place: u32) {
        loop {
            if let ServerMessage::Waiting(waiting) = client.next().await
                && (waiting.id.as_str(), waiting.position) == (id, Some(place))
            {
                return;
            }
        }
    }
    greedy.subscribe("one", all).await;
    greedy.subscribe("two", all).await;
    until_waiting(&mut greedy, "two", 1).await;
    greedy.subscribe("three", all).await;
    until_waiting(&mut greedy, "three", 2).await;
    // Who has none comes before who has one, and the others hear of it.
    modest.subscribe("m", all).await;
    until_waiting(&mut modest, "m", 1).await;
    until_waiting(&mut greedy, "three", 3).await;
    greedy.send(r#"{"type":"unsubscribe","id":"one"}"#).await;
    // The place that this gives is not greedy's.
    until_waiting(&mut greedy, "three", 2).await;
    modest.send(r#"{"type":"unsubscribe","id":"m"}"#).await;
    until_waiting(&mut greedy, "three", 1).await;
    house.close().await;
}

#[tokio::test]
async fn strangers_are_not_told_how_the_daemon_is_doing() {
    let house = House::behind(by_token(None).await, Limits::default(), 1 << 20).await;
    let get =
        |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}Connection: close\r\n\r\n");
    let own = http(house.address, &get("/readyz", "")).await;
    assert!(own.contains("initial poll"), "{own}");
    assert!(http(house.address, &get("/metrics", "")).await.starts_with("HTTP/1.1 404"));
    for sign in ["X-Forwarded-For: 127.0.0.1\r\n", "Via: 1.1 proxy\r\n", "X-Real-IP: ::1\r\n"] {
        let ready = http(house.address, &get("/readyz", sign)).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.ends_with(r#"{"ready":false}"#), "{ready}");
        assert!(http(house.address, &get("/metrics", sign)).await.starts_with("HTTP/1.1 403"));
    }
    house.close().await;
}
