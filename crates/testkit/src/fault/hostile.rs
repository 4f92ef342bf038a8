//! A client that sends what no client sends.

use std::net::Ipv4Addr;
use std::time::Duration;

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::oracle::Socket;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Sends for about `time`; whatever the daemon answers is not read.
pub(super) async fn send(port: u16, seed: u64, time: Duration) {
    let mut random = StdRng::seed_from_u64(seed);
    let _elapsed = timeout(time, async {
        loop {
            if random.random_bool(0.5) {
                raw(port, &mut random).await;
            } else {
                frames(port, &mut random).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Bytes that are no HTTP, half a handshake, or a handshake and then no frames.
async fn raw(port: u16, random: &mut StdRng) {
    let Ok(Ok(mut stream)) = timeout(CONNECT_MAX, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await
    else {
        return;
    };
    const HANDSHAKE: &str = "GET /v1/stream HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut noise = vec![0; random.random_range(1..5000)];
    random.fill(&mut noise[..]);
    let bytes = match random.random_range(0..4) {
        0 => noise,
        1 => HANDSHAKE.as_bytes()[..random.random_range(1..HANDSHAKE.len())].to_vec(),
        2 => [HANDSHAKE.as_bytes(), &noise].concat(),
        // A frame that says it is of 2^63 - 1 bytes.
        _ => {
            [HANDSHAKE.as_bytes(), &[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]]
                .concat()
        }
    };
    let _refused = stream.write_all(&bytes).await;
    sleep(Duration::from_millis(random.random_range(0..50))).await;
}

/// Frames that are none of the protocol's messages.
async fn frames(port: u16, random: &mut StdRng) {
    let url = format!("ws://127.0.0.1:{port}/v1/stream");
    let connecting = Box::pin(tokio_tungstenite::connect_async(url));
    let Ok(Ok((mut socket, _))) = timeout(CONNECT_MAX, connecting).await else { return };
    for number in 0..random.random_range(1..200) {
        let message = match random.random_range(0..9) {
            0 => Message::binary(vec![7; 100]),
            1 => Message::text("{"),
            2 => Message::text("[".repeat(2000)),
            3 => Message::text(r#"{"type":"dance"}"#),
            4 => Message::text(
                r#"{"type":"subscribe","id":"a","tables":[{"table":"*"}],"cursor":"FFFFFFFF/FFFFFFFF"}"#,
            ),
            5 => Message::text(format!(
                r#"{{"type":"subscribe","id":"s{number}","tables":[{{"table":"*"}}]}}"#
            )),
            6 => Message::text(format!(r#"{{"type":"unsubscribe","id":"s{}"}}"#, number / 2)),
            7 => Message::text("x".repeat(70_000)),
            _ => Message::Ping(vec![1; 100].into()),
        };
        if !sent(&mut socket, message).await {
            return;
        }
    }
}

async fn sent(socket: &mut Socket, message: Message) -> bool {
    timeout(Duration::from_secs(1), socket.send(message)).await.is_ok_and(|sent| sent.is_ok())
}
