//! Free ports for servers that come and go.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Ports below the range from which Linux (32768+) and macOS (49152+) take the local ports of outgoing connections: a
/// server that is down for a moment finds its port still free.
const FIRST: u64 = 15_000;
const COUNT: u64 = 17_000;

/// A TCP port that nobody listens on at 127.0.0.1 right now, below the range of outgoing connections. Another process
/// may take it before the caller does.
///
/// # Panics
///
/// When a thousand tries found none.
pub fn free_port() -> u16 {
    let random = RandomState::new();
    (0_u64..1000)
        .map(|n| u16::try_from(FIRST + random.hash_one(n) % COUNT).expect("invariant: below 65536"))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("there is a free port on 127.0.0.1")
}
