//! Keys that change while the daemon runs: whose tokens are let in from then on, and who stays.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, shared_cluster};

use crate::entrance::{connect, is_closed, is_welcome};
use crate::observer::{Socket, close_code, receive, send};

const FAILED: &str = "could not be loaded; the ones before stay in use";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// One that signs tokens, with a key of its own.
struct Signer {
    header: Header,
    key: EncodingKey,
    /// What walcast is given of it: a secret, or a public key in PEM.
    given: String,
}

impl Signer {
    fn with_secret(name: &str) -> Self {
        let given = format!("the secret of {name}, which is long enough for HS256");
        let key = EncodingKey::from_secret(given.as_bytes());
        Self { header: Header::new(Algorithm::HS256), key, given }
    }

    fn with_pair(name: Option<&str>) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key pair");
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a private key");
        let mut header = Header::new(Algorithm::ES256);
        header.kid = name.map(str::to_owned);
        Self { header, key, given: pair.public_key_pem() }
    }

    /// Of Ada, and good until then.
    fn token(&self, until: u64) -> String {
        let claims = json!({"sub": "ada", "exp": until});
        jsonwebtoken::encode(&self.header, &claims, &self.key).expect("a token")
    }

    fn key_set(&self) -> String {
        let key = DecodingKey::from_ec_pem(self.given.as_bytes()).expect("a public key");
        let mut jwk = Jwk::from_decoding_key(&key, Some(Algorithm::ES256)).expect("a key of a set");
        jwk.common.key_id.clone_from(&self.header.kid);
        serde_json::to_string(&JwkSet { keys: vec![jwk] }).expect("JSON")
    }
}

/// A server of HTTP that answers whoever asks with what was said last.
#[derive(Clone)]
struct KeyServer {
    port: u16,
    body: Arc<Mutex<String>>,
}

impl KeyServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Self { port, body: Arc::default() };
        let body = Arc::clone(&server.body);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.unwrap_or(0) > 0 {}
                let body = body.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                // Whoever has enough goes.
                let _ = socket.write_all(answer.as_bytes()).await;
                let _ = socket.shutdown().await;
            }
        });
        server
    }
}

/// Where the daemon has its keys from.
enum Place {
    File(PathBuf),
    Server(KeyServer),
}

