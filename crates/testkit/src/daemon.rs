//! The real `walcast serve`, as a process.

mod http;
mod output;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use walcast_cluster::{Guardian, free_port};

use crate::{LIMIT, TestDatabase, eventually, program, within};
pub use http::Response;
use output::Output;

/// Describes a daemon to run; made by [`Daemon::builder`] or [`Daemon::of`].
#[derive(Clone, Debug)]
pub struct DaemonBuilder {
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    port: u16,
    /// Where it is asked how it is, when not there.
    admin_port: Option<u16>,
}

impl DaemonBuilder {
    /// Health and metrics are at a listener of their own: for when clients use TLS, or come by another way than TCP.
    #[must_use]
    pub fn admin(mut self) -> Self {
        let port = free_port();
        self.admin_port = Some(port);
        self.flag("--admin-listen", format!("127.0.0.1:{port}"))
    }

    /// Another argument of `walcast serve`.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// A flag with its value; takes the place of the same flag given before.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are written down on the spot")]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        if let Some(at) = self.arguments.iter().position(|argument| argument == name) {
            self.arguments.drain(at..(at + 2).min(self.arguments.len()));
        }
        self.arg(name).arg(value.to_string())
    }

    /// A variable of its environment, which is otherwise the test's without `WALCAST_*` and `PG*`.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are written down on the spot")]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Another program than the `walcast` beside the test.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.program = Some(program.as_ref().to_owned());
        self
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    ///
    /// When the binary is not there or does not start.
    pub fn spawn(self) -> Daemon {
        Daemon::spawn(self)
    }

    /// Starts it and waits until `/readyz` answers 200.
    ///
    /// # Panics
    ///
    /// When it ended or was not ready within [`LIMIT`]; the message has its log.
    pub async fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.until_ready().await;
        daemon
    }
}

/// A running `walcast serve`; killed when dropped, and when the test process ends.
#[derive(Debug)]
pub struct Daemon {
    builder: DaemonBuilder,
    process: Child,
    output: Output,
    guardian: Guardian,
    pid: u32,
    was_killed: bool,
    /// Of the processes so far, the one that runs last.
    lives: Vec<Life>,
}

/// One process of those that follow one another.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// Its first line among those of all.
    first_line: usize,
    /// The one before it was killed.
    after_a_kill: bool,
}

impl Daemon {
    /// A daemon with nothing but `--listen`, on a free port.
    pub fn builder() -> DaemonBuilder {
        let port = free_port();
        DaemonBuilder {
            program: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            port,
            admin_port: None,
        }
        .flag("--listen", format!("127.0.0.1:{port}"))
    }

    /// A daemon for `database`, with slot and publication of the database's own names.
    pub fn of(database: &TestDatabase) -> DaemonBuilder {
        Self::builder()
            .flag("--database-url", database.url())
            // A new slot waits for the open transactions of the whole server, also those of other tests: no warning for that.
            .flag("--slot-lock-timeout", format!("{}s", LIMIT.as_secs()))
            .flag("--slot", database.slot_name())
            .flag("--publication", database.slot_name())
    }

    fn spawn(builder: DaemonBuilder) -> Self {
        let program = builder.program.clone().unwrap_or_else(program);
        let mut command = Command::new(&program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("WALCAST_") || text.starts_with("PG") {
                command.env_remove(&name);
            }
        }
        let mut guardian = Guardian::start(None).unwrap_or_else(|error| panic!("{error}"));
        let mut process = command
            .arg("serve")
            .args(&builder.arguments)
            .envs(builder.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let pid = process.id().expect("invariant: not awaited yet");
        guardian.running(pid);
        let output = Output::capture(process.stdout.take(), process.stderr.take());
        Self { builder, process, output, guardian, pid, was_killed: false, lives: vec![Life::default()] }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The port it listens on, also after a [`restart`](Self::restart).
    pub fn port(&self) -> u16 {
        self.builder.port
    }

    /// URL of the WebSocket door.
    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}/v1/stream", self.port())
    }

    /// Asks for `path` over HTTP; `None` when it does not answer with HTTP.
    pub async fn get(&self, path: &str) -> Option<Response> {
        let port = self.builder.admin_port.unwrap_or(self.builder.port);
        within(path, LIMIT, http::get(port, path)).await
    }

