//! Where clients connect: TLS, Unix sockets, a listener for operators.

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::sync::CancellationToken;
use walcast_protocol::ServerMessage;

use super::entrance::by_token;
use super::{EntranceSettings, House, Listener, PATIENCE, http, inserts};
use crate::doors::{CertificateError, ServerTls, serve_unprepared};
use crate::limits::Limits;

/// Writes a fresh certificate for `localhost`; how a client trusts it alone.
fn certify(folder: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    // A session that is resumed shows no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn said<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> ServerMessage {
    let message = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    ServerMessage::decode(message.to_text().unwrap()).unwrap()
}

#[tokio::test]
async fn everything_comes_through_tls_whole_and_a_renewed_certificate_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let paths = || (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let connector = certify(folder.path());
    let tls = ServerTls::load(paths().0, paths().1).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Listener::from(listener).with_tls(Arc::clone(&tls));
    let mut house =
        House::at(vec![listener], address, EntranceSettings::open(), Limits::default(), 16 << 20).await;
    house.gate.open();
    let connect = |connector: TlsConnector| async move {
        let socket = TcpStream::connect(address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), socket).await
    };
    let url = format!("wss://{address}/v1/stream");
    let (mut socket, _) = client_async(&url, connect(connector.clone()).await.unwrap()).await.unwrap();
    assert!(matches!(said(&mut socket).await, ServerMessage::Welcome(_)));
    let all = r#"{"type":"subscribe","id":"s","tables":[{"table":"*"}],"cursor":"latest"}"#;
    futures_util::SinkExt::send(&mut socket, Message::text(all)).await.unwrap();
    while !matches!(said(&mut socket).await, ServerMessage::CaughtUp(_)) {}
    // More than the buffers of TLS and of the kernel take at once.
    let wide: Vec<String> = (0..2000).map(|n| format!("column_number_{n}_with_a_long_name")).collect();
    let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
    let count = 60;
    for n in 0..count {
        house.append(inserts(n + 1, 1, &wide)).await;
    }
    let mut seen = 0;
    while seen < count {
        seen += u64::from(matches!(said(&mut socket).await, ServerMessage::Transaction(_)));
    }
    // Plain HTTP is not answered here.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    let cancel = CancellationToken::new();
    let renewing = tokio::spawn({
        let (tls, cancel) = (Arc::clone(&tls), cancel.clone());
        async move { tls.renew(cancel).await }
    });
    // A key without its certificate is not taken.
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    std::fs::copy(other.path().join("key.pem"), paths().1).unwrap();
    tls.reload();
    assert!(connect(connector.clone()).await.is_ok());
    let renewed = certify(folder.path());
    tls.reload();
    let retry = async { while connect(renewed.clone()).await.is_err() {} };
    timeout(PATIENCE, retry).await.unwrap();
    assert!(connect(connector).await.is_err());
    cancel.cancel();
    renewing.await.unwrap();
    drop(socket);
    house.close().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let load = |cert: &Path, key: &Path| ServerTls::load(cert.to_owned(), key.to_owned());
    assert!(matches!(load(&cert, &key).await, Err(CertificateError::File { path, .. }) if path == cert));
    certify(folder.path());
    assert!(matches!(load(&key, &key).await, Err(CertificateError::NoCertificate { .. })));
    assert!(matches!(load(&cert, &cert).await, Err(CertificateError::NoKey { .. })));
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    let mismatch = load(&cert, &other.path().join("key.pem")).await;
    assert!(matches!(mismatch, Err(CertificateError::Mismatch { .. })), "{mismatch:?}");
}

#[tokio::test]
async fn clients_connect_over_a_unix_socket_and_operators_have_a_door_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walcast.sock");
    let clients = UnixListener::bind(&path).unwrap();
    let operators = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = operators.local_addr().unwrap();
    let listeners = vec![Listener::from(clients), Listener::from(operators).for_admin()];
    let house =
        House::at(listeners, address, by_token(Some("guest")).await, Limits::default(), 1 << 20).await;
    let socket = UnixStream::connect(&path).await.unwrap();
    let (mut socket, _) = client_async("ws://localhost/v1/stream", socket).await.unwrap();
    assert!(matches!(said(&mut socket).await, ServerMessage::Welcome(_)));
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nVia: x\r\nConnection: close\r\n\r\n");
    assert!(http(address, &get("/readyz")).await.contains("initial poll"));
    assert!(http(address, &get("/v1/stream")).await.starts_with("HTTP/1.1 404"));
    // The other door says nothing then, not even to its own machine.
    let mut own = UnixStream::connect(&path).await.unwrap();
    own.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, own.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with(r#"{"ready":false}"#), "{answer}");
    drop(socket);
    house.close().await;
}

#[tokio::test]
async fn a_daemon_that_is_not_set_up_says_so_and_when_to_come_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listeners = vec![Listener::from(listener)];
    let asked = http(address, "GET /v1/changes HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = tokio::select! {
        ended = serve_unprepared(&listeners) => panic!("{ended:?}"),
        answer = asked => answer,
    };
    for part in [
        "HTTP/1.1 503",
        "retry-after: 5",
        "not_ready",
        "it waits for its databases",
        "ask again after a few seconds",
    ] {
        assert!(answer.contains(part), "{part} is not in {answer}");
    }
}