impl Place {
    fn says(&self, text: &str) {
        match self {
            Self::File(path) => std::fs::write(path, text).expect("the keys are written"),
            Self::Server(server) => {
                text.clone_into(&mut server.body.lock().unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Server(server) => format!("http://127.0.0.1:{}/jwks.json", server.port),
        }
    }
}

/// Keys of one kind, and how the daemon is given them.
struct Kind {
    flag: &'static str,
    place: Place,
    signer: fn(&str) -> Signer,
    text: fn(&Signer) -> String,
    /// What cannot be used, and what the log says helps.
    broken: (&'static str, &'static str),
    /// A token of a key that is not known is enough to have the keys read again; otherwise the daemon is told.
    finds_out: bool,
}

async fn is_let_in(daemon: &Daemon, token: &str) -> bool {
    let mut socket = connect(&daemon.ws_url(), Some(token)).await;
    receive(&mut socket).await.is_some_and(|message| message["type"] == "welcome")
}

async fn row(socket: &mut Socket) -> Value {
    loop {
        let message = receive(socket).await.expect("the connection goes on");
        assert_ne!(message["type"], "error", "{message}");
        if message["type"] == "transaction" {
            return message["changes"][0]["row"]["id"].clone();
        }
    }
}

/// A connection that is sent what comes into the table.
async fn follower(daemon: &Daemon, token: &str) -> Socket {
    let mut socket = connect(&daemon.ws_url(), Some(token)).await;
    is_welcome(&mut socket).await;
    let tables = json!([{"table": "public.t"}]);
    send(&mut socket, json!({"type": "subscribe", "id": "t", "tables": tables, "cursor": "latest"})).await;
    while receive(&mut socket).await.expect("a message")["type"] != "caught_up" {}
    socket
}

async fn rotate(kind: Kind, folder: &tempfile::TempDir) {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
    let policies = folder.path().join("policies.toml");
    std::fs::write(&policies, "[[policy]]\nrole = \"*\"\ntable = \"*\"\n").expect("policies");
    let Kind { flag, place, signer, text, broken, finds_out } = kind;
    let (old, new, third) = (signer("old"), signer("new"), signer("third"));
    place.says(&text(&old));
    let daemon = Daemon::of(&database)
        .flag(flag, place.name())
        .flag("--policies", policies.display())
        .flag("--jwt-leeway", "1ms")
        .flag("--heartbeat", "200ms")
        .start()
        .await;
    let later = now() + 600;
    let mut follower = follower(&daemon, &old.token(later)).await;
    // One whose token ends soon, on a machine that may stand still, and after the keys are read again: for a key that is not
    // known, 10 s after the last time.
    let (mut brief, until) = loop {
        let until = now() + if finds_out { 15 } else { 5 };
        let mut socket = connect(&daemon.ws_url(), Some(&old.token(until))).await;
        if receive(&mut socket).await.is_some_and(|message| message["type"] == "welcome") {
            break (socket, until);
        }
    };
    assert!(!is_let_in(&daemon, &new.token(later)).await);

    place.says(&text(&new));
    if !finds_out {
        daemon.hang_up();
    }
    eventually("a token of the new key", LIMIT, async || {
        is_let_in(&daemon, &new.token(later)).await.then_some(())
    })
    .await;
    is_closed(&mut connect(&daemon.ws_url(), Some(&old.token(later))).await).await;

    // Who is there goes on until its own token ends, and not a moment less.
    database.run("INSERT INTO t VALUES (1)").await;
    assert_eq!(row(&mut follower).await, 1);
    assert_eq!(close_code(&mut brief).await, Some(4401));
    assert!(now() >= until, "it was sent away {} s before its token ended", until - now());
    send(&mut follower, json!({"type": "auth", "token": new.token(later)})).await;
    database.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(row(&mut follower).await, 2);

    // What cannot be used changes nothing, and the log says what helps.
    let (nonsense, helps) = broken;
    place.says(nonsense);
    daemon.hang_up();
    let line = daemon.until_log(FAILED).await;
    assert!(line.contains(helps) && line.contains(&place.name()) && line.contains("hint="), "{line}");
    assert!(daemon.metric("walcast_auth_key_failures_total").await.is_some_and(|count| count >= 1.0));
    assert!(is_let_in(&daemon, &new.token(later)).await);
    place.says(&text(&third));
    daemon.hang_up();
    eventually("a token of the third key", LIMIT, async || {
        is_let_in(&daemon, &third.token(later)).await.then_some(())
    })
    .await;
    let line = daemon.until_log("the keys for tokens were read again").await;
    assert!(line.contains(" INFO ") && line.contains(&place.name()), "{line}");
    is_closed(&mut connect(&daemon.ws_url(), Some(&new.token(later))).await).await;
    database.run("INSERT INTO t VALUES (3)").await;
    assert_eq!(row(&mut follower).await, 3);
    // A token of a key that is gone does not renew it either.
    send(&mut follower, json!({"type": "auth", "token": old.token(later)})).await;
    assert_eq!(close_code(&mut follower).await, Some(4401));
    daemon.assert_quiet(&[FAILED]);
}

fn file(folder: &tempfile::TempDir) -> Place {
    Place::File(folder.path().join("keys"))
}

const OF_FILE: &str = "then send SIGHUP";

#[tokio::test]
async fn another_secret_in_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let kind = Kind {
        flag: "--jwt-secret-file",
        place: file(&folder),
        signer: Signer::with_secret,
        text: |signer| format!("{}\n", signer.given),
        broken: ("short", OF_FILE),
        finds_out: false,
    };
    Box::pin(rotate(kind, &folder)).await;
}

#[tokio::test]
async fn another_public_key_in_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let kind = Kind {
        flag: "--jwt-pem-file",
        place: file(&folder),
        signer: |_| Signer::with_pair(None),
        text: |signer| signer.given.clone(),
        broken: ("-----BEGIN PUBLIC KEY-----\nhalf of", OF_FILE),
        finds_out: false,
    };
    Box::pin(rotate(kind, &folder)).await;
}

#[tokio::test]
async fn other_keys_in_a_file_of_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let kind = Kind {
        flag: "--jwt-jwks-file",
        place: file(&folder),
        signer: |name| Signer::with_pair(Some(name)),
        text: Signer::key_set,
        broken: ("{\"keys\": [", OF_FILE),
        finds_out: false,
    };
    Box::pin(rotate(kind, &folder)).await;
}

#[tokio::test]
async fn other_keys_at_a_url_are_found_by_the_first_token_of_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let kind = Kind {
        flag: "--jwt-jwks-url",
        place: Place::Server(KeyServer::start().await),
        signer: |name| Signer::with_pair(Some(name)),
        text: Signer::key_set,
        broken: ("{\"keys\": []}", "open the URL"),
        finds_out: true,
    };
    Box::pin(rotate(kind, &folder)).await;
}