    /// Sum of a metric over its labels, from `/metrics`; `None` when it has no such metric.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        self.get("/metrics").await?.metric(name)
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Panics
    ///
    /// When it ended or was not ready within [`LIMIT`]; the message has its log.
    pub async fn until_ready(&self) {
        let mut last = String::from("no answer");
        let ready = async {
            loop {
                let answer = self.get("/readyz").await;
                // Before the answer counts: whoever has the port instead would give it.
                if self.output.ended() {
                    return false;
                }
                match answer {
                    Some(response) if response.status == 200 => return true,
                    Some(response) => last = format!("{} {}", response.status, response.body),
                    None => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(LIMIT, ready).await {
            Ok(true) => {}
            Ok(false) => panic!("the daemon ended before it was ready; it said:\n{}", self.output.text()),
            Err(_) => panic!("not ready within {LIMIT:?}: /readyz: {last}; its log:\n{}", self.output.text()),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.output.ended()
    }

    /// All lines it has printed, to both streams, over its restarts.
    pub fn log(&self) -> Vec<String> {
        self.output.lines()
    }

    /// Waits for a line that contains `fragment` (one from before the call too) and returns it.
    ///
    /// # Panics
    ///
    /// When there is none within [`LIMIT`]; the message has the log.
    pub async fn until_log(&self, fragment: &str) -> String {
        match tokio::time::timeout(LIMIT, self.output.find(fragment)).await {
            Ok(line) => line,
            Err(_) => panic!("no line with {fragment:?} within {LIMIT:?}; the log:\n{}", self.output.text()),
        }
    }

    /// Checks that no line of level WARN or ERROR was printed but those that contain one of `expected`. What was started
    /// after one that was killed may also find its slot in use: the server needs a moment to notice that the walsender's
    /// client is gone.
    ///
    /// # Panics
    ///
    /// When there is another one.
    pub fn assert_quiet(&self, expected: &[&str]) {
        let lines = self.output.lines();
        let ends = self.lives.iter().skip(1).map(|next| next.first_line).chain([lines.len()]);
        let loud: Vec<String> = self
            .lives
            .iter()
            .zip(ends)
            .flat_map(|(life, end)| {
                let excused = life.after_a_kill.then_some("in use by process");
                let expected: Vec<&str> = expected.iter().copied().chain(excused).collect();
                output::loud(&lines[life.first_line..end], &expected)
            })
            .collect();
        assert!(loud.is_empty(), "the daemon complained:\n{}", loud.join("\n"));
    }

    /// SIGKILL; returns when it is gone.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.was_killed = true;
        self.until_exit().await;
    }

    /// SIGTERM; waits for its end.
    ///
    /// # Panics
    ///
    /// When it has not ended within [`LIMIT`]; the message has its log.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.until_exit().await
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it has not ended within [`LIMIT`]; the message has its log.
    pub async fn until_exit(&mut self) -> ExitStatus {
        match tokio::time::timeout(LIMIT, self.process.wait()).await {
            Ok(Ok(status)) => {
                self.guardian.gone();
                within("the end of the daemon's output", LIMIT, self.output.until_ended()).await;
                status
            }
            Ok(Err(error)) => panic!("waiting for the daemon: {error}"),
            Err(_) => panic!("the daemon did not end within {LIMIT:?}; its log:\n{}", self.output.text()),
        }
    }

    /// Starts it again with the same arguments, after it has ended; waits until it is ready.
    ///
    /// # Panics
    ///
    /// As [`DaemonBuilder::start`].
    pub async fn restart(&mut self) {
        self.restart_without_waiting();
        self.until_ready().await;
    }

    /// Starts it again with the same arguments, after it has ended.
    pub fn restart_without_waiting(&mut self) {
        let (before, mut lives) = (self.output.lines(), std::mem::take(&mut self.lives));
        lives.push(Life { first_line: before.len(), after_a_kill: self.was_killed });
        *self = Self { lives, ..self.builder.clone().spawn() };
        self.output.prepend(before);
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGHUP: keys and certificate are read again.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Sends a signal; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.process.id().is_some()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            let _ended = kill(Pid::from_raw(pid), signal);
        }
    }

    /// The most memory it has had resident so far (`VmHWM`), in bytes; `None` where the system does not say (not Linux).
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Waits until `/metrics` shows `name` (summed over its labels) at `least` or more.
    ///
    /// # Panics
    ///
    /// When it did not within [`LIMIT`].
    pub async fn until_metric(&self, name: &str, least: f64) {
        eventually(&format!("{name} >= {least}"), LIMIT, async || {
            self.metric(name).await.is_some_and(|value| value >= least).then_some(())
        })
        .await;
    }
}

/// Whether a daemon on this port answers `/readyz` with 200.
pub(crate) async fn is_ready(port: u16) -> bool {
    http::get(port, "/readyz").await.is_some_and(|answer| answer.status == 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_given_again_takes_the_place_of_the_first() {
        let builder = Daemon::builder().flag("--slot", "a").flag("--history-url", "h").flag("--slot", "b");
        assert_eq!(builder.arguments[2..], ["--history-url", "h", "--slot", "b"]);
    }
}
