//! What load balancers, probes and Prometheus ask.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use walcast_feed::{BudgetState, Cause, SlotWal, SourceState};
use walcast_protocol::{ErrorCode, STREAM_PATH};

use super::Door;
use super::http::{CHANGES_PATH, ROWS_PATH};
use super::peer::Arrival;

/// `GET /livez`: the process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 once the initial poll is done and until the daemon goes down, else 503. What is wrong without
/// keeping anybody from being served is among the reasons too. Strangers are told whether it is ready, and nothing else.
pub(super) async fn readyz(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Response {
    let broadcaster = &door.broadcaster;
    let (feed, limits) = (broadcaster.feed(), broadcaster.limits());
    let mut reasons = Vec::new();
    let is_open = broadcaster.gate().is_open();
    let is_stopping = door.shutdown.is_cancelled();
    let is_ready = is_open && !is_stopping;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !door.entrance.tells(&arrival, &headers) {
        return (status, Json(json!({"ready": is_ready}))).into_response();
    }
    if !is_open {
        reasons.push(
            "the initial poll is not done: what was committed before the start is still being read"
                .to_owned(),
        );
    }
    if is_stopping {
        reasons.push("the daemon is going down".to_owned());
    }
    let mut outages = feed.outages().now();
    let source = match feed.source().borrow().clone() {
        SourceState::Starting => json!({"state": "starting"}),
        SourceState::Streaming => json!({"state": "streaming"}),
        SourceState::Interrupted { reason: message, hint } => {
            let told = json!({"state": "interrupted", "message": message, "hint": hint});
            outages.insert(0, ("the source is not read", Cause { message, hint }));
            told
        }
    };
    reasons.extend(told(&outages));
    let (stored, head) = (feed.stored(), feed.head());
    let lag_bytes = head.lsn().bytes_since(stored.lsn());
    if lag_bytes >= limits.history_stall_bytes {
        reasons.push(
            "history is far behind the feed: the slot keeps WAL in the source until it catches up".to_owned(),
        );
    }
    let wal = feed.slot_wal();
    reasons.extend(wal.as_ref().and_then(over_budget).map(str::to_owned));
    let body = json!({
        "ready": is_ready,
        "gate": if is_open { "open" } else { "closed" },
        "source": source,
        "feed": {"id": broadcaster.feed_id(), "head": head, "memory_bytes": feed.memory_bytes()},
        "history": {"oldest": broadcaster.oldest(), "stored": stored, "lag_bytes": lag_bytes},
        "wal": wal.map(|wal| json!({
            "retained_bytes": wal.retained_bytes,
            "safe_bytes": wal.safe_bytes,
            "wal_status": wal.status,
            "budget_bytes": wal.budget_bytes,
            "bytes_per_second": wal.bytes_per_second.round(),
            "seconds_left": wal.left.map(|left| left.as_secs()),
        })),
        "reasons": reasons,
    });
    (status, Json(body)).into_response()
}

/// One reason for each cause, with all that it keeps from working: a server that is away is one.
fn told(outages: &[(&'static str, Cause)]) -> Vec<String> {
    // Source and history may be on one server, and are set in two places: then there are two hints.
    let mut causes: Vec<(Vec<&str>, &str, Vec<&str>)> = Vec::new();
    for (effect, Cause { message, hint }) in outages {
        let at = causes.iter().position(|(_, known, _)| known == message).unwrap_or_else(|| {
            causes.push((Vec::new(), message, Vec::new()));
            causes.len() - 1
        });
        let (effects, _, hints) = &mut causes[at];
        effects.push(effect);
        hints.extend(hint.as_deref().filter(|hint| !hints.contains(hint)));
    }
    let reason = |(effects, message, hints): (Vec<&str>, &str, Vec<&str>)| {
        format!("{}: {}", effects.join(", "), [&[message][..], &hints].concat().join("; "))
    };
    causes.into_iter().map(reason).collect()
}

/// What the WAL that the slot keeps is a reason of.
fn over_budget(wal: &SlotWal) -> Option<&'static str> {
    match (wal.budget, wal.status.as_deref()) {
        (BudgetState::GivenUp, _) => Some(
            "the slot was given up because it kept more WAL than wal_budget, and the feed is over; stop walcast first, then \
             run walcast setup --start-over --yes, which starts another",
        ),
        (BudgetState::Exceeded, _) => Some("the slot keeps more of the source's WAL than wal_budget"),
        (BudgetState::Within, Some("unreserved")) => {
            Some("the slot is about to be lost: it keeps more WAL than the source's max_slot_wal_keep_size")
        }
        (BudgetState::Within, _) => None,
    }
}

/// `GET /metrics`: Prometheus's text format.
pub(super) async fn metrics(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Response {
    if !door.entrance.tells(&arrival, &headers) {
        let hint = "ask on the machine itself, or where admin_listen says";
        return refused(
            StatusCode::FORBIDDEN,
            &ErrorCode::Forbidden,
            "metrics are not for everybody",
            Some(hint),
        );
    }
    match &door.prometheus {
        Some(prometheus) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], prometheus.render())
                .into_response()
        }
        None => refused(StatusCode::NOT_FOUND, &ErrorCode::NotFound, "metrics are switched off", None),
    }
}

/// Every other path.
pub(super) async fn not_found() -> Response {
    let hint = format!(
        "there are {STREAM_PATH} (WebSocket), {CHANGES_PATH}, {ROWS_PATH} (POST), /livez, /readyz and /metrics"
    );
    refused(StatusCode::NOT_FOUND, &ErrorCode::NotFound, "there is nothing at this path", Some(&hint))
}

/// A path that is there, asked in a way that is not; the router adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    // A method may be any word of the client.
    let method: String = method.as_str().chars().take(20).collect();
    let message = format!("{} does not take {method}", uri.path());
    let hint = "the header Allow says what it takes";
    refused(StatusCode::METHOD_NOT_ALLOWED, &ErrorCode::BadMessage, &message, Some(hint))
}

/// An error as the HTTP doors give it.
pub(super) fn refused(status: StatusCode, code: &ErrorCode, message: &str, hint: Option<&str>) -> Response {
    (status, Json(json!({"code": code, "message": message, "hint": hint}))).into_response()
}

#[cfg(test)]
mod tests {
    use walcast_feed::Cause;

    use super::told;

    #[test]
    fn a_cause_is_told_once_with_all_that_it_keeps_from_working() {
        let cause = |message: &str, hint: Option<&str>| Cause {
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        };
        let away = cause("cannot reach it", Some("start it"));
        let elsewhere = cause("cannot reach it", Some("correct it"));
        let outages = [
            ("a is not read", away.clone()),
            ("b is not written", cause("full", None)),
            ("no c", away),
            ("d is not written", elsewhere),
        ];
        assert_eq!(
            told(&outages),
            [
                "a is not read, no c, d is not written: cannot reach it; start it; correct it",
                "b is not written: full"
            ]
        );
        assert_eq!(told(&[]), [] as [&str; 0]);
    }
}
