//! Every bound of the broadcaster, in one place.

use std::time::Duration;

/// What clients may use, and what is kept for them. Nothing is dropped silently when a limit is met: each says
/// what happens instead.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `connections_max`: clients at the same time: WebSocket connections, and requests over HTTP for the feed until their
    /// answer was taken. A further one is answered 503 with `limit_exceeded`.
    pub connections_max: usize,
    /// `connections_per_address_max`: of these, for one address, of IPv6 for one /64 network; a further one is
    /// answered 429 with `limit_exceeded`. As many other connections may be there beside them; further ones are closed.
    pub connections_per_address_max: usize,
    /// `connections_per_user_max`: of these, of one subject. A further WebSocket gets a fatal `limit_exceeded` and ends with
    /// 1008, a further request is answered 429.
    pub connections_per_user_max: usize,
    /// `auth_max`: how long a client that came without a token may take to send one. It then gets a fatal `unauthorized`
    /// and ends with 4401.
    pub auth_max: Duration,
    /// `idle_max`: how long a connection may have no subscription and be in no channel. It then ends with 1001.
    pub idle_max: Duration,
    /// `messages_per_second_max`: messages of one connection in a second, four times as many at once. What is faster is read
    /// later.
    pub messages_per_second_max: usize,
    /// `subscribes_per_second_max`: of these, subscriptions; `subscriptions_max` at once. Whoever is faster is read later.
    pub subscribes_per_second_max: usize,
    /// `channels_max`: channels that somebody is in, in all. A join that would make a further one is answered
    /// `limit_exceeded`.
    pub channels_max: usize,
    /// `channels_per_connection_max`: channels that one connection is in. A further one is answered `limit_exceeded`.
    pub channels_per_connection_max: usize,
    /// `channel_members_max`: connections in one channel. A further one is answered `limit_exceeded`.
    pub channel_members_max: usize,
    /// `channel_name_bytes_max`: a channel's name, in bytes. A longer one is answered `limit_exceeded`.
    pub channel_name_bytes_max: usize,
    /// `payload_bytes_max`: the payload of a message in a channel, in bytes. A larger one is answered `limit_exceeded`, and
    /// not told when it is of the database.
    pub payload_bytes_max: usize,
    /// `state_bytes_max`: what a client has the others in a channel told of it, in bytes. More is answered `limit_exceeded`.
    pub state_bytes_max: usize,
    /// `publishes_per_second_max`: messages and states that one connection publishes in a second, four times as many at once.
    /// What is faster is answered `limit_exceeded`.
    pub publishes_per_second_max: usize,
    /// `fan_out_bytes_per_second_max`: bytes of messages and states that one user has others told in channels in a second, or
    /// one connection of which nobody knows whose it is: each counts once for everybody who is told. Four times as much at
    /// once, and more by one. What is faster is answered `limit_exceeded`.
    pub fan_out_bytes_per_second_max: usize,
    /// `presence_interval`: it is told at most this often who came to a channel and went. Who did both meanwhile is not.
    pub presence_interval: Duration,
    /// `presence_silence_max`: how long a client that is shown in a channel may say nothing, not even answer a ping, which
    /// comes with each heartbeat. It is shown no more then, until it says something.
    pub presence_silence_max: Duration,
    /// `channel_queue_bytes_max`: what channels have for one connection that it has not taken, in bytes, beside the message
    /// that reaches the limit. Further messages are dropped for it, counted, and told when it has taken what there was.
    pub channel_queue_bytes_max: usize,
    /// `channel_batch_bytes_max`: bytes that may be on their way to a client for something of a channel to be sent behind
    /// them, so that a transaction never waits for more.
    pub channel_batch_bytes_max: usize,
    /// `requests_per_second_max`: requests of one user for the feed in a second, or of one connection where nobody knows whose
    /// it is; four times as many at once. What is faster is answered later, or with 429 where that would be seconds.
    pub requests_per_second_max: usize,
    /// `poll_wait_max`: how long a page may wait for its first transaction; `wait` asks for less.
    pub poll_wait_max: Duration,
    /// `poll_answer_max`: how long a page may take to have everything that was committed before it was asked for. It is then
    /// sent as it is, with `more`; or 503, when it has not begun.
    pub poll_answer_max: Duration,
    /// `poll_transactions_max`: transactions in a page; `limit` asks for fewer.
    pub poll_transactions_max: usize,
    /// `poll_bytes_max`: JSON in a page, in bytes, more by at most one part of a transaction. A transaction that does not fit
    /// is begun by the next page.
    pub poll_bytes_max: usize,
    /// `answer_stall_max`: how long a client may take for 64 KiB of an answer over HTTP that is whole, or for what is left of
    /// it. Its connection then ends. (Streams are made as they are read, and waited for.)
    pub answer_stall_max: Duration,
    /// `untaken_bytes_max`: bytes of pages and rows that one user has asked for and not taken yet, or one address where nobody
    /// knows whose they are. What would be more is answered 429 with `limit_exceeded`.
    pub untaken_bytes_max: usize,
    /// `rows_keys_max`: keys in one request for rows. More are answered `limit_exceeded`.
    pub rows_keys_max: usize,
    /// `rows_max`: such requests that are looked up at the same time. Further ones wait, and everybody is served in turn.
    pub rows_max: usize,
    /// `rows_per_user_max`: of these, of one subject, or of one request that has none. Further ones wait.
    pub rows_per_user_max: usize,
    /// `rows_answer_max`: how long such a request may take, the waiting for its turn with it. It is then answered 503.
    pub rows_answer_max: Duration,
    /// `snapshots_max`: initial syncs at the same time. Further ones wait, and everybody is served in turn.
    pub snapshots_max: usize,
    /// `snapshots_per_user_max`: of these, of one subject, or of one connection that has none. Further ones wait.
    pub snapshots_per_user_max: usize,
    /// `subscriptions_max`: subscriptions of one connection. A further one is answered `limit_exceeded`.
    pub subscriptions_max: usize,
    /// `tables_max`: entries of `tables` in one subscription. More are answered `limit_exceeded`.
    pub tables_max: usize,
    /// `scans_per_user_max`: conditions in filters of one user, or of one connection of which nobody knows whose it is, that
    /// each change of their table has to be looked at for: filters that no index finds, and paths into a column. Equal ones
    /// count once. A subscription that would make more is answered `limit_exceeded`.
    pub scans_per_user_max: usize,
    /// `message_bytes_max`: a message from a client, in bytes. A longer one ends the connection with 1009.
    pub message_bytes_max: usize,
    /// `bad_messages_max`: messages in a row that cannot be understood or are refused. The connection then ends
    /// with 1008.
    pub bad_messages_max: u32,
    /// `handshake_max`: time from the connection to the end of the request's headers, and again to the end of the
    /// upgrade. The connection then ends.
    pub handshake_max: Duration,
    /// `heartbeat`: time between heartbeats.
    pub heartbeat: Duration,
    /// `drain_max`: how long clients may take to receive what is being written and the close frame, when the
    /// daemon goes down or has closed their connection. Then the socket is closed under them.
    pub drain_max: Duration,
    /// `ack_interval`: what a client acknowledges is stored at most this often.
    pub ack_interval: Duration,
    /// `batch_bytes_max`: bytes of frames that are taken for one client before they are written, beside the frame
    /// that reaches the limit. Held while the client does not read; nothing else is queued for it.
    pub batch_bytes_max: usize,
    /// `read_bytes_max`: JSON taken from the feed at once by a session that catches up in memory, in bytes. Held
    /// while its client does not read, at most until the second heartbeat from then.
    pub read_bytes_max: usize,
    /// `page_bytes_max`: a page of history, in bytes. Held as long as what `read_bytes_max` says.
    pub page_bytes_max: usize,
    /// `page_changes_max`: changes in a page of history.
    pub page_changes_max: usize,
    /// `fold_bytes_max`: memory for the net effect of transactions that is made for a client that asked for the latest
    /// rows, in bytes; the rest goes into further ones.
    pub fold_bytes_max: usize,
    /// `folds_max`: such net effects in memory at the same time; clients beyond that wait for one another.
    pub folds_max: usize,
    /// `shape_hits_max`: parts that a shape remembers it is concerned by (48 bytes each), for each of its sessions up to 64.
    /// Sessions that are further behind look through the feed themselves.
    pub shape_hits_max: usize,
    /// `encoded_bytes_max`: frames kept encoded for several sessions, in bytes over all shapes. The oldest are
    /// forgotten first, and encoded again for whoever still wants them.
    pub encoded_bytes_max: usize,
    /// `history_stall_bytes`: WAL between what history has and the head from which on `/readyz` says so.
    pub history_stall_bytes: u64,
    /// `tcp_keepalive`: silence after which the kernel asks whether a client is still there, three times, 10 s
    /// apart.
    pub tcp_keepalive: Duration,
    /// `tcp_user_timeout`: how long data may stay unacknowledged before the kernel gives the connection up. `None`
    /// leaves it to the kernel (about 15 minutes). Linux counts a closed receive window too, so any value here
    /// drops clients that stop reading for so long; without one they are waited for.
    pub tcp_user_timeout: Option<Duration>,
    /// `tcp_unsent_bytes_max`: bytes that the kernel takes for a client before what it has is sent, so that a slow
    /// reader shows here and not in kernel memory.
    pub tcp_unsent_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 1000,
            connections_per_user_max: 100,
            auth_max: Duration::from_secs(10),
            idle_max: Duration::from_secs(600),
            messages_per_second_max: 50,
            subscribes_per_second_max: 10,
            channels_max: 10_000,
            channels_per_connection_max: 32,
            channel_members_max: 1000,
            channel_name_bytes_max: 128,
            payload_bytes_max: 32 << 10,
            state_bytes_max: 1 << 10,
            publishes_per_second_max: 25,
            fan_out_bytes_per_second_max: 16 << 20,
            presence_interval: Duration::from_millis(100),
            presence_silence_max: Duration::from_secs(45),
            channel_queue_bytes_max: 256 << 10,
            channel_batch_bytes_max: 16 << 10,
            requests_per_second_max: 50,
            poll_wait_max: Duration::from_secs(60),
            poll_answer_max: Duration::from_secs(5),
            poll_transactions_max: 1000,
            poll_bytes_max: 1 << 20,
            answer_stall_max: Duration::from_secs(120),
            untaken_bytes_max: 64 << 20,
            rows_keys_max: 1000,
            rows_max: 4,
            rows_per_user_max: 2,
            rows_answer_max: Duration::from_secs(10),
            snapshots_max: 4,
            snapshots_per_user_max: 2,
            subscriptions_max: 64,
            tables_max: 256,
            scans_per_user_max: 32,
            message_bytes_max: 64 << 10,
            bad_messages_max: 100,
            handshake_max: Duration::from_secs(10),
            heartbeat: Duration::from_secs(15),
            drain_max: Duration::from_secs(5),
            ack_interval: Duration::from_secs(1),
            batch_bytes_max: 64 << 10,
            read_bytes_max: 64 << 10,
            page_bytes_max: 512 << 10,
            page_changes_max: 10_000,
            fold_bytes_max: 8 << 20,
            folds_max: 4,
            shape_hits_max: 1024,
            encoded_bytes_max: 64 << 20,
            history_stall_bytes: 256 << 20,
            tcp_keepalive: Duration::from_secs(30),
            tcp_user_timeout: None,
            tcp_unsent_bytes_max: 64 << 10,
        }
    }
}
