//! Who is let in: tokens, certificates, sockets, and an address that others reach only on purpose.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{client_async, connect_async};
use walcast_client::{Client, ErrorKind, Event};
use walcast_testkit::{Daemon, LIMIT, TestDatabase, eventually, program, shared_cluster, within};

use crate::observer::{Socket, close_code, open, receive, send};
pub(crate) use crate::rights::SECRET;
use crate::rights::signed;
use crate::upkeep::walcast;

pub(crate) fn token(subject: &str, seconds: u64) -> String {
    signed(json!({"sub": subject}), seconds)
}

pub(crate) async fn connect(url: &str, bearer: Option<&str>) -> Socket {
    let mut request = url.into_client_request().expect("a URL");
    if let Some(token) = bearer {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    }
    connect_async(request).await.expect("the upgrade").0
}

async fn first(socket: &mut Socket) -> Value {
    receive(socket).await.expect("a message")
}

pub(crate) async fn is_welcome(socket: &mut Socket) {
    let message = first(socket).await;
    assert_eq!(message["type"], "welcome", "{message}");
}

/// Who brings no token is asked for one, at once.
async fn is_asked(socket: &mut Socket) {
    let message = first(socket).await;
    assert_eq!(message["type"], "auth_required", "{message}");
}

pub(crate) async fn is_closed(socket: &mut Socket) -> Value {
    let message = first(socket).await;
    assert_eq!((&message["code"], &message["fatal"]), (&json!("unauthorized"), &json!(true)), "{message}");
    assert_eq!(close_code(socket).await, Some(4401));
    message
}

/// `walcast tail` at this daemon, to its end.
async fn tail(daemon: &Daemon, more: &[&str]) -> (Option<i32>, String) {
    let run = tokio::process::Command::new(program())
        .args(["tail", "--url", &daemon.ws_url()])
        .args(more)
        .env_remove("WALCAST_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("tail", LIMIT, run).await.expect("tail runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn tokens_let_in_until_they_expire_and_nothing_else_does() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let daemon = Daemon::of(&database)
        .flag("--jwt-secret-file", secret.display())
        .flag("--jwt-leeway", "1ms")
        .flag("--heartbeat", "200ms")
        .start()
        .await;
    let (url, good) = (daemon.ws_url(), token("ada", 300));
    is_welcome(&mut connect(&url, Some(&good)).await).await;
    is_welcome(&mut connect(&format!("{url}?token={good}"), None).await).await;
    let mut later = connect(&url, None).await;
    is_asked(&mut later).await;
    send(&mut later, json!({"type": "auth", "token": good})).await;
    is_welcome(&mut later).await;

    is_closed(&mut connect(&url, Some("nonsense")).await).await;
    let mut early = connect(&url, None).await;
    is_asked(&mut early).await;
    send(&mut early, json!({"type": "subscribe", "id": "s", "tables": [{"table": "*"}]})).await;
    is_closed(&mut early).await;

    // Until one comes in time, on a machine that may stand still.
    let mut short = loop {
        let mut short = connect(&url, Some(&token("ada", 2))).await;
        if first(&mut short).await["type"] == "welcome" {
            break short;
        }
    };
    let told = loop {
        let message = first(&mut short).await;
        if message["type"] == "error" {
            break message;
        }
        assert!(message["type"] != "heartbeat" || message["token_expires_at"].is_string(), "{message}");
    };
    assert_eq!(told["code"], "unauthorized", "{told}");
    assert_eq!(close_code(&mut short).await, Some(4401));

    // The SDK takes another token before the last one expires, and stays; but for moments in which nothing runs.
    let source = || std::future::ready(Ok(token("ada", 3)));
    let mut client = Client::builder(&url).token_from(source).build().unwrap();
    let mut expiries = std::collections::BTreeSet::new();
    let stays = async {
        while expiries.len() < 3 {
            match client.next().await.unwrap().unwrap() {
                Event::Heartbeat(heartbeat) => drop(expiries.insert(heartbeat.token_expires_at.unwrap())),
                Event::Reconnecting { .. } => expiries.clear(),
                _ => {}
            }
        }
    };
    within("three tokens on one connection", LIMIT, stays).await;
    let mut client = Client::builder(&url).token("nonsense").build().unwrap();
    let error = within("an event", LIMIT, client.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let (code, said) = tail(&daemon, &[]).await;
    assert!(code == Some(1) && said.contains("without a token"), "{code:?} {said}");
    let (code, said) = tail(&daemon, &["--token", "nonsense"]).await;
    assert!(code == Some(1) && said.contains("does not take this token: "), "{code:?} {said}");
    daemon.assert_quiet(&["there are no policies"]);
}

#[tokio::test]
async fn who_is_asked_for_a_token_and_says_nothing_is_sent_away() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).flag("--jwt-secret", SECRET).flag("--auth-max", "200ms").start().await;
    let mut silent = connect(&daemon.ws_url(), None).await;
    is_asked(&mut silent).await;
    is_closed(&mut silent).await;
}

