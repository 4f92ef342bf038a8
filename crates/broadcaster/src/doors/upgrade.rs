//! From an HTTP request to a WebSocket (RFC 6455 section 4.2).

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use walcast_protocol::{ErrorCode, STREAM_PATH, SUBPROTOCOL};

use super::Door;
use super::connection::Connection;
use super::entrance::token;
use super::health::refused;
use super::origin::refused as origin_refused;
use super::patience::Attended;
use super::peer::Arrival;
use super::places::Places;
use super::stranger::{Stranger, websocket};
use super::transport::Transport;
use super::unreadable::Answering;

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
    let (entrance, headers) = (Arc::clone(&door.entrance), request.headers());
    if !entrance.origins.allow(headers, &arrival, &entrance.proxies, entrance.authority.is_open()) {
        return origin_refused();
    }
    let places = match Places::take(&door, &arrival, headers) {
        Ok(places) => places,
        Err(refusal) => return *refusal,
    };
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

/// Whether some header of this name has `token` in its comma-separated list.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The client's key, or what is wrong with the request.
fn check<'a>(method: &Method, headers: &'a HeaderMap) -> Result<&'a HeaderValue, Box<Response>> {
    let bad = |message: &str, hint: &str| {
        Box::new(refused(StatusCode::BAD_REQUEST, &ErrorCode::BadMessage, message, Some(hint)))
    };
    let is_upgrade = has_token(headers, &header::CONNECTION, "upgrade")
        && has_token(headers, &header::UPGRADE, "websocket");
    if method != Method::GET || !is_upgrade {
        let hint = format!("open it as a WebSocket: ws://host:port{STREAM_PATH}, subprotocol {SUBPROTOCOL}");
        let message = "this path speaks WebSocket only";
        let mut response =
            refused(StatusCode::UPGRADE_REQUIRED, &ErrorCode::BadMessage, message, Some(&hint));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        return Err(Box::new(response));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "this WebSocket version is not spoken";
        let mut response =
            refused(StatusCode::UPGRADE_REQUIRED, &ErrorCode::BadMessage, message, Some("use version 13"));
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
    // Boxed, as all that is over before the connection begins: what stays is the connection's alone.
    if let Some(connection) = Box::pin(admit(&door, upgrade, token)).await {
        connection.run(door.shutdown).await;
    }
    drop(places);
}

/// A connection of a client that was let in.
async fn admit(door: &Door, upgrade: OnUpgrade, token: Option<String>) -> Option<Box<Connection<Transport>>> {
    let limits = door.broadcaster.limits();
    let upgraded: Upgraded = match tokio::time::timeout(limits.handshake_max, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a connection did not become a WebSocket");
            return None;
        }
        Err(_) => {
            tracing::debug!("a connection did not become a WebSocket in time");
            return None;
        }
    };
    let (transport, early) = match upgraded.downcast::<TokioIo<Attended<Answering<Transport>>>>() {
        // From now on it is waited for.
        Ok(parts) => (parts.io.into_inner().into_inner().into_inner(), parts.read_buf),
        Err(_) => {
            tracing::error!("a connection is not over the transport that was accepted; it is closed");
            return None;
        }
    };
    let socket = websocket(transport, early.to_vec(), limits).await;
    let stranger = Stranger::new(socket, door.broadcaster.clone(), Arc::clone(&door.entrance));
    stranger.identify(token, &door.shutdown).await
}

#[cfg(test)]
mod tests {
    use hyper::upgrade::OnUpgrade;

    use super::{Connection, Door, Places, Transport, serve};

    #[test]
    fn what_stays_of_an_idle_connection_is_small() {
        fn size_of_task<F>(_: impl Fn(Door, OnUpgrade, Option<String>, Places) -> F) -> usize {
            size_of::<F>()
        }
        // Ten thousand of them wait: each kilobyte is ten megabytes. The futures of what is over are boxed.
        let (task, connection) = (size_of_task(serve), size_of::<Connection<Transport>>());
        assert!(task <= 1200 && connection <= 1024, "task {task}, connection {connection} bytes");
    }
}
