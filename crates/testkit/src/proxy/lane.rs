//! One direction of a proxy: its faults and its count of bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// What happens to bytes that go one way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) blackhole: bool,
    pub(super) delay: Duration,
    pub(super) bytes_per_second: Option<u32>,
    pub(super) slice: Option<(usize, Duration)>,
    /// What to do once `passed` has reached this.
    trap: Option<(u64, Trap)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trap {
    Cut,
    Blackhole,
}

/// Shared by the connections of a proxy and the test that sets the faults.
#[derive(Debug, Default)]
pub(super) struct Lane {
    state: watch::Sender<State>,
    /// What each connection has sent into the blackhole.
    held: watch::Sender<HashMap<u64, Vec<u8>>>,
    connections: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    faults: Faults,
    /// Bytes that pumps were allowed to pass on.
    passed: u64,
}

/// What a pump may do next.
pub(super) enum Grant {
    /// Pass on this many bytes (at least one).
    Pass(usize),
    /// End the connection by a reset.
    Cut,
}

impl Lane {
    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.state.send_modify(|state| change(&mut state.faults));
    }

    pub(super) fn heal(&self) {
        self.change(|faults| *faults = Faults::default());
        self.held.send_replace(HashMap::new());
    }

    /// A number for one more connection.
    pub(super) fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Bytes have come from a connection: they are remembered while nothing may pass.
    pub(super) fn came(&self, connection: u64, bytes: &[u8]) {
        if self.state.borrow().faults.blackhole {
            self.held.send_modify(|held| held.entry(connection).or_default().extend_from_slice(bytes));
        }
    }

    pub(super) async fn until_held(&self, is_it: impl Fn(&[u8]) -> bool) {
        let mut watching = self.held.subscribe();
        // The sender is `self.held`: it cannot have gone.
        let _held = watching.wait_for(|held| held.values().any(|bytes| is_it(bytes))).await;
    }

    pub(super) fn set_trap(&self, bytes: u64, trap: Trap) {
        self.state.send_modify(|state| {
            state.faults.trap = Some((state.passed + bytes, trap));
            state.spring_trap_of_blackhole();
        });
    }

    pub(super) fn faults(&self) -> Faults {
        self.state.borrow().faults
    }

    pub(super) fn passed(&self) -> u64 {
        self.state.borrow().passed
    }

    pub(super) async fn until_passed(&self, bytes: u64) {
        let mut watching = self.state.subscribe();
        let _state = watching.wait_for(|state| state.passed >= bytes).await;
    }

    /// Waits while nothing may pass, then counts up to `wanted` bytes as passed.
    pub(super) async fn grant(&self, wanted: usize) -> Grant {
        let mut watching = self.state.subscribe();
        loop {
            let mut grant = None;
            self.state.send_if_modified(|state| {
                grant = state.grant(wanted);
                grant.is_some()
            });
            if let Some(grant) = grant {
                return grant;
            }
            // The sender is `self.state`: it cannot have gone.
            let _state = watching.wait_for(|state| !state.faults.blackhole).await;
        }
    }

    /// Waits while nothing may pass: the end of a stream is held back as well.
    pub(super) async fn until_open(&self) {
        let mut watching = self.state.subscribe();
        let _state = watching.wait_for(|state| !state.faults.blackhole).await;
    }
}

impl State {
    fn grant(&mut self, wanted: usize) -> Option<Grant> {
        if self.faults.blackhole {
            return None;
        }
        let slice = self.faults.slice.map_or(usize::MAX, |(bytes, _)| bytes);
        // Twenty times a second, so that a throttled stream flows instead of coming in gulps.
        let tick = self.faults.bytes_per_second.map_or(usize::MAX, |rate| (rate as usize / 20).max(1));
        let left = self.faults.trap.map_or(u64::MAX, |(at, _)| at - self.passed);
        if left == 0 {
            self.faults.trap = None;
            return Some(Grant::Cut);
        }
        let bytes = wanted.min(slice).min(tick).min(usize::try_from(left).unwrap_or(usize::MAX));
        self.passed += bytes as u64;
        self.spring_trap_of_blackhole();
        Some(Grant::Pass(bytes))
    }

    fn spring_trap_of_blackhole(&mut self) {
        if self.faults.trap == Some((self.passed, Trap::Blackhole)) {
            self.faults.trap = None;
            self.faults.blackhole = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(lane: &Lane, wanted: usize) -> Option<usize> {
        match lane.grant(wanted).await {
            Grant::Pass(bytes) => Some(bytes),
            Grant::Cut => None,
        }
    }

    #[tokio::test]
    async fn a_cut_comes_after_exactly_the_given_bytes_and_once() {
        let lane = Lane::default();
        assert_eq!(pass(&lane, 100).await, Some(100));
        lane.set_trap(7, Trap::Cut);
        assert_eq!(pass(&lane, 5).await, Some(5));
        assert_eq!(pass(&lane, 5).await, Some(2));
        assert_eq!(pass(&lane, 5).await, None);
        assert_eq!(pass(&lane, 5).await, Some(5));
        assert_eq!(lane.passed(), 112);
    }

    #[tokio::test]
    async fn a_blackhole_lets_nothing_pass_until_it_is_healed() {
        let lane = Lane::default();
        lane.set_trap(3, Trap::Blackhole);
        assert_eq!(pass(&lane, 10).await, Some(3));
        let waiting = pass(&lane, 10);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        lane.heal();
        assert_eq!(waiting.await, Some(10));
    }

    #[tokio::test]
    async fn what_came_into_a_blackhole_is_known_by_connection_until_it_is_healed() {
        let lane = Lane::default();
        let (one, other) = (lane.connection(), lane.connection());
        lane.came(one, b"before");
        lane.change(|faults| faults.blackhole = true);
        lane.came(one, b"ab");
        let held = lane.until_held(|bytes| bytes == b"abcd");
        tokio::pin!(held);
        lane.came(other, b"cd");
        assert!(futures_util::poll!(&mut held).is_pending());
        lane.came(one, b"cd");
        held.await;
        lane.heal();
        assert!(futures_util::poll!(std::pin::pin!(lane.until_held(|_| true))).is_pending());
    }

    #[tokio::test]
    async fn slices_and_throttles_bound_what_passes_at_once() {
        let lane = Lane::default();
        lane.change(|faults| faults.slice = Some((1, Duration::ZERO)));
        assert_eq!(pass(&lane, 10).await, Some(1));
        lane.heal();
        lane.change(|faults| faults.bytes_per_second = Some(2000));
        assert_eq!(pass(&lane, 1000).await, Some(100));
    }
}
