//! What an operator sees of the broadcaster.

use std::sync::Once;

use metrics::{Counter, counter};

/// WebSocket connections now (gauge).
pub(crate) const CONNECTIONS: &str = "walcast_connections";
/// Streams of server-sent events now (gauge).
pub(crate) const EVENT_STREAMS: &str = "walcast_event_streams";
/// Pages that are being made, or wait for a transaction (gauge).
pub(crate) const POLLS: &str = "walcast_polls";
/// Requests for the feed over HTTP, by `path` and `status`.
pub(crate) const REQUESTS: &str = "walcast_http_requests_total";
/// Times that a client was faster than a limit lets it: by `limit`, and `effect` = `later` (what it said was read or answered
/// later), `refused`.
pub(crate) const TOO_FAST: &str = "walcast_too_fast_total";
/// Connections refused, by `limit`.
pub(crate) const CONNECTIONS_REFUSED: &str = "walcast_connections_refused_total";
/// Clients that were not let in, or whose token was not taken, by `reason`.
pub(crate) const UNAUTHORIZED: &str = "walcast_unauthorized_total";
/// Times that the certificate could not be read again; the one before stays in use.
pub(crate) const CERTIFICATE_FAILURES: &str = "walcast_tls_certificate_failures_total";
/// Initial syncs that wait for a place (gauge).
pub(crate) const SNAPSHOTS_WAITING: &str = "walcast_snapshots_waiting";
/// Subscriptions now (gauge).
pub(crate) const SUBSCRIPTIONS: &str = "walcast_subscriptions";
/// Distinct shapes among them (gauge).
pub(crate) const SHAPES: &str = "walcast_shapes";
/// Frames given to sockets.
pub(crate) const FRAMES: &str = "walcast_frames_sent_total";
/// Bytes given to sockets.
pub(crate) const BYTES: &str = "walcast_frames_sent_bytes_total";
/// Errors told to clients, by code.
pub(crate) const ERRORS: &str = "walcast_client_errors_total";
/// Parts encoded for a shape.
pub(crate) const ENCODED: &str = "walcast_parts_encoded_total";
/// Parts that were encoded already when a session wanted them.
pub(crate) const SHARED: &str = "walcast_parts_shared_total";
/// Bytes of frames kept encoded (gauge).
pub(crate) const ENCODED_BYTES: &str = "walcast_encoded_bytes";
/// Times that a session had fallen behind the feed and read a page of history.
pub(crate) const FELL_BACK: &str = "walcast_history_pages_served_total";
/// Times that a question to history or to the source failed and was asked again.
pub(crate) const RETRIED: &str = "walcast_session_retries_total";
/// Times that the router was overtaken by the feed and woke everybody.
pub(crate) const OVERTAKEN: &str = "walcast_router_overtaken_total";
/// Times that what is granted did not fit a definition of a table, of which nothing is given then.
pub(crate) const UNFIT: &str = "walcast_policies_unfit_total";

/// Conditions of filters that each change of their table is looked at for (gauge).
pub(crate) const SCANS: &str = "walcast_filter_scans";
/// Subscriptions refused because their user has as many of these as may be.
pub(crate) const SCANS_REFUSED: &str = "walcast_filter_scans_refused_total";

/// Channels that somebody is in (gauge).
pub(crate) const CHANNELS: &str = "walcast_channels";
/// Connections in channels, one for each channel (gauge).
pub(crate) const CHANNEL_MEMBERS: &str = "walcast_channel_members";
/// Messages said in channels, by `from` = `client`, `database`.
pub(crate) const CHANNEL_MESSAGES: &str = "walcast_channel_messages_total";
/// Messages that were dropped for one client, because it had not taken those before.
pub(crate) const CHANNEL_MESSAGES_DROPPED: &str = "walcast_channel_messages_dropped_total";
/// Messages of the database that were said before the initial poll was done, and told to nobody.
pub(crate) const DATABASE_MESSAGES_EARLY: &str = "walcast_channel_messages_before_start_total";
/// What was asked of channels and is over a limit, by `limit`.
pub(crate) const CHANNELS_REFUSED: &str = "walcast_channel_requests_refused_total";

