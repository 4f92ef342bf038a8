//! Who is faster than he may be waits, or is told so; and nobody else does.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use walcast_testkit::{Daemon, LIMIT, TestDatabase, shared_cluster, undisturbed, within};

use crate::channels::Client;
use crate::rights::{SECRET, token};

/// What is slowed down is slow for longer than this.
const STILL_MAX: Duration = Duration::from_secs(2);

async fn counted(daemon: &Daemon, limit: &str, effect: &str) -> f64 {
    daemon
        .metric(&format!("walcast_too_fast_total{{limit=\"{limit}\",effect=\"{effect}\"}}"))
        .await
        .unwrap_or(0.0)
}

#[tokio::test]
async fn messages_that_come_too_fast_are_read_later_and_none_is_lost() {
    // Two in a second, eight at once.
    const RATE: usize = 2;
    const SAID: usize = 20;
    undisturbed(STILL_MAX, async || {
        let database = TestDatabase::create(shared_cluster().await).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database)
            .flag("--messages-per-second-max", RATE)
            .flag("--publishes-per-second-max", 1000)
            .start()
            .await;
        let began = Instant::now();
        let mut loud = Client::connect(&daemon.ws_url()).await;
        let mut quiet = Client::connect(&daemon.ws_url()).await;
        let subscribe =
            json!({"type": "subscribe", "id": "t", "tables": [{"table": "public.t"}], "cursor": "latest"});
        loud.say(subscribe).await;
        loud.until("caught_up").await;
        for client in [&mut loud, &mut quiet] {
            client.join(json!({"channel": "room"})).await;
        }
        for number in 0..SAID {
            loud.say(json!({"type": "publish", "channel": "room", "payload": number, "echo": true})).await;
        }
        // While it is not heard it is served, and others are heard.
        database.run("INSERT INTO t VALUES (1)").await;
        quiet.say(json!({"type": "publish", "channel": "room", "payload": "quiet", "echo": true})).await;
        let (mut heard, mut at_row, mut at_quiet) = (Vec::new(), None, None);
        while heard.len() < SAID || at_row.is_none() || at_quiet.is_none() {
            let message = loud.next().await;
            match message["type"].as_str() {
                Some("transaction") => at_row = Some(heard.len()),
                Some("message") if message["payload"] == "quiet" => at_quiet = Some(heard.len()),
                Some("message") => heard.push(message["payload"].as_u64().expect("a number")),
                Some("error") => panic!("{message}"),
                _ => {}
            }
        }
        assert_eq!(heard, (0..SAID as u64).collect::<Vec<_>>());
        // It has said two more than that; eight were free, and the one after them is read before it is waited for.
        let least = Duration::from_secs_f64((SAID + 2 - 4 * RATE - 1) as f64 / RATE as f64);
        assert!(began.elapsed() >= least, "all was heard after {:?}", began.elapsed());
        assert!(at_row < Some(SAID) && at_quiet < Some(SAID), "{at_row:?} {at_quiet:?} of {SAID}");
        let pauses = counted(&daemon, "messages_per_second_max", "later").await;
        assert!((1.0..=(SAID + 2) as f64).contains(&pauses), "{pauses} pauses");
        assert_eq!(counted(&daemon, "subscribes_per_second_max", "later").await, 0.0);
    })
    .await;
}

const PAGE: &str = "/v1/changes?tables=public.t&cursor=latest";

/// The answer to one of the requests of a connection: its status, headers and body.
async fn answer(socket: &mut BufReader<TcpStream>) -> (u16, String, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = within("a line", LIMIT, socket.read_line(&mut head)).await.expect("a line");
        assert!(read > 0, "the connection ended after {head:?}");
    }
    let head = head.to_ascii_lowercase();
    let number = |line: Option<&str>| line.and_then(|text| text.trim().parse::<usize>().ok());
    let length = number(head.lines().find_map(|line| line.strip_prefix("content-length:")));
    let mut body = vec![0; length.expect("a length")];
    within("the body", LIMIT, socket.read_exact(&mut body)).await.expect("the body");
    let status = number(head.split(' ').nth(1)).expect("a status");
    (u16::try_from(status).expect("a status"), head, String::from_utf8(body).expect("text"))
}

async fn connection(daemon: &Daemon) -> BufReader<TcpStream> {
    BufReader::new(TcpStream::connect(("127.0.0.1", daemon.port())).await.expect("a connection"))
}

