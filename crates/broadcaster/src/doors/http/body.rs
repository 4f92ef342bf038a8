//! The body of an answer that is whole: JSON, compressed for a client that takes it so.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Frame, SizeHint};

use super::answer::{self, Refused};
use super::visit::{Held, Visit};
use crate::subscription::crashed;

/// Below it an answer is as fast as it is, in bytes.
const COMPRESSED_BYTES_MIN: usize = 1024;

/// What is given to the socket at a time, in bytes. Copied, so that the answer itself is gone with its body, however long the
/// last bytes of it wait to be sent.
const PIECE_BYTES: usize = 64 << 10;

/// An answer that is not taken yet, whose client is there until it is.
struct Whole {
    rest: Bytes,
    _held: Held,
}

impl hyper::body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(bytes);
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// Answers with JSON. Off the runtime's threads where it is compressed: a page takes tens of milliseconds.
pub(super) async fn json(body: Vec<u8>, asked: &HeaderMap, visit: Visit) -> Result<Response, Refused> {
    let (mut body, mut is_compressed) = (body, false);
    if body.len() >= COMPRESSED_BYTES_MIN && takes_gzip(asked) {
        let compressed = tokio::task::spawn_blocking(move || {
            let compressed = gzip(&body);
            (body, compressed)
        });
        match compressed.await {
            Ok((_, Ok(compressed))) => (body, is_compressed) = (compressed, true),
            Ok((plain, Err(_))) => body = plain,
            Err(_) => return Err(answer::refusal(crashed())),
        }
    }
    let held = visit.hold(body.len())?;
    let mut response = Body::new(Whole { rest: body.into(), _held: held }).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Whether `gzip` is among what the client takes (RFC 9110 section 12.5.3), and not refused.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|entry| {
        let mut pieces = entry.split(';').map(str::trim);
        let is_gzip = pieces.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let weight = pieces.find_map(|piece| piece.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        is_gzip && weight.is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{gzip, takes_gzip};

    #[test]
    fn it_is_compressed_for_those_alone_who_take_it() {
        let takes = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_str(text).unwrap());
            takes_gzip(&headers)
        };
        assert!(!takes_gzip(&HeaderMap::new()));
        assert!(takes("gzip") && takes("br, GZIP;q=0.5") && takes("deflate,gzip; q=1"));
        assert!(!takes("br") && !takes("gzip;q=0") && !takes("gzip;q=none") && !takes("xgzip"));
        let body = "an answer ".repeat(500);
        let compressed = gzip(body.as_bytes()).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(compressed.as_slice()).read_to_string(&mut text).unwrap();
        assert!(compressed.len() < 500 && text == body);
    }
}
