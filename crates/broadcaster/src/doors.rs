//! Where clients come in: WebSocket, HTTP, health and metrics. The only place that knows sockets.
//!
//! | path | what |
//! | --- | --- |
//! | `GET /v1/stream` | the WebSocket of `docs/protocol.md`, subprotocol `walcast.v1` |
//! | `GET /v1/changes` | pages of transactions, or all of them as server-sent events |
//! | `POST /v1/rows` | rows by key, as they are now |
//! | `GET /livez` | 200 while the process answers |
//! | `GET /readyz` | 200 once the initial poll is done; the body says how gate, source and history are |
//! | `GET /metrics` | Prometheus |
//!
//! ```text
//!  Listener ──accept, TLS──► request ──Origin, address──► upgrade ──► Stranger ──Pass──► Connection
//!                              │                           │            └─ no token in time: 4401
//!                              │                           └► http ──Pass──► page, events, rows
//!                              └─► health, metrics
//! ```
//!
//! One task per connection reads the client's messages, drives its subscriptions in turn and writes what they have: at
//! once when the socket is idle, in batches when it is not.

mod accept;
mod bell;
mod channels;
mod connection;
mod entrance;
mod greeting;
mod health;
mod heartbeat;
mod http;
mod inbound;
mod listener;
mod origin;
mod pace;
mod patience;
mod peer;
mod places;
mod serving;
mod stranger;
mod tally;
mod tls;
mod transport;
mod unprepared;
mod unreadable;
mod upgrade;
mod wire;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get};
use futures_util::future::try_join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use entrance::EntranceSettings;
pub use listener::Listener;
pub use peer::TrustedProxy;
pub use tls::{CertificateError, ServerTls};
pub use unprepared::serve_unprepared;

use crate::broadcaster::Broadcaster;
use entrance::Entrance;
use walcast_protocol::STREAM_PATH;

/// What the handlers of requests share.
#[derive(Clone)]
struct Door {
    broadcaster: Broadcaster,
    entrance: Arc<Entrance>,
    /// Places for WebSocket connections and requests for the feed.
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    prometheus: Option<PrometheusHandle>,
}

/// Serves those whom `entrance` lets in on `listeners` until `shutdown` is cancelled, and follows the feed for them
/// ([`Broadcaster::run`]). Then it accepts nobody more, tells the clients (close code 1001), and returns when they
/// are gone or `Limits::drain_max` is over. `/metrics` answers 404 without `prometheus`.
///
/// # Errors
/// When the task that follows the feed has ended by itself, which it never should; clients are closed first. When TLS
/// cannot be used as it is set up.
pub async fn serve(
    listeners: Vec<Listener>,
    broadcaster: Broadcaster,
    entrance: EntranceSettings,
    prometheus: Option<PrometheusHandle>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let limits = *broadcaster.limits();
    let tasks = TaskTracker::new();
    // A token of its own, so that clients are told to go as well when following the feed fails.
    let stop = shutdown.child_token();
    let mut following = tasks.spawn({
        let (broadcaster, stop) = (broadcaster.clone(), stop.clone());
        async move { broadcaster.run(stop).await }
    });
    let entrance = Arc::new(Entrance::new(entrance, listeners.iter().any(Listener::is_admin)));
    let door = Door {
        broadcaster,
        entrance: Arc::clone(&entrance),
        places: Arc::new(Semaphore::new(limits.connections_max)),
        tasks: tasks.clone(),
        shutdown: stop.clone(),
        prometheus,
    };
    let accepted = try_join_all(listeners.iter().map(|listener| {
        let paths = if listener.is_admin() { for_operators(door.clone()) } else { router(door.clone()) };
        accept::run(listener, paths, &limits, &entrance, &tasks, &stop)
    }));
    let ended = tokio::select! {
        // Dropped when following ends; nothing but an accepted and not yet served connection is lost.
        accepted = accepted => accepted.map(drop),
        _ = &mut following => {
            if shutdown.is_cancelled() {
                Ok(())
            } else {
                Err(io::Error::other(
                    "the task that follows the feed has ended; restart walcast and report this",
                ))
            }
        }
    };
    drop(listeners);
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain_max * 2, tasks.wait()).await.is_err() {
        let left = tasks.len();
        tracing::warn!(left, "clients did not go in time and are cut off");
    }
    ended
}

fn for_operators(door: Door) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(health::method_not_allowed)
        .fallback(health::not_found)
        .with_state(door)
}

fn router(door: Door) -> Router {
    let for_clients =
        Router::new().route(STREAM_PATH, any(upgrade::stream)).merge(http::router(door.clone()));
    for_operators(door.clone()).merge(for_clients.with_state(door))
}

#[cfg(test)]
mod tests;