async fn request(socket: &mut BufReader<TcpStream>, token: Option<&str>) {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let text = format!("GET {PAGE} HTTP/1.1\r\nhost: localhost\r\n{token}\r\n");
    socket.write_all(text.as_bytes()).await.expect("the request is written");
}

#[tokio::test]
async fn requests_of_one_connection_that_come_too_fast_are_answered_later() {
    // Two in a second, eight at once.
    const RATE: usize = 2;
    const ASKED: usize = 16;
    undisturbed(STILL_MAX, async || {
        let database = TestDatabase::create(shared_cluster().await).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let daemon = Daemon::of(&database).flag("--requests-per-second-max", RATE).start().await;
        let began = Instant::now();
        let mut loud = connection(&daemon).await;
        for _ in 0..ASKED {
            request(&mut loud, None).await;
        }
        let others = async {
            for _ in 0..4 * RATE {
                let mut other = connection(&daemon).await;
                request(&mut other, None).await;
                assert_eq!(answer(&mut other).await.0, 200);
            }
            Instant::now()
        };
        let all = async {
            for number in 0..ASKED {
                let (status, _, body) = answer(&mut loud).await;
                assert_eq!(status, 200, "{number}: {body}");
            }
            Instant::now()
        };
        let (others, all) = tokio::join!(others, all);
        let least = Duration::from_secs_f64((ASKED - 4 * RATE) as f64 / RATE as f64);
        assert!(all - began >= least, "all were answered after {:?}", all - began);
        assert!(others < all, "others waited");
        let later = counted(&daemon, "requests_per_second_max", "later").await;
        assert!((1.0..=(ASKED - 4 * RATE) as f64).contains(&later), "{later} were answered later");
        assert_eq!(counted(&daemon, "requests_per_second_max", "refused").await, 0.0);
    })
    .await;
}

#[tokio::test]
async fn requests_of_one_user_beyond_what_can_wait_are_refused_and_others_are_answered() {
    // One in a second, four at once, and five that wait for up to 5 s.
    const SERVED: usize = 9;
    const ASKED: usize = 24;
    undisturbed(STILL_MAX, async || {
        let database = TestDatabase::create(shared_cluster().await).await;
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let folder = tempfile::tempdir().expect("a folder");
        let policies = folder.path().join("policies.toml");
        std::fs::write(&policies, "[[policy]]\nrole = \"*\"\ntable = \"*\"\n").expect("policies");
        let daemon = Daemon::of(&database)
            .flag("--jwt-secret", SECRET)
            .flag("--policies", policies.display())
            .flag("--requests-per-second-max", 1)
            .start()
            .await;
        let (ann, bob) = (token("ann", "user"), token("bob", "user"));
        let ask = async |token: &str| {
            let mut socket = connection(&daemon).await;
            request(&mut socket, Some(token)).await;
            answer(&mut socket).await
        };
        let began = Instant::now();
        let answers = join_all((0..ASKED).map(|_| async {
            let answer = ask(&ann).await;
            (answer, began.elapsed())
        }));
        // Once she has been refused she has used up what there was.
        let other = async {
            daemon.until_metric("walcast_client_errors_total", 1.0).await;
            let (status, _, body) = ask(&bob).await;
            assert_eq!(status, 200, "{body}");
            began.elapsed()
        };
        let (answers, other) = tokio::join!(answers, other);
        let (served, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|((status, ..), _)| *status == 200);
        for ((status, head, body), _) in &refused {
            assert_eq!(*status, 429, "{body}");
            assert!(head.contains("retry-after:"), "{head}");
            assert!(body.contains("limit_exceeded") && body.contains("requests_per_second_max"), "{body}");
        }
        let last = served.iter().map(|(_, at)| *at).max().expect("some were served");
        // She earns one more with each second that her requests take to come.
        assert!((SERVED..SERVED + 4).contains(&served.len()), "{} were served", served.len());
        assert!(last >= Duration::from_secs(4), "the last that waited was served after {last:?}");
        assert!(other < last, "others waited");
        assert_eq!(counted(&daemon, "requests_per_second_max", "refused").await, refused.len() as f64);
        let later = counted(&daemon, "requests_per_second_max", "later").await;
        assert!(later >= 4.0 && later < served.len() as f64, "{later} were answered later");
        let page = daemon.get("/metrics").await.expect("metrics").body;
        let of_status = page.lines().filter(|line| line.contains("status=\"429\""));
        let told: f64 = of_status.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        assert_eq!(told, refused.len() as f64);
    })
    .await;
}
