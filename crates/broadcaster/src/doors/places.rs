//! Places for clients of the feed, WebSockets and requests alike: counted over all of them and for each address.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::sync::OwnedSemaphorePermit;
use walcast_protocol::ErrorCode;

use super::Door;
use super::entrance::Full;
use super::health::refused;
use super::peer::Arrival;
use super::tally::Counted;
use crate::metrics as names;

/// Seconds after which somebody for whom there was no place may come again.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// What a WebSocket or a request is counted in, until dropped.
pub(super) struct Places {
    _all: OwnedSemaphorePermit,
    address: Option<Counted<IpAddr>>,
}

impl Places {
    /// The address that it came from; of one that is trusted with others', the one that it names.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address.as_ref().map(|counted| *counted.key())
    }

    /// Takes them, or says why there are none.
    pub(super) fn take(door: &Door, arrival: &Arrival, headers: &HeaderMap) -> Result<Self, Box<Response>> {
        if door.shutdown.is_cancelled() {
            return Err(Box::new(unavailable(&ErrorCode::NotReady, "the daemon is going down")));
        }
        let full = |limit: &'static str| {
            metrics::counter!(names::CONNECTIONS_REFUSED, "limit" => limit).increment(1)
        };
        let max = door.broadcaster.limits().connections_per_address_max;
        let address = door.entrance.enter(arrival, headers, max).map_err(|Full| {
            full("connections_per_address_max");
            let message = "too many connections from this address (connections_per_address_max)";
            let hint = "close some; behind a proxy, have walcast trust it (trusted_proxies)";
            Box::new(later(refused(
                StatusCode::TOO_MANY_REQUESTS,
                &ErrorCode::LimitExceeded,
                message,
                Some(hint),
            )))
        })?;
        let all = Arc::clone(&door.places).try_acquire_owned().map_err(|_| {
            full("connections_max");
            let message = "there is no place for another connection (connections_max)";
            Box::new(unavailable(&ErrorCode::LimitExceeded, message))
        })?;
        Ok(Self { _all: all, address })
    }
}

/// Nothing can be had now.
fn unavailable(code: &ErrorCode, message: &str) -> Response {
    later(refused(StatusCode::SERVICE_UNAVAILABLE, code, message, Some("try again after a while")))
}

/// Says when to come again.
pub(super) fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, COME_AGAIN);
    response
}
