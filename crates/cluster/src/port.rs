//! Free ports for servers that come and go.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Ports below the range from which Linux (32768+) and macOS (49152+) take the local ports of outgoing connections: a
/// server that is down for a moment finds its port still free.
const FIRST: u64 = 15_000;
const COUNT: u64 = 17_000;

/// Ports that this process was given.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A TCP port that nobody listens on at 127.0.0.1 right now, below the range of outgoing connections. This process is not
/// given it again: whoever has it may be down for a moment. Another process may take it before the caller does.
///
/// # Panics
///
/// When a thousand tries found none.
pub fn free_port() -> u16 {
    let random = RandomState::new();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0_u64..1000)
        .map(|n| u16::try_from(FIRST + random.hash_one(n) % COUNT).expect("invariant: below 65536"))
        .find(|port| {
            !given.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && given.insert(*port)
        })
        .expect("there is a free port on 127.0.0.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        // So many that two of them would be the same one but for luck.
        let ports: BTreeSet<u16> = (0..1000).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 1000);
    }
}
