//! Which fault comes when: decided by a seed alone.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kind::Fault;

/// A fault in a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What breaks.
    pub fault: Fault,
    /// For so long, where it lasts.
    pub hold: Duration,
    /// Decides what the fault leaves open: which client, how many bytes.
    pub number: u64,
    /// Pause after it.
    pub pause: Duration,
    /// The next one begins before this one is over.
    pub with_next: bool,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} ms, {})", self.fault, self.hold.as_millis(), self.number % 1_000_000)?;
        if self.with_next { f.write_str(" with") } else { Ok(()) }
    }
}

/// An endless sequence of faults.
#[derive(Debug)]
pub struct Schedule {
    random: StdRng,
    faults: Vec<(Fault, u32)>,
    last: Option<Planned>,
    hold_max: Duration,
}

impl Schedule {
    /// The schedule of a seed, of those faults that are `possible`, none held longer than `hold_max`.
    #[must_use]
    pub fn new(seed: u64, hold_max: Duration, possible: impl Fn(Fault) -> bool) -> Self {
        let faults = Fault::all().into_iter().filter(|(fault, _)| possible(*fault)).collect();
        Self { random: StdRng::seed_from_u64(seed), faults, last: None, hold_max }
    }

    fn draw(&mut self) -> Fault {
        let sum: u32 = self.faults.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.random_range(0..sum);
        for (fault, weight) in &self.faults {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *fault,
            }
        }
        Fault::DaemonKilled
    }
}

impl Iterator for Schedule {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let mut fault = self.draw();
        if let Some(before) = self.last.filter(|before| before.with_next) {
            while fault.excludes(before.fault) {
                fault = self.draw();
            }
        }
        // Many short ones and a few long ones.
        let share: f64 = self.random.random_range(0.0..1.0);
        let planned = Planned {
            fault,
            hold: self.hold_max.mul_f64(0.02 + 0.98 * share.powi(3)),
            number: self.random.random(),
            pause: Duration::from_millis(self.random.random_range(0..1500)),
            // Never three at once.
            with_next: self.random.random_bool(0.25) && self.last.is_none_or(|before| !before.with_next),
        };
        self.last = Some(planned);
        Some(planned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_alone_decides_and_two_at_once_never_hit_the_same_thing() {
        let of = |seed| -> Vec<Planned> {
            Schedule::new(seed, Duration::from_secs(5), |_| true).take(3000).collect()
        };
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
        let schedule = of(7);
        for pair in schedule.windows(2) {
            assert!(!(pair[0].with_next && pair[1].fault.excludes(pair[0].fault)), "{} {}", pair[0], pair[1]);
            assert!(!(pair[0].with_next && pair[1].with_next));
        }
        for (fault, _) in Fault::all() {
            assert!(schedule.iter().any(|planned| planned.fault == fault), "{fault} never comes");
        }
    }
}