/// Times that a client's cursor was stored.
pub(crate) const ACKS_STORED: &str = "walcast_acks_stored_total";
/// Times that storing clients' cursors failed and was tried again.
pub(crate) const ACK_FAILURES: &str = "walcast_ack_failures_total";
/// Clients that were forgotten because they were not seen for long.
pub(crate) const CLIENTS_EXPIRED: &str = "walcast_clients_expired_total";

/// Describes the metrics to the recorder; once per process.
pub(crate) fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        metrics::describe_gauge!(CONNECTIONS, "WebSocket connections now");
        metrics::describe_gauge!(EVENT_STREAMS, "Streams of server-sent events now");
        metrics::describe_gauge!(POLLS, "Pages that are being made or wait for a transaction");
        metrics::describe_counter!(REQUESTS, "Requests for the feed over HTTP");
        metrics::describe_counter!(TOO_FAST, "Times a client was faster than a limit lets it");
        metrics::describe_counter!(CONNECTIONS_REFUSED, "Connections refused because of a limit");
        metrics::describe_counter!(UNAUTHORIZED, "Clients that were not let in");
        metrics::describe_counter!(CERTIFICATE_FAILURES, "Times the certificate could not be read again");
        metrics::describe_counter!(UNFIT, "Times what is granted did not fit a definition of a table");
        metrics::describe_gauge!(SUBSCRIPTIONS, "Subscriptions now");
        metrics::describe_gauge!(SHAPES, "Distinct shapes of subscriptions now");
        metrics::describe_counter!(FRAMES, "Frames given to sockets");
        metrics::describe_counter!(BYTES, metrics::Unit::Bytes, "Bytes given to sockets");
        metrics::describe_counter!(ERRORS, "Errors told to clients");
        metrics::describe_counter!(ENCODED, "Transaction parts encoded for a shape");
        metrics::describe_counter!(SHARED, "Transaction parts that were encoded already");
        metrics::describe_gauge!(ENCODED_BYTES, metrics::Unit::Bytes, "Frames kept encoded");
        metrics::describe_counter!(FELL_BACK, "History pages served to sessions behind the feed");
        metrics::describe_counter!(RETRIED, "Questions to history or source that were asked again");
        metrics::describe_gauge!(SCANS, "Conditions that each change of their table is looked at for");
        metrics::describe_counter!(SCANS_REFUSED, "Subscriptions refused because of such conditions");
        metrics::describe_gauge!(CHANNELS, "Channels that somebody is in");
        metrics::describe_gauge!(CHANNEL_MEMBERS, "Connections in channels");
        metrics::describe_counter!(CHANNEL_MESSAGES, "Messages said in channels");
        metrics::describe_counter!(CHANNEL_MESSAGES_DROPPED, "Messages dropped for clients that do not read");
        metrics::describe_counter!(DATABASE_MESSAGES_EARLY, "Messages said before the initial poll was done");
        metrics::describe_counter!(CHANNELS_REFUSED, "Requests about channels that were over a limit");
        metrics::describe_counter!(ACKS_STORED, "Cursors stored that clients acknowledged");
        metrics::describe_counter!(ACK_FAILURES, "Times storing clients' cursors was tried again");
        metrics::describe_counter!(CLIENTS_EXPIRED, "Clients forgotten because they were not seen for long");
        metrics::describe_counter!(OVERTAKEN, "Times the feed overtook the router");
    });
}

/// Handles of the counters that are touched for each batch of frames: each connection has them.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) frames: Counter,
    pub(crate) bytes: Counter,
}

impl Sent {
    pub(crate) fn new() -> Self {
        Self { frames: counter!(FRAMES), bytes: counter!(BYTES) }
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent")
    }
}

/// Handles of the counters that are touched for each part.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) encoded: Counter,
    pub(crate) shared: Counter,
}

impl Encoded {
    pub(crate) fn new() -> Self {
        Self { encoded: counter!(ENCODED), shared: counter!(SHARED) }
    }
}

impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoded")
    }
}

/// Counts one in a gauge for as long as it lives.
#[derive(Debug)]
pub(crate) struct InGauge(&'static str);

impl InGauge {
    pub(crate) fn enter(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for InGauge {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
