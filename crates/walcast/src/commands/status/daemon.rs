//! What the running daemon says of itself.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// How long the daemon may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read; more is not expected.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The walcast that listens at an address, as `GET /readyz` tells.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Daemon {
    /// Where it was looked for.
    pub(crate) address: String,
    /// Whether a walcast answered.
    pub(crate) reachable: bool,
    /// Whether it is ready: the initial poll is done.
    pub(crate) ready: bool,
    /// Whether it serves the feed that was asked about; absent where one of the two is not known.
    pub(crate) same_feed: Option<bool>,
    /// What it said, as it said it. Strangers are told whether it is ready and nothing else.
    pub(crate) report: Option<Value>,
    /// Why it could not be asked, or what it waits for.
    pub(crate) problem: Option<String>,
}

impl Daemon {
    /// Asks whoever listens at `listen`; an address that stands for all interfaces is asked on the loopback one.
    pub(crate) async fn ask(listen: &str) -> Self {
        let address = listen.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, get_readyz(&address)).await;
        let asked = Self { address, ..Self::default() };
        let away = |problem| Self { problem: Some(problem), ..asked.clone() };
        match answer {
            Ok(Ok(answer)) => asked.clone().told(&answer),
            Ok(Err(error)) => away(error.to_string()),
            Err(_) => away(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }

    /// With what was answered.
    fn told(self, answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        if !text.starts_with("HTTP/") {
            let problem = "what answers does not speak plain HTTP; where clients use TLS, set admin_listen";
            return Self { problem: Some(problem.to_owned()), ..self };
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let is_ok = head.split_whitespace().nth(1) == Some("200");
        let said: Value = serde_json::from_str(body).unwrap_or_default();
        if said["ready"].is_boolean() {
            return Self { reachable: true, ready: is_ok, report: Some(said), ..self };
        }
        // So answers one whose feed is not set up yet.
        if said["code"] == "not_ready" {
            let words = [&said["message"], &said["hint"]].into_iter().filter_map(Value::as_str);
            let problem = words.collect::<Vec<_>>().join("; ");
            return Self { reachable: true, problem: Some(problem), ..self };
        }
        Self { problem: Some("another program answers".to_owned()), ..self }
    }

    /// Something it said, by its place: `/feed/id`.
    pub(super) fn said(&self, place: &str) -> Option<&Value> {
        self.report.as_ref()?.pointer(place)
    }

    /// The id of the feed that it serves, where it tells.
    pub(crate) fn feed(&self) -> Option<&str> {
        self.said("/feed/id")?.as_str()
    }

    /// What is wrong, in its own words.
    pub(super) fn reasons(&self) -> impl Iterator<Item = &str> {
        self.said("/reasons").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Who listens there, for those who wanted to listen there themselves.
    pub(crate) fn who(&self) -> String {
        let problem = self.problem.as_deref().unwrap_or_default();
        match (self.reachable, self.feed()) {
            (true, Some(feed)) => format!("another walcast listens there, with feed {feed}"),
            (true, None) if self.report.is_some() => "another walcast listens there".to_owned(),
            (true, None) => format!("another walcast listens there, which is not set up: {problem}"),
            (false, _) => format!("what listens there does not answer as a walcast ({problem})"),
        }
    }
}

/// One request in HTTP/1.0, so that the answer ends with the connection.
async fn get_readyz(address: &str) -> io::Result<Vec<u8>> {
    match address.strip_prefix("unix:") {
        Some(path) => exchange(UnixStream::connect(path).await?, "localhost").await,
        None => exchange(TcpStream::connect(address).await?, address).await,
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::Daemon;

    async fn answered(answer: &'static str) -> Daemon {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let daemon = Daemon::ask(&address).await;
        server.await.unwrap();
        daemon
    }

    #[tokio::test]
    async fn a_daemon_is_ready_when_it_says_200() {
        let daemon = answered(
            "HTTP/1.1 200 OK\r\n\r\n{\"ready\": true, \"feed\": {\"id\": \"f1\"}, \"reasons\": [\"slow\"]}",
        )
        .await;
        assert_eq!((daemon.reachable, daemon.ready, daemon.feed()), (true, true, Some("f1")));
        assert_eq!(daemon.reasons().collect::<Vec<_>>(), ["slow"]);
        assert!(daemon.who().contains("another walcast listens there, with feed f1"), "{}", daemon.who());
        let daemon = answered("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\": false}").await;
        assert_eq!((daemon.reachable, daemon.ready, daemon.feed()), (true, false, None));
    }

    #[tokio::test]
    async fn one_that_is_not_set_up_yet_says_what_it_waits_for() {
        let said = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"code\": \"not_ready\", \"message\": \"it waits\", \"hint\": \"wait too\"}";
        let daemon = answered(said).await;
        assert_eq!((daemon.reachable, daemon.ready), (true, false));
        assert_eq!(daemon.problem.as_deref(), Some("it waits; wait too"));
    }

    #[tokio::test]
    async fn another_program_is_no_daemon() {
        for answer in ["HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 404 Not Found\r\n\r\n", "SSH-2.0"] {
            let daemon = answered(answer).await;
            assert!(!daemon.reachable && !daemon.ready, "{answer}");
            assert!(
                daemon.who().starts_with("what listens there does not answer as a walcast"),
                "{}",
                daemon.who()
            );
        }
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_a_daemon_that_does_not_run() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let daemon = Daemon::ask(&address).await;
        assert!(!daemon.reachable && daemon.problem.is_some());
    }
}
