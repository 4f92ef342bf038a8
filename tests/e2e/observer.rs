//! The oracle's client, one message at a time: see `walcast_testkit::oracle`.

pub(crate) use walcast_testkit::oracle::{Observer, Socket, close_code, open, receive, send, wal_position};
