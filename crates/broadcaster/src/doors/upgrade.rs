//! From an HTTP request to a WebSocket (RFC 6455 section 4.2).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use walcast_protocol::{STREAM_PATH, SUBPROTOCOL};

use super::Door;
use super::entrance::{Full, token};
use super::health::refused;
use super::peer::Arrival;
use super::stranger::{Stranger, websocket};
use super::tally::Counted;
use super::transport::Transport;
use crate::metrics as names;

/// What a connection is counted in, until it ends.
struct Places {
    _all: OwnedSemaphorePermit,
    _address: Option<Counted<IpAddr>>,
}

/// `GET /v1/stream`. A token is looked at after the upgrade, because no browser shows a page why one was refused.
pub(super) async fn stream(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    mut request: Request,
) -> Response {
    let key = match check(request.method(), request.headers()) {
        Ok(key) => derive_accept_key(key.as_bytes()),
        Err(refusal) => return *refusal,
    };
    if door.shutdown.is_cancelled() {
        return unavailable("not_ready", "the daemon is going down");
    }
    let (entrance, headers) = (Arc::clone(&door.entrance), request.headers());
    if !entrance.origins.allow(headers, &arrival, &entrance.proxies, entrance.authority.is_open()) {
        metrics::counter!(names::UNAUTHORIZED, "reason" => "origin").increment(1);
        let hint = "add its origin to allowed_origins; behind a proxy, pass the header Host on";
        let message = "pages of this origin may not connect";
        return refused(StatusCode::FORBIDDEN, "forbidden", message, Some(hint));
    }
    let full =
        |limit: &'static str| metrics::counter!(names::CONNECTIONS_REFUSED, "limit" => limit).increment(1);
    let max = door.broadcaster.limits().connections_per_address_max;
    let address = match entrance.enter(&arrival, headers, max) {
        Ok(counted) => counted,
        Err(Full) => {
            full("connections_per_address_max");
            let message = "too many connections from this address (connections_per_address_max)";
            let hint = "close some; behind a proxy, have walcast trust it (trusted_proxies)";
            let mut response = refused(StatusCode::TOO_MANY_REQUESTS, "limit_exceeded", message, Some(hint));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            return response;
        }
    };
    let Ok(all) = door.places.clone().try_acquire_owned() else {
        full("connections_max");
        return unavailable("limit_exceeded", "there is no place for another connection (connections_max)");
    };
    let places = Places { _all: all, _address: address };
    let token = token(headers, request.uri().query());
    let speaks_ours = request.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let upgrade = hyper::upgrade::on(&mut request);
    door.tasks.clone().spawn(serve(door, upgrade, token, places));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if speaks_ours {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

fn unavailable(code: &str, message: &str) -> Response {
    let mut response =
        refused(StatusCode::SERVICE_UNAVAILABLE, code, message, Some("try again after a while, with jitter"));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// Whether some header of this name has `token` in its comma-separated list.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The client's key, or what is wrong with the request.
fn check<'a>(method: &Method, headers: &'a HeaderMap) -> Result<&'a HeaderValue, Box<Response>> {
    let bad = |message: &str, hint: &str| {
        Box::new(refused(StatusCode::BAD_REQUEST, "bad_message", message, Some(hint)))
    };
    let is_upgrade = has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    if method != Method::GET || !is_upgrade {
        let hint = format!("open it as a WebSocket: ws://host:port{STREAM_PATH}, subprotocol {SUBPROTOCOL}");
        let message = "this path speaks WebSocket only";
        let mut response = refused(StatusCode::UPGRADE_REQUIRED, "bad_message", message, Some(&hint));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(response));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "this WebSocket version is not spoken";
        let mut response =
            refused(StatusCode::UPGRADE_REQUIRED, "bad_message", message, Some("use version 13"));
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    // A client that offers nothing takes what comes.
    let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    if offers && !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(bad("none of the subprotocols on offer is spoken", &format!("offer {SUBPROTOCOL}")));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| bad("Sec-WebSocket-Key is missing", "use a WebSocket client"))
}

/// Serves the connection once it is a WebSocket.
async fn serve(door: Door, upgrade: OnUpgrade, token: Option<String>, places: Places) {
    let limits = *door.broadcaster.limits();
    let upgraded: Upgraded = match tokio::time::timeout(limits.handshake_max, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return tracing::debug!(%error, "a connection did not become a WebSocket"),
        Err(_) => return tracing::debug!("a connection did not become a WebSocket in time"),
    };
    let (transport, early) = match upgraded.downcast::<TokioIo<Transport>>() {
        Ok(parts) => (parts.io.into_inner(), parts.read_buf),
        Err(_) => {
            return tracing::error!("a connection is not over the transport that was accepted; it is closed");
        }
    };
    let socket = websocket(transport, early.to_vec(), &limits).await;
    let stranger = Stranger::new(socket, door.broadcaster.clone(), Arc::clone(&door.entrance));
    // Boxed: a stranger is over before the connection begins.
    if let Some(connection) = Box::pin(stranger.identify(token, &door.shutdown)).await {
        connection.run(door.shutdown.clone()).await;
    }
    drop(places);
}