#[tokio::test]
async fn tail_without_a_token_says_at_once_how_to_give_one() {
    let database = TestDatabase::create(shared_cluster().await).await;
    // Longer than anybody waits: it is not the daemon's patience that ends it.
    let daemon = Daemon::of(&database).flag("--jwt-secret", SECRET).flag("--auth-max", "1h").start().await;
    let (code, said) = tail(&daemon, &[]).await;
    let expected = "walcast: the daemon serves nobody without a token\nhint: give it with --token, with --token-file, or in WALCAST_TOKEN\n";
    assert_eq!((code, said.as_str()), (Some(1), expected));
}

#[tokio::test]
async fn a_postgres_is_no_walcast_and_said_to_hang_up() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let host = database.url().split(['@', '/']).find(|piece| piece.contains(':') && !piece.ends_with(':'));
    let url = format!("ws://{}", host.expect("a host with its port"));
    let mut client = Client::builder(&url).build().expect("a client");
    let event = within("an event", LIMIT, client.next()).await.expect("an event").expect("it goes on");
    let Event::Reconnecting { reason, .. } = event else { panic!("{event:?}") };
    assert!(reason.contains("closes it without an answer"), "{reason}");
}

#[tokio::test]
async fn others_are_let_in_only_on_purpose() {
    let address = "0.0.0.0:0";
    let mut daemon = Daemon::builder()
        .flag("--listen", address)
        .flag("--database-url", "postgresql://u@127.0.0.1:1/d")
        .spawn();
    assert_eq!(daemon.until_exit().await.code(), Some(2));
    let log = daemon.log().join("\n");
    assert!(log.contains(address) && log.contains("insecure"), "{log}");
    // On purpose, it is only said once.
    let mut daemon = Daemon::builder()
        .flag("--listen", address)
        .flag("--database-url", "postgresql://u@127.0.0.1:1/d")
        .arg("--insecure")
        .spawn();
    daemon.until_log("whoever reaches the port").await;
    daemon.until_log("listening on ws://0.0.0.0").await;
    daemon.terminate().await;
}

/// Writes a fresh certificate for this machine; how a client trusts it alone.
pub(crate) fn certify(folder: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("the key is written");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("the certificate is written");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn tls_goes_on_with_a_renewed_certificate() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().unwrap();
    let trusts = certify(folder.path());
    let daemon = Daemon::of(&database)
        .flag("--tls-cert-file", folder.path().join("cert.pem").display())
        .flag("--tls-key-file", folder.path().join("key.pem").display())
        .admin()
        .start()
        .await;
    let url = format!("wss://127.0.0.1:{}", daemon.port());
    let connects = async |trusts: &Arc<ClientConfig>| {
        let mut client = Client::builder(&url).tls_config(Arc::clone(trusts)).build().unwrap();
        let event = within("an event", LIMIT, client.next()).await.unwrap().unwrap();
        client.close().await;
        matches!(event, Event::Connected(_))
    };
    assert!(connects(&trusts).await);
    // Who asks how it is does not know the certificate, nor the name in it.
    let address = format!("127.0.0.1:{}", daemon.port());
    let status = walcast(&database, &["status", "--human", "--daemon", &address]);
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && said.starts_with("state         serving\n"), "{said}");
    let renewed = certify(folder.path());
    daemon.hang_up();
    eventually("the new certificate", LIMIT, async || connects(&renewed).await.then_some(())).await;
    // Fresh settings, so that no session is resumed.
    let mut old = (*trusts).clone();
    old.resumption = rustls::client::Resumption::disabled();
    assert!(!connects(&Arc::new(old)).await);
    assert!(daemon.get("/metrics").await.is_some_and(|answer| answer.status == 200));
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn clients_come_over_a_unix_socket_also_after_one_was_left_behind() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walcast.sock");
    let mut daemon =
        Daemon::of(&database).flag("--listen", format!("unix:{}", path.display())).admin().start().await;
    let welcome = async || {
        let stream = UnixStream::connect(&path).await.unwrap();
        let (mut socket, _) = client_async("ws://localhost/v1/stream", stream).await.unwrap();
        let message = within("welcome", LIMIT, futures_util::StreamExt::next(&mut socket)).await;
        message.unwrap().unwrap().into_text().unwrap().contains("welcome")
    };
    assert!(welcome().await);
    daemon.kill9().await;
    assert!(path.exists());
    daemon.restart().await;
    assert!(welcome().await);
    daemon.terminate().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_page_of_another_site_gets_no_connection() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let daemon = Daemon::of(&database).start().await;
    let mut request = daemon.ws_url().into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let refused = connect_async(request).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    open(&daemon.ws_url()).await;
}
