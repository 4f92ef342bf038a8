//! A running throwaway server, as its users see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::server::{Server, StopMode};
use crate::{ClusterBuilder, Error, Installation};

/// How long a stop may take when no limit is given.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A Postgres server of one's own. Stopped and removed when dropped, or when this process ends otherwise.
///
/// The methods that wait run on Tokio's blocking threads, so tasks of the same runtime go on meanwhile: a fast stop,
/// for one, waits until the reader of a slot has hung up.
#[derive(Debug)]
pub struct Cluster {
    // Held while an operation on the server runs, on a blocking thread or in a short synchronous call.
    server: Arc<Mutex<Server>>,
    installation: Installation,
    directory: PathBuf,
    port: u16,
}

impl Cluster {
    /// Describes a server: `wal_level=logical`, `fsync=off`, superuser `postgres`, everybody trusted, a free port on
    /// 127.0.0.1, encoding UTF8, locale C, time zone UTC, otherwise Postgres's defaults.
    pub fn builder(installation: Installation) -> ClusterBuilder {
        ClusterBuilder::new(installation)
    }

    pub(crate) fn new(server: Server) -> Self {
        Self {
            installation: server.installation().clone(),
            directory: server.directory().to_owned(),
            port: server.port(),
            server: Arc::new(Mutex::new(server)),
        }
    }

    /// The programs it runs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The TCP port at 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// URL of a database over TCP, for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// URL of a database over the Unix socket, for the superuser.
    pub fn socket_url(&self, database: &str) -> String {
        let host = self.directory.display().to_string().replace('/', "%2F");
        format!("postgresql://postgres@{host}:{}/{database}", self.port)
    }

    /// The folder of the Unix socket.
    pub fn socket_directory(&self) -> &Path {
        &self.directory
    }

    /// The data directory (`PGDATA`).
    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The file with everything that the server has logged, over all its starts.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What the server has logged, over all its starts; empty when it cannot be read.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Process id of the postmaster; `None` while the server is down.
    pub fn pid(&self) -> Option<u32> {
        self.lock().pid()
    }

    /// Starts a stopped server, with the settings of its last configuration.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] when it runs; as [`ClusterBuilder::start`].
    pub async fn start(&self) -> Result<(), Error> {
        self.on_server(Server::start).await
    }

    /// Stops the server and waits until it has ended, at most 60 s.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]: the server is then still about to stop. [`Error::WrongState`] when it is down.
    pub async fn stop(&self, mode: StopMode) -> Result<(), Error> {
        self.stop_within(mode, STOP_LIMIT).await
    }

    /// As [`stop`](Self::stop), with another limit.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop).
    pub async fn stop_within(&self, mode: StopMode, limit: Duration) -> Result<(), Error> {
        self.on_server(move |server| server.stop(mode, limit)).await
    }

    /// Stops and starts again, on the same port.
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub async fn restart(&self, mode: StopMode) -> Result<(), Error> {
        self.on_server(move |server| {
            server.stop(mode, STOP_LIMIT)?;
            server.start()
        })
        .await
    }

    /// Kills the postmaster and all its children with SIGKILL: what a machine does that loses its power, but for files
    /// that were written and not yet synchronised. The server can be [started](Self::start) again and then recovers.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] when it is down.
    pub async fn kill9(&self) -> Result<(), Error> {
        self.on_server(Server::kill9).await
    }

    /// Stops all processes of the server with SIGSTOP: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] when it is down.
    pub fn pause(&self) -> Result<(), Error> {
        self.lock().pause()
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    ///
    /// [`Error::WrongState`] when it is down.
    pub fn resume(&self) -> Result<(), Error> {
        self.lock().resume()
    }

    /// Sets server settings, each `(name, value)` as in `postgresql.conf`, for the next start or `pg_reload_conf()`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn configure(&self, settings: &[(&str, &str)]) -> Result<(), Error> {
        self.lock().configure(settings)
    }

    fn lock(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_server(
        &self,
        work: impl FnOnce(&mut Server) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        blocking(move || work(&mut server.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

/// Runs `work` on a blocking thread; a panic there goes on here.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::WrongState("the runtime is shutting down")),
        },
    }
}
