//! Signals to a server and its children.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a state that the system cannot announce is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// Sends `signal`; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone_already = kill(Pid::from_raw(pid), signal);
    }
}

/// The direct children of `pid`. Every Postgres backend is a child of the postmaster, and each in a session of its own,
/// so that a signal to the process group would not reach them.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    processes().into_iter().filter(|process| process.parent == pid).map(|process| process.pid).collect()
}

/// Waits until none of `pids` runs; a zombie that nobody has reaped counts as gone.
pub(crate) fn wait_gone(pids: &[u32], limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let alive = processes().iter().any(|process| pids.contains(&process.pid));
        if !alive || Instant::now() > deadline {
            return !alive;
        }
        std::thread::sleep(POLL);
    }
}

struct Process {
    pid: u32,
    parent: u32,
}

/// All processes but zombies.
fn processes() -> Vec<Process> {
    match fs::read_dir("/proc/self").and_then(|_| fs::read_dir("/proc")) {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                // `pid (command) state ppid …`; the command may hold spaces and parentheses.
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
                let state = fields.next()?;
                let parent = fields.next()?.parse().ok()?;
                (state != "Z").then_some(Process { pid, parent })
            })
            .collect(),
        Err(_) => {
            let listing = Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output();
            let text = listing
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default();
            text.lines()
                .filter_map(|line| {
                    let mut fields = line.split_ascii_whitespace();
                    let pid = fields.next()?.parse().ok()?;
                    let parent = fields.next()?.parse().ok()?;
                    (!fields.next()?.starts_with('Z')).then_some(Process { pid, parent })
                })
                .collect()
        }
    }
}
