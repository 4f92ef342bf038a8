//! The door before there is a feed: the process lives, and can serve nobody yet.

use std::io;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use walcast_protocol::ErrorCode;

use super::entrance::{Entrance, EntranceSettings};
use super::places::later;
use super::{accept, health, listener::Listener};
use crate::limits::Limits;

/// Answers `/livez` with 200 and everything else with 503 `not_ready`, until dropped; then connections are closed
/// after the request that they are at. For the time in which databases cannot be reached, so that nobody takes
/// a waiting daemon for a dead one.
///
/// # Errors
/// When TLS cannot be used as it is set up.
pub async fn serve_unprepared(listeners: &[Listener]) -> io::Result<()> {
    let stop = CancellationToken::new();
    let _stop_when_dropped = stop.clone().drop_guard();
    let router = Router::new().route("/livez", get(health::livez)).fallback(not_ready);
    let (entrance, limits, tasks) =
        (Entrance::new(EntranceSettings::open(), false), Limits::default(), TaskTracker::new());
    let all = listeners
        .iter()
        .map(|listener| accept::run(listener, router.clone(), &limits, &entrance, &tasks, &stop));
    try_join_all(all).await.map(drop)
}

async fn not_ready() -> Response {
    let message = "the daemon is starting, and its feed is not set up yet: it waits for its databases, or for another walcast";
    let hint = "ask again after a few seconds; whoever runs walcast finds in its log what it waits for";
    later(health::refused(StatusCode::SERVICE_UNAVAILABLE, &ErrorCode::NotReady, message, Some(hint)))
}
