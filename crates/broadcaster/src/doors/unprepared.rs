//! The door before there is a feed: the process lives, and can serve nobody yet.

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{accept, health};
use crate::limits::Limits;

/// Answers `/livez` with 200 and everything else with 503 `not_ready`, until dropped; then connections are closed
/// after the request that they are at. For the time in which databases cannot be reached, so that nobody takes
/// a waiting daemon for a dead one.
pub async fn serve_unprepared(listener: &TcpListener) {
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let router = Router::new().route("/livez", get(health::livez)).fallback(not_ready);
    accept::run(listener, router, &Limits::default(), &TaskTracker::new(), &stop).await;
}

async fn not_ready() -> Response {
    let hint = "the daemon's log says what it waits for; try again";
    health::refused(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the feed is not set up yet", Some(hint))
}
