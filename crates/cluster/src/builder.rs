//! What a cluster shall be like.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::server::Server;
use crate::{Cluster, Error, Installation};

/// PEM texts for a server that offers TLS.
#[derive(Clone)]
pub(crate) struct ServerTls {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) client_authority: Option<String>,
}

/// Where the data directory comes from.
#[derive(Clone)]
pub(crate) enum Origin {
    Initdb { reuse: bool },
    Copy { of: PathBuf, standby: bool },
}

/// Describes a throwaway server; [`start`](Self::start) makes it. See [`Cluster::builder`] for what it is like when
/// nothing is said.
#[derive(Clone)]
pub struct ClusterBuilder {
    pub(crate) installation: Installation,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) hba: Vec<String>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) initdb_arguments: Vec<String>,
    pub(crate) origin: Origin,
    pub(crate) start_limit: Duration,
}

impl ClusterBuilder {
    pub(crate) fn new(installation: Installation) -> Self {
        let settings = [
            ("wal_level", "logical"),
            ("listen_addresses", "127.0.0.1"),
            // A crash of the machine may destroy what is thrown away anyway.
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("shared_buffers", "16MB"),
            ("min_wal_size", "32MB"),
            ("jit", "off"),
            // In the data directory instead of /dev/shm, where a killed server would leave it.
            ("dynamic_shared_memory_type", "mmap"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("lc_messages", "C"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        Self {
            installation,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            hba: Vec::new(),
            tls: None,
            initdb_arguments: Vec::new(),
            origin: Origin::Initdb { reuse: false },
            start_limit: Duration::from_secs(60),
        }
    }

    /// A server setting, as in `postgresql.conf`. `port` and `unix_socket_directories` are the cluster's own.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike are written down on the spot")]
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.insert(name.to_owned(), value.to_string());
        self
    }

    /// A line of `pg_hba.conf`. Without any, everybody is trusted; with some, they decide about TCP, and come first
    /// for the Unix socket, which is trusted for what they leave open.
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// Offers TLS with this certificate and key (PEM).
    #[must_use]
    pub fn tls(mut self, certificate: &str, key: &str) -> Self {
        self.tls = Some(ServerTls {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_authority: None,
        });
        self.setting("ssl", "on")
    }

    /// With [`tls`](Self::tls), called before: the authority (PEM) whose client certificates are accepted, for
    /// `pg_hba.conf` lines with `cert` or `clientcert=`.
    #[must_use]
    pub fn tls_client_authority(mut self, authority: &str) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.client_authority = Some(authority.to_owned());
        }
        self.setting("ssl_ca_file", "root.crt")
    }

    /// Another argument of `initdb`, such as `--encoding=SQL_ASCII` or `--wal-segsize=1`. The defaults are UTF8 and
    /// locale C.
    #[must_use]
    pub fn initdb_argument(mut self, argument: &str) -> Self {
        self.initdb_arguments.push(argument.to_owned());
        self
    }

    /// Copies an earlier `initdb` of the same installation and arguments, kept in the temporary folder, which takes a
    /// tenth of the time. Such clusters share their `system_identifier`: leave it off where that matters.
    #[must_use]
    pub fn reuse_initdb(mut self) -> Self {
        self.origin = Origin::Initdb { reuse: true };
        self
    }

    /// Starts from a copy of the data of `other`, which must be stopped when [`start`](Self::start) is called: a
    /// restored backup, with the same `system_identifier` and slots.
    #[must_use]
    pub fn copy_of(mut self, other: &Cluster) -> Self {
        self.origin = Origin::Copy { of: other.data_directory(), standby: false };
        self
    }

    /// A physical standby of `primary`, which must be stopped when [`start`](Self::start) is called (its data is
    /// copied) and started again afterwards.
    #[must_use]
    pub fn standby_of(mut self, primary: &Cluster) -> Self {
        self.origin = Origin::Copy { of: primary.data_directory(), standby: true };
        let source = format!(
            "host={} port={} user=postgres application_name=walcast_standby",
            primary.socket_directory().display(),
            primary.port()
        );
        self.setting("primary_conninfo", source).setting("hot_standby", "on")
    }

    /// How long a start may take until the server accepts connections; default 60 s.
    #[must_use]
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start_limit = limit;
        self
    }

    /// Makes the data directory, starts the server and returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// When `initdb` or the server fails (the error has the end of the server's log) or takes too long. Nothing is left
    /// behind then, nor when the returned future is dropped.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub async fn start(self) -> Result<Cluster, Error> {
        let server = crate::cluster::blocking(move || Server::create(&self)).await?;
        Ok(Cluster::new(server))
    }
}
