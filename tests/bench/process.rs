//! CPU and memory of processes, and what a hypervisor takes, from `/proc` (Linux only; elsewhere they are zero).

use std::fs;
use std::ops::Sub;

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time, in seconds, to 10 ms.
    pub(crate) cpu_seconds: f64,
    /// The most memory it ever had resident, in KiB.
    pub(crate) peak_kib: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { cpu_seconds: self.cpu_seconds - before.cpu_seconds, peak_kib: self.peak_kib }
    }
}

impl Usage {
    /// Of a living process, or of one that has ended and was not waited for (its memory is then gone: 0).
    pub(crate) fn of(pid: u32) -> Option<Self> {
        // Clock ticks are 10 ms on every Linux that Rust runs on.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may have any character.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        let cpu_seconds = (ticks(11)? + ticks(12)?) as f64 / TICKS_PER_SECOND;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak_kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        Some(Self { cpu_seconds, peak_kib })
    }

    /// The later of two looks at one process.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds.max(other.cpu_seconds),
            peak_kib: self.peak_kib.max(other.peak_kib),
        }
    }
}

/// The machine's account of its processors' time, up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    all: f64,
    stolen: f64,
}

impl Machine {
    /// Up to now.
    pub(crate) fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks = stat.lines().next().unwrap_or_default().split_ascii_whitespace().skip(1);
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in them.
        let ticks: Vec<f64> = ticks.take(8).filter_map(|field| field.parse().ok()).collect();
        Self { all: ticks.iter().sum(), stolen: ticks.get(7).copied().unwrap_or(0.0) }
    }

    /// The share of the processors' time since then, from 0 to 1, that the hypervisor gave to others while somebody
    /// here wanted it.
    pub(crate) fn stolen_since(self) -> f64 {
        let now = Self::now();
        if now.all > self.all { (now.stolen - self.stolen) / (now.all - self.all) } else { 0.0 }
    }
}

/// Nanoseconds of the system's clock, the same for all processes.
pub(crate) fn now_nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
