//! What load balancers, probes and Prometheus ask.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use walcast_feed::SourceState;
use walcast_protocol::STREAM_PATH;

use super::Door;

/// `GET /livez`: the process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 once the initial poll is done and until the daemon goes down, else 503. What is wrong without
/// keeping anybody from being served is among the reasons too.
pub(super) async fn readyz(State(door): State<Door>) -> Response {
    let broadcaster = &door.broadcaster;
    let (feed, limits) = (broadcaster.feed(), broadcaster.limits());
    let mut reasons = Vec::new();
    let is_open = broadcaster.gate().is_open();
    if !is_open {
        reasons.push("the initial poll is not done: what was committed before the start is still being read");
    }
    let is_stopping = door.shutdown.is_cancelled();
    if is_stopping {
        reasons.push("the daemon is going down");
    }
    let source = match &*feed.source().borrow() {
        SourceState::Starting => json!({"state": "starting"}),
        SourceState::Streaming => json!({"state": "streaming"}),
        SourceState::Interrupted { reason, hint } => {
            reasons.push("the connection to the source is interrupted; clients get what history has");
            json!({"state": "interrupted", "message": reason, "hint": hint})
        }
    };
    let (stored, head) = (feed.stored(), feed.head());
    let lag_bytes = head.lsn().bytes_since(stored.lsn());
    if lag_bytes >= limits.history_stall_bytes {
        reasons.push("history is far behind the feed: the slot keeps WAL in the source until it catches up");
    }
    let is_ready = is_open && !is_stopping;
    let body = json!({
        "ready": is_ready,
        "gate": if is_open { "open" } else { "closed" },
        "source": source,
        "feed": {"id": broadcaster.feed_id(), "head": head, "memory_bytes": feed.memory_bytes()},
        "history": {"oldest": broadcaster.oldest(), "stored": stored, "lag_bytes": lag_bytes},
        "reasons": reasons,
    });
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// `GET /metrics`: Prometheus's text format.
pub(super) async fn metrics(State(door): State<Door>) -> Response {
    match &door.prometheus {
        Some(prometheus) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], prometheus.render())
                .into_response()
        }
        None => refused(StatusCode::NOT_FOUND, "not_found", "metrics are switched off", None),
    }
}

/// Every other path.
pub(super) async fn not_found() -> Response {
    let hint = format!("there are {STREAM_PATH} (WebSocket), /livez, /readyz and /metrics");
    refused(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", Some(&hint))
}

/// An error as the HTTP doors give it.
pub(super) fn refused(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Response {
    (status, Json(json!({"code": code, "message": message, "hint": hint}))).into_response()
}
