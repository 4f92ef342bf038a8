//! The server process, its directory and its signals; blocking.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::{self, Account};
use crate::builder::{ClusterBuilder, Origin};
use crate::data_directory::{self, Configuration};
use crate::process::{self, POLL};
use crate::{Error, Guardian, Installation, port};

/// Limits of platforms for the path of a Unix socket begin at 104 bytes, with the end mark.
const SOCKET_PATH_BYTES_MAX: usize = 100;
/// How many ports are tried when somebody else takes the one that was free.
const PORT_TRIES: usize = 5;
/// How much of the log an error shows.
const LOG_TAIL_LINES: usize = 20;
/// How long a server may take to stop when it is thrown away, before it is killed.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// How long killed processes may take to vanish.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// How a server is asked to stop; what `pg_ctl stop --mode` calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Waits until all clients have hung up (SIGTERM).
    Smart,
    /// Ends sessions, writes a checkpoint, and waits until walsenders have sent everything (SIGINT).
    Fast,
    /// Ends at once, as in a crash: the next start recovers (SIGQUIT).
    Immediate,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::SIGTERM,
            Self::Fast => Signal::SIGINT,
            Self::Immediate => Signal::SIGQUIT,
        }
    }
}

/// Stops the process and removes the directory on drop.
#[derive(Debug)]
pub(crate) struct Server {
    installation: Installation,
    account: Option<Account>,
    directory: PathBuf,
    port: u16,
    settings: BTreeMap<String, String>,
    start_limit: Duration,
    postmaster: Option<Child>,
    guardian: Guardian,
}

impl Server {
    pub(crate) fn create(builder: &ClusterBuilder) -> Result<Self, Error> {
        let account = Account::needed()?;
        let directory = make_directory(account)?;
        let guardian = Guardian::start(Some(&directory)).inspect_err(|_| {
            let _removed = fs::remove_dir_all(&directory);
        })?;
        let mut server = Self {
            installation: builder.installation.clone(),
            account,
            directory,
            port: 0,
            settings: builder.settings.clone(),
            start_limit: builder.start_limit,
            postmaster: None,
            guardian,
        };
        let data = server.data();
        let standby = match &builder.origin {
            Origin::Initdb { reuse } => {
                let arguments = &builder.initdb_arguments;
                data_directory::initialise(&server.installation, account, &data, arguments, *reuse)?;
                false
            }
            Origin::Copy { of, standby } => {
                if of.join("postmaster.pid").exists() {
                    return Err(Error::WrongState(
                        "the server to copy must be stopped, and not killed, before",
                    ));
                }
                data_directory::copy(of, &data, account)?;
                *standby
            }
        };
        let (hba, tls) = (builder.hba.as_slice(), builder.tls.as_ref());
        let configuration = Configuration { settings: &server.settings, hba, tls, standby };
        data_directory::configure(&data, account, &configuration)?;
        server.start_on_some_port()?;
        Ok(server)
    }

    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn start_on_some_port(&mut self) -> Result<(), Error> {
        for attempt in 1.. {
            self.port = port::free_port();
            match self.start() {
                Err(Error::Start { log, .. })
                    if log.contains("could not create any TCP/IP sockets") && attempt < PORT_TRIES =>
                {
                    tracing::debug!(port = self.port, "somebody else took the port");
                }
                result => return result,
            }
        }
        Ok(())
    }

    pub(crate) fn start(&mut self) -> Result<(), Error> {
        if self.postmaster.is_some() {
            return Err(Error::WrongState("the server is running already"));
        }
        let log_path = self.directory.join("log");
        let log = open_log(&log_path, self.account)?;
        let log_copy = log.try_clone().map_err(Error::io("opening the server's log"))?;
        let program = self.installation.bin_dir().join("postgres");
        let socket_directory = format!("unix_socket_directories={}", self.directory.display());
        let postmaster = account::command(&program, &self.directory, self.account)
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", &socket_directory])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_copy)
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {}", program.display())))?;
        self.guardian.running(postmaster.id());
        self.postmaster = Some(postmaster);
        let outcome = self.wait_ready();
        if outcome.is_err() {
            self.end();
        }
        outcome
    }

