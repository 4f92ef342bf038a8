//! What the running daemon says of itself.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// How long the daemon may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read; more is not expected.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The answer to `GET /readyz`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Daemon {
    /// Where it was looked for.
    pub(crate) address: String,
    /// Whether anything answered.
    pub(crate) reachable: bool,
    /// Whether it is ready: the initial poll is done.
    pub(crate) ready: bool,
    /// What it said, or why it could not be asked.
    pub(crate) detail: String,
}

impl Daemon {
    /// Asks whoever listens at `listen`; an address that stands for all interfaces is asked on the loopback one.
    pub(crate) async fn ask(listen: &str) -> Self {
        let address = listen.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, get_readyz(&address)).await;
        let (reachable, ready, detail) = match answer {
            Ok(Ok(answer)) => {
                let (status, body) = parse(&answer);
                (true, status == Some(200), body)
            }
            Ok(Err(error)) => (false, false, error.to_string()),
            Err(_) => (false, false, format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        };
        Self { address, reachable, ready, detail }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.reachable, self.ready) {
            (false, _) => "not running",
            (true, true) => "ready",
            (true, false) => "not ready",
        };
        write!(f, "{state} at {}", self.address)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
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

/// The status code and the body as one line.
fn parse(answer: &[u8]) -> (Option<u16>, String) {
    let text = String::from_utf8_lossy(answer);
    if !text.starts_with("HTTP/") {
        let detail = "what listens there does not answer plain HTTP; where clients use TLS, set admin_listen";
        return (None, detail.to_owned());
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    (status, body.split_whitespace().collect::<Vec<_>>().join(" "))
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
        let daemon = answered("HTTP/1.1 200 OK\r\n\r\nready\n").await;
        assert_eq!((daemon.reachable, daemon.ready, daemon.detail.as_str()), (true, true, "ready"));
        let daemon = answered("HTTP/1.1 503 Service Unavailable\r\n\r\ninitial poll\n").await;
        assert_eq!((daemon.reachable, daemon.ready), (true, false));
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_a_daemon_that_does_not_run() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let daemon = Daemon::ask(&address).await;
        assert!(!daemon.reachable && !daemon.detail.is_empty());
    }
}
