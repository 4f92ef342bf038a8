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
    let (listener, builder) = listen().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut client = builder.token("secret").build().unwrap();
    for expected in 1..=3 {
        let Event::Reconnecting { reason, attempt, delay } = next(&mut client).await else { panic!() };
        assert!(reason.starts_with(&format!("no connection to {address}: ")), "{reason}");
        assert_eq!(attempt, expected);
        assert!(delay <= Duration::from_millis(1 << (expected - 1)), "{delay:?}");
    }
}

#[tokio::test]
async fn http_answers_that_may_pass_are_retried_and_others_end_the_client() {
    let answers = [
        ("503 Service Unavailable", None),
        ("401 Unauthorized", Some(ErrorKind::Unauthorized)),
        ("404 Not Found", Some(ErrorKind::Protocol)),
        ("200 OK", Some(ErrorKind::Protocol)),
    ];
    for (status, kind) in answers {
        let (listener, builder) = listen().await;
        let script = play(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwhy!");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let mut client = builder.build().unwrap();
        match (item(&mut client).await.unwrap(), kind) {
            (Ok(Event::Reconnecting { reason, attempt: 1, .. }), None) => {
                assert!(reason.contains("503"), "{reason}")
            }
            (Err(error), Some(kind)) => assert_eq!(error.kind(), kind, "{error}"),
            other => panic!("{status}: {other:?}"),
        }
        script.await.unwrap();
    }
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
