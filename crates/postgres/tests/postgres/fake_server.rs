//! Servers that do not behave, played by a few bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use walcast_postgres::Error;

use crate::refused;

/// Listens for one connection, reads one packet and answers with `answer`.
async fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut packet = [0; 1024];
            let _ = stream.read(&mut packet).await;
            let _ = stream.write_all(answer).await;
            // Stays open until the other side has had enough.
            let _ = stream.read(&mut packet).await;
        }
    });
    port
}

#[tokio::test]
async fn plain_bytes_behind_the_answer_to_the_tls_request_end_the_connection() {
    // What somebody in between would have the client take for an answer of the server: "you are in".
    let port = server(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
    let error = refused(&format!("postgres://me@127.0.0.1:{port}/d?sslmode=require")).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_not_good_enough_when_tls_is_required() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let port = server(b"N").await;
        let text = format!("postgres://me@127.0.0.1:{port}/d?sslmode={mode}&sslrootcert=/nonexistent");
        let error = refused(&text).await;
        assert!(error.to_string().contains("does not offer it"), "{mode}: {error}");
    }
}

#[tokio::test]
async fn something_else_than_postgres_is_recognised() {
    for answer in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b"R\x7f\xff\xff\xff", b"R\0\0\0\x01"] {
        let port = server(answer).await;
        let error = refused(&format!("postgres://me@127.0.0.1:{port}/d?sslmode=disable")).await;
        assert!(matches!(&error, Error::Protocol(_) | Error::NoHost(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_in_the_form_of_protocol_2_is_passed_on() {
    let port = server(b"Ecould not fork new process for connection: no memory\n\0").await;
    let error = refused(&format!("postgres://me@127.0.0.1:{port}/d?sslmode=disable")).await;
    assert!(error.to_string().contains("could not fork"), "{error}");
}
