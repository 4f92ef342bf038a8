//! Connection strings as libpq reads them (libpq chapter "Connection Strings" and the functions
//! `conninfo_parse`, `conninfo_uri_parse` and `pqConnectOptions2`).

mod keyword;
mod passfile;
mod resolve;
mod setting;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use passfile::PassfileLookup;
pub use setting::SslMode;
pub(crate) use setting::{
    AllowedMethods, AuthMethod, ChannelBindingMode, ClientCertificate, Host, HostAddress, Keepalive,
    RootCertificates, Secret, TargetSession, TlsSettings,
};

/// Why a connection string is not one. A message never quotes a value, as it may be part of a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionStringError {
    /// It does not have the form of a connection string.
    #[error("the connection string cannot be read: {0}")]
    Syntax(&'static str),
    /// A keyword that libpq does not know.
    #[error("the connection string has the unknown keyword {0:?}")]
    UnknownKeyword(String),
    /// A value that the keyword does not take.
    #[error("{setting} is not {expected}")]
    InvalidValue {
        /// The keyword, or the environment variable that stands in for it.
        setting: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// libpq has it and walcast does not.
    #[error("{setting} is not supported: {instead}")]
    Unsupported {
        /// The keyword, or the environment variable that stands in for it.
        setting: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// The lists `host`, `hostaddr` and `port` do not belong together.
    #[error("{0} do not have the same number of elements")]
    Lists(&'static str),
    /// Two settings exclude each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// No user was given, and the operating system has no name for the one walcast runs as.
    #[error("no user in the connection string, and this process's user has no name; add user=")]
    NoUser,
}

/// How people know a connection string. It is no part of where that leads: all of them are equal.
#[derive(Clone, Default)]
struct Name(Option<String>);

impl PartialEq for Name {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Name {}

/// How to reach one database: a parsed connection string.
///
/// `Display` gives it back as a URI without its password; `Debug` is the same. Clones are cheap enough for
/// one per connection.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionConfig {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<Secret>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) options: Option<String>,
    pub(crate) application_name: Option<String>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) tls: TlsSettings,
    pub(crate) channel_binding: ChannelBindingMode,
    pub(crate) require_auth: Option<AllowedMethods>,
    pub(crate) target_session: TargetSession,
    pub(crate) shuffle_hosts: bool,
    name: Name,
}

impl ConnectionConfig {
    /// Reads a connection string: a URI (`postgresql://user@host:port/db?…`) or `keyword=value …`. What it does
    /// not say is taken from the environment (`env("PGHOST")` …), then from libpq's defaults: user = the user
    /// this process runs as, database = user, host = a local socket, passfile = `~/.pgpass` (by `env("HOME")`).
    ///
    /// Where walcast differs from libpq's defaults: `connect_timeout` is 30 s (0 = none), and a connection that
    /// lost its other end is noticed (`keepalives_idle=30 keepalives_interval=10 keepalives_count=3
    /// tcp_user_timeout=30000`) instead of after hours.
    ///
    /// # Errors
    /// On anything libpq would not accept, and on the few keywords that walcast cannot honour.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConnectionStringError> {
        resolve::resolve(text::parse(text)?, env)
    }

    /// The same, known by this name: the setting it is the value of. [`crate::Error::hint`] names it.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Name(Some(name.into())), ..self }
    }

    /// The name it is known by, if it has one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.0.as_deref()
    }

    /// The database that is connected to.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, name: impl Into<String>) -> Self {
        Self { database: name.into(), ..self.clone() }
    }

    /// The role that logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The same server and database, another role; a password that was given is kept.
    #[must_use]
    pub fn with_user(&self, name: impl Into<String>) -> Self {
        Self { user: name.into(), ..self.clone() }
    }

    /// The `application_name` that the connection string asks for, if it does; it wins over walcast's own.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// The `sslmode` in force.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// The first host's place on one line: `db.example:5432`, or a socket's folder.
    #[must_use]
    pub fn server(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }
}

impl fmt::Display for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}@", text::encode(&self.user))?;
        for (index, host) in self.hosts.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            match &host.address {
                HostAddress::Default => {}
                HostAddress::Socket(folder) => f.write_str(&text::encode(&folder.to_string_lossy()))?,
                HostAddress::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]")?,
                HostAddress::Tcp { name, .. } => f.write_str(&text::encode(name))?,
            }
            write!(f, ":{}", host.port)?;
        }
        write!(f, "/{}", text::encode(&self.database))?;
        if self.tls.mode != SslMode::Prefer {
            write!(f, "?sslmode={}", self.tls.mode)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionConfig({self})")
    }
}

/// `~` by the environment, as libpq finds it.
fn home(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

fn existing(path: PathBuf) -> Option<PathBuf> {
    Path::exists(&path).then_some(path)
}

#[cfg(test)]
mod tests;
