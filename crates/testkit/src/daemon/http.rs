//! As much HTTP as it takes to ask a daemon for its health.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// All header lines, as sent.
    pub headers: String,
    /// The body; a chunked one is put together.
    pub body: String,
}

impl Response {
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self
            .body
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let rest = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
                rest.strip_prefix(' ')?.split(' ').next()?.parse().ok()
            })
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = first.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
        let chunked = headers.to_ascii_lowercase().contains("transfer-encoding: chunked");
        let body = if chunked { joined(body) } else { body.to_owned() };
        Some(Self { status, headers: headers.to_owned(), body })
    }
}

/// Puts the chunks of a body together; the daemon's health answers are ASCII.
fn joined(mut chunked: &str) -> String {
    let mut body = String::new();
    while let Some((length, rest)) = chunked.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..length).filter(|chunk| !chunk.is_empty()) else { break };
        body.push_str(chunk);
        chunked = rest.get(length + 2..).unwrap_or("");
    }
    body
}

pub(super) async fn get(port: u16, path: &str) -> Option<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    Response::parse(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_answer_with_and_without_chunks() {
        let plain =
            Response::parse(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nwait").unwrap();
        assert_eq!((plain.status, plain.body.as_str()), (503, "wait"));
        let chunked = Response::parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
        assert_eq!(chunked.unwrap().body, "abcde");
        assert_eq!(Response::parse(b"SSH-2.0"), None);
    }

    #[test]
    fn sums_a_metric_over_its_labels() {
        let body = "# TYPE walcast_a_total counter\nwalcast_a_total{x=\"1\"} 2\nwalcast_a_total{x=\"2\"} 3\nwalcast_ab 9\n";
        let response = Response { status: 200, headers: String::new(), body: body.to_owned() };
        assert_eq!(response.metric("walcast_a_total"), Some(5.0));
        assert_eq!(response.metric("walcast_ab"), Some(9.0));
        assert_eq!(response.metric("walcast_a"), None);
    }
}
