//! What happens, in which order: drawn from a seed, played, and made shorter when it fails.

use std::fmt;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::daemon::Sizes;
use crate::limits::Limits;

/// Who takes the next step, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    // Applications.
    Begin,
    Write,
    Define,
    Commit,
    Abort,
    Appear,
    Idle,
    // The connection to the source.
    Receive,
    Keepalive,
    Acknowledge,
    Cut,
    // The daemon.
    Route,
    Kill,
    // History.
    Append,
    Settle,
    Land,
    Away,
    DropOldest,
    // A client.
    Subscribe,
    Take,
    Answer,
    Sync,
    Barrier,
    Heartbeat,
    LetGo,
    Leave,
}

/// Every kind, with how often it is drawn beside the others.
const KINDS: [(Kind, u32); 26] = [
    (Kind::Begin, 16),
    (Kind::Write, 50),
    (Kind::Define, 10),
    (Kind::Commit, 24),
    (Kind::Abort, 1),
    (Kind::Appear, 30),
    (Kind::Idle, 4),
    (Kind::Receive, 40),
    (Kind::Keepalive, 5),
    (Kind::Acknowledge, 8),
    (Kind::Cut, 2),
    (Kind::Route, 25),
    (Kind::Kill, 1),
    (Kind::Append, 25),
    (Kind::Settle, 25),
    (Kind::Land, 4),
    (Kind::Away, 2),
    (Kind::DropOldest, 1),
    (Kind::Subscribe, 14),
    (Kind::Take, 60),
    (Kind::Answer, 40),
    (Kind::Sync, 40),
    (Kind::Barrier, 15),
    (Kind::Heartbeat, 8),
    (Kind::LetGo, 4),
    (Kind::Leave, 6),
];

impl Kind {
    /// Whether nothing goes on without it.
    const fn is_needed(self) -> bool {
        use Kind::{
            Abort, Away, Cut, Define, DropOldest, Heartbeat, Idle, Keepalive, Kill, Land, Leave, LetGo,
        };
        !matches!(
            self,
            Abort
                | Away
                | Cut
                | Define
                | DropOldest
                | Heartbeat
                | Idle
                | Keepalive
                | Kill
                | Land
                | Leave
                | LetGo
        )
    }
}

/// By how much a kind is more frequent, in one run.
const TEMPERS: [u32; 6] = [0, 1, 2, 3, 6, 8];

/// One step. What the numbers mean is for whoever takes it; one that cannot be taken is passed over, so that a schedule
/// stays one when steps are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Action {
    pub(super) kind: Kind,
    pub(super) a: u32,
    pub(super) b: u32,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {})", self.kind, self.a, self.b)
    }
}

/// The sizes and steps of one run.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) sizes: Sizes,
    pub(super) clients: usize,
    pub(super) actions: Vec<Action>,
}

impl Schedule {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pick = |sizes: &[usize]| sizes[random.random_range(0..sizes.len())];
        let limits = Limits {
            shape_hits_max: pick(&[1, 2, 5, 1000]),
            read_bytes_max: pick(&[1, 200, 64 << 10]),
            encoded_bytes_max: pick(&[0, 1500, 64 << 20]),
            ..Limits::default()
        };
        let sizes = Sizes {
            // From one part to everything.
            feed_bytes: pick(&[1, 800, 2500, 1 << 20]),
            part_bytes: pick(&[1, 150, 1 << 20]),
            append_bytes: pick(&[1, 300, 8 << 20]),
            route_bytes: pick(&[1, 1 << 20]),
            limits,
        };
        // Every run has its own temper: what is frequent in one is rare in another.
        let weights = KINDS.iter().map(|(kind, weight)| {
            let tempers = if kind.is_needed() { &TEMPERS[2..] } else { &TEMPERS };
            weight * tempers[random.random_range(0..tempers.len())]
        });
        let weights: Vec<u32> = weights.collect();
        let sum = weights.iter().sum::<u32>().max(1);
        let length = random.random_range(50..900);
        let draw = |random: &mut StdRng| {
            let mut left = random.random_range(0..sum);
            let place = weights.iter().position(|weight| match left.checked_sub(*weight) {
                Some(rest) => {
                    left = rest;
                    false
                }
                None => true,
            });
            let kind = place.map_or(Kind::Take, |place| KINDS[place].0);
            Action { kind, a: random.random_range(0..10_000), b: random.random_range(0..10_000) }
        };
        let actions = (0..length).map(|_| draw(&mut random)).collect();
        Self { sizes, clients: random.random_range(1..=4), actions }
    }

    /// Leaves out what the failure does not need: whole runs of steps first, then single ones.
    pub(super) fn shrink(mut self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut size = self.actions.len().div_ceil(2);
        loop {
            let mut from = 0;
            let mut shorter = false;
            while from < self.actions.len() {
                let mut candidate = self.clone();
                candidate.actions.drain(from..(from + size).min(self.actions.len()));
                if fails(&candidate) {
                    self = candidate;
                    shorter = true;
                } else {
                    from += size;
                }
            }
            if size == 1 && !shorter {
                return self;
            }
            if !shorter {
                size = size.div_ceil(2);
            }
        }
    }
}