    /// Waits for what `pg_ctl start` waits for: the status line that the postmaster writes into its pid file.
    fn wait_ready(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.start_limit;
        while let Some(postmaster) = &mut self.postmaster {
            let ended = postmaster.try_wait().map_err(Error::io("waiting for the server"))?;
            if ended.is_some() {
                self.postmaster = None;
                self.guardian.gone();
                return Err(Error::Start { version: self.version(), log: self.log_tail() });
            }
            let pid = postmaster.id().to_string();
            let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = file.lines();
            let ours = lines.next() == Some(&pid);
            if ours && lines.nth(6).is_some_and(|status| matches!(status.trim(), "ready" | "standby")) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timed_out("accept connections", self.start_limit));
            }
            std::thread::sleep(POLL);
        }
        Err(DOWN)
    }

    pub(crate) fn stop(&mut self, mode: StopMode, limit: Duration) -> Result<(), Error> {
        process::signal(self.pid().ok_or(DOWN)?, mode.signal());
        if self.wait_ended(limit)? { Ok(()) } else { Err(self.timed_out("stop", limit)) }
    }

    fn wait_ended(&mut self, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + limit;
        while let Some(postmaster) = &mut self.postmaster {
            if postmaster.try_wait().map_err(Error::io("waiting for the server"))?.is_some() {
                self.postmaster = None;
                self.guardian.gone();
                break;
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
        Ok(true)
    }

    pub(crate) fn kill9(&mut self) -> Result<(), Error> {
        let pid = self.pid().ok_or(DOWN)?;
        // Stopped first, so that it starts no child between the listing and its end.
        process::signal(pid, Signal::SIGSTOP);
        let children = process::children(pid);
        for victim in std::iter::once(&pid).chain(&children) {
            process::signal(*victim, Signal::SIGKILL);
        }
        let ended = self.wait_ended(KILL_LIMIT)?;
        // A start while a child lives would be refused: the shared memory is still in use.
        if ended && process::wait_gone(&children, KILL_LIMIT) {
            Ok(())
        } else {
            Err(self.timed_out("end after SIGKILL", KILL_LIMIT))
        }
    }

    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        let pid = self.pid().ok_or(DOWN)?;
        process::signal(pid, Signal::SIGSTOP);
        for child in process::children(pid) {
            process::signal(child, Signal::SIGSTOP);
        }
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<(), Error> {
        let pid = self.pid().ok_or(DOWN)?;
        for child in process::children(pid) {
            process::signal(child, Signal::SIGCONT);
        }
        process::signal(pid, Signal::SIGCONT);
        Ok(())
    }

    pub(crate) fn configure(&mut self, settings: &[(&str, &str)]) -> Result<(), Error> {
        for (name, value) in settings {
            self.settings.insert((*name).to_owned(), (*value).to_owned());
        }
        data_directory::write_settings(&self.data(), self.account, &self.settings)
    }

    fn version(&self) -> String {
        self.installation.version().to_string()
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> Error {
        Error::TimedOut { version: self.version(), what, limit, log: self.log_tail() }
    }

    fn log_tail(&self) -> String {
        let text = fs::read(self.directory.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// Ends the process as gently as is quick; an immediate stop gives shared memory back, a kill does not.
    fn end(&mut self) {
        if self.postmaster.is_none() {
            return;
        }
        let _down = self.resume();
        if self.stop(StopMode::Immediate, DROP_LIMIT).is_err()
            && let Err(error) = self.kill9()
        {
            tracing::warn!(%error, "a throwaway server could not be ended");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        remove_shared_memory(&self.data());
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "could not remove a throwaway cluster");
        }
    }
}

const DOWN: Error = Error::WrongState("the server is down");

/// A server that was killed leaves a few bytes of System V shared memory, named in the seventh line of its pid file.
fn remove_shared_memory(data: &Path) {
    let Ok(file) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(id) = file.lines().nth(6).and_then(|line| line.split_ascii_whitespace().nth(1)) {
        let _best_effort =
            Command::new("ipcrm").args(["-m", id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A new folder in the temporary folder, or in `/tmp` when that has a path too long for sockets or is closed to
/// `account`.
fn make_directory(account: Option<Account>) -> Result<PathBuf, Error> {
    let preferred = std::env::temp_dir();
    let longest = "/walcast-pg-XXXXXX/.s.PGSQL.65535.lock".len();
    let short = preferred.as_os_str().len() + longest <= SOCKET_PATH_BYTES_MAX;
    let open = account.is_none()
        || preferred
            .ancestors()
            .all(|folder| fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0));
    let base = if short && open { preferred } else { PathBuf::from("/tmp") };
    let directory = tempfile::Builder::new()
        .prefix("walcast-pg-")
        .tempdir_in(&base)
        .map_err(Error::io(format!("creating a folder in {}", base.display())))?;
    account::give(directory.path(), account)?;
    Ok(directory.keep())
}

fn open_log(path: &Path, account: Option<Account>) -> Result<File, Error> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io(format!("opening {}", path.display())))?;
    account::give(path, account)?;
    Ok(log)
}
