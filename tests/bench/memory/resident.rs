//! The memory of a process, from `/proc` (Linux only).

use std::time::Instant;

use walcast_testkit::Daemon;

use crate::Outcome;

/// One line of the table.
pub(crate) struct Measured {
    pub(crate) what: String,
    pub(crate) bound: &'static str,
    pub(crate) peak: u64,
    pub(crate) seconds: f64,
}

/// From now on: the peak before does not count.
pub(crate) struct Watch<'a> {
    daemon: &'a Daemon,
    began: Instant,
}

impl<'a> Watch<'a> {
    pub(crate) fn start(daemon: &'a Daemon) -> Outcome<Self> {
        // 5: the peak is what is resident now.
        std::fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5")?;
        Ok(Self { daemon, began: Instant::now() })
    }

    pub(crate) fn end(self, what: impl Into<String>, bound: &'static str) -> Outcome<Measured> {
        let peak = self.daemon.peak_memory_bytes().ok_or("no VmHWM: this needs Linux")?;
        Ok(Measured { what: what.into(), bound, peak, seconds: self.began.elapsed().as_secs_f64() })
    }
}
