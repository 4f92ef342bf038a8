//! Server-sent events, compressed: each can be read when it was sent, and a stream costs little more than one that is not.

use std::io::Write;

use flate2::write::GzDecoder;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, shared_cluster, within};

use crate::http::begin;

const ASK: &str = "GET /v1/changes?tables=public.t&cursor=latest";
const HEADERS: &str = "Accept: text/event-stream\r\nAccept-Encoding: br, gzip\r\n";

/// A client that unpacks what it is sent as it comes.
struct Client {
    socket: TcpStream,
    decoder: GzDecoder<Vec<u8>>,
    /// Events that are read already.
    read: usize,
    packed_bytes: usize,
}

impl Client {
    async fn open(daemon: &Daemon) -> Self {
        let mut socket = begin(daemon, ASK, HEADERS, "").await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(within("the head", LIMIT, socket.read_u8()).await.expect("the head"));
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.contains("content-encoding: gzip") && head.contains("vary: accept-encoding"), "{head}");
        Self { socket, decoder: GzDecoder::new(Vec::new()), read: 0, packed_bytes: 0 }
    }

    /// Takes what the socket has, as far as it can be read by now; `false` at the end.
    async fn take(&mut self) -> bool {
        let mut piece = [0; 4096];
        let read = within("more of the stream", LIMIT, self.socket.read(&mut piece)).await.expect("bytes");
        self.decoder.write_all(&piece[..read]).expect("gzip");
        self.decoder.flush().expect("gzip");
        self.packed_bytes += read;
        read > 0
    }

    /// The next event of this type.
    async fn until(&mut self, wanted: &str) -> Value {
        loop {
            let rest = &self.decoder.get_ref()[self.read..];
            let Some(end) = rest.windows(2).position(|two| two == b"\n\n") else {
                assert!(self.take().await, "the stream has ended");
                continue;
            };
            let event = std::str::from_utf8(&rest[..end]).expect("text").to_owned();
            self.read += end + 2;
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            if field("event: ") == Some(wanted) {
                return serde_json::from_str(field("data: ").expect("data")).expect("JSON");
            }
        }
    }
}

#[tokio::test]
async fn each_event_can_be_read_before_the_next_one_is_made() {
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, state text, note text)").await;
    // No heartbeat brings what would have come without.
    let mut daemon = Daemon::of(&database).flag("--heartbeat", "10min").start().await;
    let mut client = Client::open(&daemon).await;
    client.until("caught_up").await;
    let (packed, plain) = (client.packed_bytes, client.read);
    for id in 1..=30 {
        database.run(&format!("INSERT INTO t VALUES ({id}, 'paid', 'left at door {id}')")).await;
        let told = client.until("transaction").await;
        assert_eq!(told["changes"][0]["row"]["note"], json!(format!("left at door {id}")), "{told}");
    }
    let (packed, plain) = (client.packed_bytes - packed, client.read - plain);
    assert!(packed * 2 < plain, "{packed} bytes for {plain}");
    // One that is larger than what is packed at a time, and that no packing makes smaller.
    let noise = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 10000) g";
    database.run(&format!("INSERT INTO t VALUES (0, 'large', ({noise}))")).await;
    let told = client.until("transaction").await;
    let noise = database.scalar(noise).await;
    assert!(told["changes"][0]["row"]["note"].as_str() == noise.as_deref(), "the large value is another one");
    // A daemon that goes ends it as a file of gzip ends, with its sum.
    daemon.terminate().await;
    while client.take().await {}
    client.decoder.try_finish().expect("the end of the stream");
    daemon.assert_quiet(&[]);
}

#[tokio::test]
async fn a_compressed_stream_takes_little_memory() {
    const STREAMS: usize = 200;
    // A compressor of its own would take 272 KiB.
    const EACH_MAX: u64 = 64 << 10;
    let database = TestDatabase::create(shared_cluster().await).await;
    database.run("CREATE TABLE t (id int PRIMARY KEY, state text, note text)").await;
    let daemon = Daemon::of(&database).start().await;
    let mut clients = Vec::new();
    let mut before = None;
    for number in 0..=STREAMS {
        let mut client = Client::open(&daemon).await;
        client.until("caught_up").await;
        clients.push(client);
        if number == 0 {
            before = daemon.peak_memory_bytes();
        }
    }
    for id in 1..=3 {
        database.run(&format!("INSERT INTO t VALUES ({id}, 'paid', repeat('x', 3000))")).await;
        for client in &mut clients {
            assert_eq!(client.until("transaction").await["changes"][0]["row"]["id"], id);
        }
    }
    let (Some(before), Some(after)) = (before, daemon.peak_memory_bytes()) else { return };
    let each = (after - before) / STREAMS as u64;
    println!("{each} bytes for a compressed stream");
    assert!(each < EACH_MAX, "{each} bytes for each of {STREAMS} streams");
}
