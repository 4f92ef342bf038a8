//! A source, a history, a daemon, and the links between them, all of which can break.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::clock::Clock;
use super::disk::Disk;
use super::hostile;
use super::kind::{Fault, Link, LinkFault};
use super::means::{begin_on_link, crash, describe, start, start_cluster, stop};
use super::schedule::Planned;
use crate::{Cluster, Daemon, Direction, Installation, Proxy, StopMode, TestDatabase, TestSession, daemon};

/// What a world is like.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// Postgres, for the source and the history.
    pub installation: Installation,
    /// Whether the history is in a cluster of its own.
    pub history_apart: bool,
    /// Flags of the daemon, beside those that say where everything is.
    pub flags: Vec<(&'static str, String)>,
}

/// The parts; see the module. Dropped from the daemon down.
#[derive(Debug)]
pub struct World {
    daemon: Daemon,
    database: TestDatabase,
    history_database: Option<TestDatabase>,
    source_link: Proxy,
    history_link: Option<Proxy>,
    client_link: Proxy,
    source: Cluster,
    history: Option<Cluster>,
    disk: Option<Disk>,
    clock: Option<Clock>,
    hostile: Option<JoinHandle<()>>,
    flags: Vec<(&'static str, String)>,
    peak_memory: u64,
    takeovers: Arc<Mutex<Vec<Duration>>>,
    _folder: TempDir,
}

impl World {
    /// Starts the servers, calls `prepare` with the empty database, and starts the daemon.
    ///
    /// # Panics
    ///
    /// When something does not start.
    pub async fn start(settings: WorldSettings, prepare: impl AsyncFnOnce(&TestDatabase)) -> Self {
        let folder = TempDir::new().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        // For the account that the servers run under.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap_or_else(|error| panic!("{error}"));
        let WorldSettings { installation, history_apart, flags } = settings;
        let source = start_cluster(&installation).await;
        let database = TestDatabase::create(&source).await;
        prepare(&database).await;
        let (mut history, mut history_database, mut history_link, mut disk) = (None, None, None, None);
        if history_apart {
            let cluster = start_cluster(&installation).await;
            let own = TestDatabase::create(&cluster).await;
            disk = Disk::mount(&folder.path().join("disk"), &cluster);
            if let Some(disk) = &disk {
                let session = TestSession::connect(&cluster.socket_url("postgres")).await;
                let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display());
                for sql in [tablespace, format!("ALTER DATABASE {} SET TABLESPACE small", own.name())] {
                    session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                }
            }
            history_link = Some(Proxy::to(cluster.port()).await);
            history_database = Some(own);
            history = Some(cluster);
        }
        let source_link = Proxy::to(source.port()).await;
        let clock = Clock::find(folder.path());
        let builder = describe(
            &database,
            &source_link,
            history_database.as_ref().zip(history_link.as_ref()),
            clock.as_ref(),
            &flags,
        );
        let daemon = builder.start().await;
        let client_link = Proxy::to(daemon.port()).await;
        Self {
            daemon,
            database,
            history_database,
            source_link,
            history_link,
            client_link,
            source,
            history,
            disk,
            clock,
            hostile: None,
            flags,
            peak_memory: 0,
            takeovers: Arc::default(),
            _folder: folder,
        }
    }

    /// The database that is followed; not through a proxy.
    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// The database with the history; not through a proxy.
    pub fn history(&self) -> &TestDatabase {
        self.history_database.as_ref().unwrap_or(&self.database)
    }

    /// The daemon of the moment.
    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// The programs of the source.
    pub fn installation(&self) -> &Installation {
        self.source.installation()
    }

    /// Where clients connect: a proxy that leads to the daemon of the moment.
    pub fn ws_url(&self) -> String {
        self.client_link.url(&self.daemon.ws_url())
    }

    /// Bytes that clients were sent.
    pub fn bytes_to_clients(&self) -> u64 {
        self.client_link.passed(Direction::ToClient)
    }

    /// The most memory that a daemon has had resident so far, in bytes.
    pub fn peak_memory(&mut self) -> u64 {
        self.peak_memory = self.peak_memory.max(self.daemon.peak_memory_bytes().unwrap_or(0));
        self.peak_memory
    }

    /// Whether a fault can be done here.
    pub fn can(&self, fault: Fault) -> bool {
        match fault {
            Fault::ClockStepped => self.clock.is_some(),
            Fault::HistoryDiskFull => self.disk.is_some(),
            _ => self.history.is_some() || !fault.needs_history_apart(),
        }
    }

