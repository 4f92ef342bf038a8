//! The feed over plain HTTP, for those who cannot hold a WebSocket: pages, server-sent events, rows by key.
//!
//! ```text
//!  request ──Sites: Origin, CORS──► Visit: places, token, user, pace ──┬─► changes ──► a page, or events
//!                                                                      └─► rows
//! ```
//!
//! A page and a stream of events are one subscription each, the same as of a WebSocket: what is here reads a query, and
//! writes what the subscription gives in another form.

mod answer;
mod body;
mod changes;
mod events;
mod lone;
mod packing;
mod page;
mod query;
mod rows;
mod sites;
mod visit;

use axum::routing::{get, post};
use axum::{Router, middleware};

use super::{Door, health};

/// The path of pages and of server-sent events.
pub(super) const CHANGES_PATH: &str = "/v1/changes";

/// The path of rows by key.
pub(super) const ROWS_PATH: &str = "/v1/rows";

pub(super) fn router(door: Door) -> Router<Door> {
    Router::new()
        .route(CHANGES_PATH, get(changes::changes))
        .route(ROWS_PATH, post(rows::rows))
        // Before the layer: pages of other sites may read it, too.
        .method_not_allowed_fallback(health::method_not_allowed)
        .route_layer(middleware::from_fn_with_state(door, sites::check))
}
