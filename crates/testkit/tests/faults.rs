//! The proxy does to connections what it says.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use walcast_testkit::{Direction, LIMIT, Proxy, TestDatabase, TestSession, shared_cluster, within};

/// Two ends of a connection through a proxy.
async fn connected() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::to(listener.local_addr().unwrap().port()).await;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    let (server, _) = within("the proxy's connection", LIMIT, listener.accept()).await.unwrap();
    (proxy, client, server)
}

async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    within("the bytes", LIMIT, stream.read_exact(&mut buffer)).await.unwrap();
    buffer
}

/// Bytes until the end, and how it ended.
async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut all = Vec::new();
    let outcome = within("the end", LIMIT, stream.read_to_end(&mut all)).await;
    (all, outcome.map(|_| ()))
}

#[tokio::test]
async fn without_faults_everything_passes_and_is_counted() {
    let (proxy, mut client, mut server) = connected().await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(read(&mut server, 8).await, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let (answer, end) = read_all(&mut client).await;
    assert_eq!(answer, b"answer");
    end.unwrap();
    drop(client);
    proxy.until_idle().await;
    assert_eq!((proxy.passed(Direction::ToServer), proxy.passed(Direction::ToClient)), (8, 6));
    assert_eq!((proxy.accepted(), proxy.open()), (1, 0));
}

#[tokio::test]
async fn a_cut_resets_both_sides_and_the_next_connection_works() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.cut();
    let (_, client_end) = read_all(&mut client).await;
    let (_, server_end) = read_all(&mut server).await;
    assert_eq!(client_end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server_end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.until_idle().await;
    let _again = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    proxy.until_accepted(2).await;
}

#[tokio::test]
async fn a_close_is_an_end_in_good_order() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.close();
    read_all(&mut client).await.1.unwrap();
    read_all(&mut server).await.1.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_reset_at_once() {
    let (proxy, _client, _server) = connected().await;
    proxy.refuse(true);
    let mut refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    assert_eq!(read_all(&mut refused).await.1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.open(), 1, "the connection from before stays");
}

#[tokio::test]
async fn a_cut_comes_after_exactly_as_many_bytes_as_asked_for() {
    for bytes in [0, 1, 4095, 20_000] {
        let (proxy, mut client, mut server) = connected().await;
        proxy.cut_after(Direction::ToServer, bytes);
        client.write_all(&[7; 30_000]).await.unwrap();
        proxy.until_cut().await;
        assert_eq!(proxy.passed(Direction::ToServer), bytes);
        // A reset may overtake what lies unread in the receiver's buffer, never add to it.
        let (received, end) = read_all(&mut server).await;
        assert!(received.len() as u64 <= bytes, "{} of {bytes}", received.len());
        assert!(end.is_err());
    }
}

#[tokio::test]
async fn a_blackhole_tells_nobody_and_loses_nothing() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.blackhole_after(Direction::ToServer, 3);
    client.write_all(b"abcdef").await.unwrap();
    drop(client);
    assert_eq!(read(&mut server, 3).await, b"abc");
    // The other direction still works one way, so the proxy has had every chance to tell of the end.
    let silence = tokio::time::timeout(Duration::from_millis(100), server.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    proxy.heal();
    let (rest, end) = read_all(&mut server).await;
    assert_eq!(rest, b"def");
    end.unwrap();
}

#[tokio::test]
async fn a_delay_holds_each_byte_back_but_not_the_throughput() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.delay(Direction::ToServer, Duration::from_secs(1));
    let started = Instant::now();
    for _ in 0..20 {
        client.write_all(&[1; 1000]).await.unwrap();
        tokio::task::yield_now().await;
    }
    read(&mut server, 20_000).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(10), "20 writes are not delayed one after the other: {took:?}");
}

#[tokio::test]
async fn a_throttle_bounds_the_bytes_a_second() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.throttle(Direction::ToServer, 10_000);
    let started = Instant::now();
    client.write_all(&[1; 3000]).await.unwrap();
    read(&mut server, 3000).await;
    // The pause comes after the bytes: the last slice of 500 does not wait for its own.
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
}

#[tokio::test]
async fn slices_arrive_one_by_one() {
    let (proxy, mut client, mut server) = connected().await;
    proxy.slice(Direction::ToServer, 2, Duration::from_millis(20));
    let started = Instant::now();
    client.write_all(b"abcdef").await.unwrap();
    assert_eq!(read(&mut server, 6).await, b"abcdef");
    // A pause after each slice but the last, of which nobody sees the pause.
    assert!(started.elapsed() >= Duration::from_millis(40), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_session_with_postgres_survives_slices_and_ends_with_a_cut() {
    let database = TestDatabase::create(shared_cluster().await).await;
    let proxy = Proxy::to(shared_cluster().await.port()).await;
    proxy.slice(Direction::ToClient, 1, Duration::ZERO);
    proxy.slice(Direction::ToServer, 1, Duration::ZERO);
    let session = TestSession::connect(&database.url_via(&proxy)).await;
    assert_eq!(session.scalar("SELECT repeat('x', 1000)").await.unwrap().len(), 1000);
    proxy.cut();
    within("the session to notice", LIMIT, async {
        while !session.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn urls_keep_their_user_path_and_query() {
    let proxy = Proxy::to(1).await;
    let port = proxy.port();
    assert_eq!(
        proxy.url("postgresql://me@127.0.0.1:5432/db?a=b"),
        format!("postgresql://me@127.0.0.1:{port}/db?a=b")
    );
    assert_eq!(proxy.url("ws://127.0.0.1:4700/v1/stream"), format!("ws://127.0.0.1:{port}/v1/stream"));
    assert_eq!(proxy.url("http://localhost"), format!("http://127.0.0.1:{port}"));
}