    /// Breaks something.
    ///
    /// # Panics
    ///
    /// When that cannot be done, or the daemon does not end when it is told to.
    pub async fn begin(&mut self, planned: &Planned) {
        let Planned { fault, number, hold, .. } = *planned;
        match fault {
            Fault::DaemonKilled => {
                self.peak_memory();
                self.daemon.kill9().await;
            }
            Fault::DaemonTerminated => {
                self.peak_memory();
                self.daemon.terminate().await;
            }
            Fault::DaemonPaused => self.daemon.pause(),
            Fault::DaemonTakenOver => self.take_over().await,
            Fault::ClockStepped => {
                const DAYS_MAX: u64 = 800;
                let seconds = i64::try_from(number % (DAYS_MAX * 86_400)).unwrap_or(0);
                self.set_clock(seconds - 400 * 86_400);
            }
            Fault::SourceStopped => stop(&self.source, StopMode::Fast).await,
            Fault::SourceCrashed => crash(&self.source, number).await,
            Fault::SourcePaused => self.source.pause().unwrap_or_else(|error| panic!("{error}")),
            Fault::BackendTerminated | Fault::BackendKilled => {
                // The server may be down by another fault.
                let _nothing_to_hit = self.hit_backend(fault, number).await;
            }
            Fault::HistoryStopped => stop(self.history_cluster(), StopMode::Fast).await,
            Fault::HistoryCrashed => crash(self.history_cluster(), number).await,
            Fault::HistoryPaused => self.history_cluster().pause().unwrap_or_else(|error| panic!("{error}")),
            Fault::HistoryReadOnly => self.set_read_only(true).await,
            Fault::HistoryDiskFull => {
                if let Some(disk) = &self.disk {
                    disk.fill();
                }
            }
            Fault::Link(link, fault) => begin_on_link(self.link(link), fault, number),
            Fault::HostileFrames => {
                let port = self.client_link.port();
                self.hostile = Some(tokio::spawn(async move { hostile::send(port, number, hold).await }));
            }
            Fault::Client(_) => {}
        }
    }

    /// Makes whole what [`begin`](Self::begin) broke.
    ///
    /// # Panics
    ///
    /// When that cannot be done.
    pub async fn end(&mut self, planned: &Planned) {
        match planned.fault {
            Fault::DaemonKilled | Fault::DaemonTerminated => self.daemon.restart_without_waiting(),
            Fault::DaemonPaused => self.daemon.resume(),
            Fault::SourceStopped | Fault::SourceCrashed => start(&self.source).await,
            Fault::SourcePaused => self.source.resume().unwrap_or_else(|error| panic!("{error}")),
            Fault::HistoryStopped | Fault::HistoryCrashed => start(self.history_cluster()).await,
            Fault::HistoryPaused => self.history_cluster().resume().unwrap_or_else(|error| panic!("{error}")),
            Fault::HistoryReadOnly => self.set_read_only(false).await,
            Fault::HistoryDiskFull => {
                if let Some(disk) = &self.disk {
                    disk.free();
                }
            }
            Fault::Link(link, fault) => {
                let link = self.link(link);
                if matches!(fault, LinkFault::HalfOpenThenCut) {
                    link.cut();
                }
                link.heal();
            }
            Fault::ClockStepped => self.set_clock(0),
            Fault::HostileFrames => {
                if let Some(task) = self.hostile.take() {
                    task.abort();
                }
            }
            Fault::DaemonTakenOver | Fault::BackendTerminated | Fault::BackendKilled | Fault::Client(_) => {}
        }
    }

    /// How long daemons that waited took until they were ready, each from the death of the one before.
    pub fn takeovers(&self) -> Vec<Duration> {
        self.takeovers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn history_cluster(&self) -> &Cluster {
        self.history.as_ref().unwrap_or(&self.source)
    }

    fn link(&self, link: Link) -> &Proxy {
        match link {
            Link::Source => &self.source_link,
            Link::History => self.history_link.as_ref().unwrap_or(&self.source_link),
            Link::Clients => &self.client_link,
        }
    }

    fn set_clock(&self, seconds: i64) {
        if let Some(clock) = &self.clock {
            clock.step(seconds);
        }
    }

    /// A second daemon comes and waits for the slot; then the first is killed.
    async fn take_over(&mut self) {
        const ARRIVAL: Duration = Duration::from_millis(1500);
        let builder = describe(
            &self.database,
            &self.source_link,
            self.history_database.as_ref().zip(self.history_link.as_ref()),
            self.clock.as_ref(),
            &self.flags,
        );
        let next = builder.spawn();
        tokio::time::sleep(ARRIVAL).await;
        self.peak_memory();
        self.daemon.kill9().await;
        let began = Instant::now();
        self.client_link.lead_to(next.port());
        self.daemon = next;
        let (port, takeovers) = (self.daemon.port(), Arc::clone(&self.takeovers));
        tokio::spawn(async move {
            // With the source away by another fault it takes longer: no promise then.
            const READY_MAX: Duration = Duration::from_secs(10);
            while began.elapsed() < READY_MAX {
                if daemon::is_ready(port).await {
                    takeovers.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }

    async fn hit_backend(
        &self,
        fault: Fault,
        number: u64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let session = TestSession::attempt(self.database.socket_url()).await?;
        let sql = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = ANY ($1)
                   ORDER BY md5(pid::text || $2::text) LIMIT 1";
        let kinds: &[&str] = if fault == Fault::BackendTerminated {
            &["client backend", "walsender"]
        } else {
            &["client backend", "walsender", "checkpointer", "walwriter", "background writer"]
        };
        let row = session.query_one(sql, &[&kinds, &number.to_string()]).await?;
        let pid: i32 = row.get(0);
        if fault == Fault::BackendTerminated {
            session.execute("SELECT pg_terminate_backend($1)", &[&pid]).await?;
        } else {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        Ok(())
    }

    async fn set_read_only(&self, on: bool) {
        let name = self.history().name();
        let change = if on {
            format!("ALTER DATABASE {name} SET default_transaction_read_only = on")
        } else {
            format!("ALTER DATABASE {name} RESET default_transaction_read_only")
        };
        let sessions =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        let session = TestSession::connect(&self.history_cluster().socket_url("postgres")).await;
        for sql in [change, sessions] {
            session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }
}
