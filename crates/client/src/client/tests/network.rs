//! The client over real sockets: addresses, HTTP, TLS.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{Peer, item, next, play};
use crate::{Backoff, Client, ClientBuilder, ErrorKind, Event};

async fn listen() -> (TcpListener, ClientBuilder) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let backoff = Backoff { base: Duration::from_millis(1), ..Backoff::default() };
    (listener, Client::builder(&url).backoff(backoff))
}

#[tokio::test]
async fn a_connection_is_made_over_tcp() {
    let (listener, builder) = listen().await;
    let script = play(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::over(stream).await;
        peer.welcome().await;
        peer.message().await;
    });
    let mut client = builder.build().unwrap();
    assert!(matches!(next(&mut client).await, Event::Connected(_)));
    client.close().await;
    script.await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_and_tried_again() {
    // A port of which nobody else in this run can be given one that listens.
    let address = "127.0.0.1:1";
    let backoff = Backoff { base: Duration::from_millis(1), ..Backoff::default() };
    let builder = Client::builder(&format!("ws://{address}")).backoff(backoff);
    let mut client = builder.token("secret").build().unwrap();
    for expected in 1..=3 {
        let Event::Reconnecting { reason, attempt, delay, reached, answered } = next(&mut client).await
        else {
            panic!()
        };
        assert!(reason.starts_with(&format!("no connection to {address}: ")), "{reason}");
        assert_eq!((attempt, reached, answered), (expected, false, false));
        assert!(delay <= Duration::from_millis(1 << (expected - 1)), "{delay:?}");
    }
}

/// Answers the first connection with `answer` once a request has come, and closes it.
fn answer(listener: TcpListener, answer: &[u8]) -> tokio::task::JoinHandle<()> {
    let answer = answer.to_vec();
    play(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // As far as it comes at once: a TLS handshake has no end that could be looked for.
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(&answer).await.unwrap();
        stream.shutdown().await.unwrap();
    })
}

#[tokio::test]
async fn http_answers_that_may_pass_are_retried_and_others_end_the_client() {
    let json =
        r#"{"code":"not_found","message":"there is nothing at this path","hint":"there is /v1/stream"}"#;
    let answers = [
        ("503 Service Unavailable", "", "why!", None, "503 Service Unavailable: it says \"why!\""),
        ("401 Unauthorized", "", "", Some(ErrorKind::Unauthorized), "(401 Unauthorized)"),
        (
            "404 Not Found",
            "server: nginx/1.25\r\ncontent-type: text/html\r\n",
            "<html><head>",
            Some(ErrorKind::Protocol),
            "/v1/stream is no walcast, or another path of its server (404 Not Found): the server is nginx/1.25",
        ),
        (
            "404 Not Found",
            "",
            json,
            Some(ErrorKind::Protocol),
            "there is nothing at this path; there is /v1/stream",
        ),
        ("200 OK", "", "hello\nyou", Some(ErrorKind::Protocol), "(200 OK): it says \"hello\""),
        (
            "301 Moved Permanently",
            "location: https://feed.example.org/v1/stream?token=secret\r\n",
            "",
            Some(ErrorKind::Protocol),
            "it sends elsewhere to https://feed.example.org:443/v1/stream (301",
        ),
    ];
    for (status, headers, body, kind, words) in answers {
        let (listener, builder) = listen().await;
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}connection: close\r\n\r\n{body}"
        );
        let script = answer(listener, text.as_bytes());
        let mut client = builder.build().unwrap();
        match (item(&mut client).await.unwrap(), kind) {
            (Ok(Event::Reconnecting { reason, attempt: 1, .. }), None) => {
                assert!(reason.contains(words), "{reason}")
            }
            (Err(error), Some(kind)) => {
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(words), "{error}");
            }
            other => panic!("{status}: {other:?}"),
        }
        script.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_walcast_is_said_to_be_none_and_what_it_is() {
    // A TLS alert, as a server of TLS answers a request in plain text.
    let alert = [0x15, 3, 1, 0, 2, 2, 40];
    for (scheme, said, words) in [
        (
            "ws",
            b"SSH-2.0-OpenSSH_9.6\r\n".as_slice(),
            "does not speak HTTP, so it is no walcast: it says \"SSH-2.0-OpenSSH_9.6\"",
        ),
        ("ws", alert.as_slice(), "speaks TLS; write wss://"),
        ("wss", b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "does not speak TLS; write ws://"),
    ] {
        let (listener, _) = listen().await;
        let url = format!("{scheme}://{}/v1/stream?token=secret", listener.local_addr().unwrap());
        let script = answer(listener, said);
        let roots = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ));
        let roots = roots.with_safe_default_protocol_versions().unwrap();
        let config = roots.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let mut client = Client::builder(&url).tls_config(Arc::new(config)).build().unwrap();
        let error = item(&mut client).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(error.to_string().contains(words) && !error.to_string().contains("secret"), "{error}");
        script.await.unwrap();
    }
    // As a Postgres does, which takes the request for the length of a message.
    let (listener, builder) = listen().await;
    let script = answer(listener, b"");
    let mut client = builder.build().unwrap();
    let Event::Reconnecting { reason, .. } = next(&mut client).await else { panic!() };
    assert!(reason.contains("closes it without an answer"), "{reason}");
    script.await.unwrap();
}

#[tokio::test]
async fn wss_checks_the_certificate() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://localhost:{}", listener.local_addr().unwrap().port());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let script = play(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err(), "the client does not know the certificate");
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Peer::over(acceptor.accept(stream).await.unwrap()).await;
        peer.welcome().await;
        peer.message().await;
    });
    let config = |roots| {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    };
    let mut stranger =
        Client::builder(&url).tls_config(config(rustls::RootCertStore::empty())).build().unwrap();
    let Event::Reconnecting { reason, .. } = next(&mut stranger).await else { panic!() };
    assert!(reason.contains("certificate"), "{reason}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let mut client = Client::builder(&url).tls_config(config(roots)).build().unwrap();
    assert!(matches!(next(&mut client).await, Event::Connected(_)));
    client.close().await;
    script.await.unwrap();
}
