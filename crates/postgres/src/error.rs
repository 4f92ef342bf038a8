//! What can go wrong between walcast and a Postgres, and how to react to it.

use std::fmt;
use std::io;
use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, ErrorResponseBody};

use crate::ConnectionStringError;

/// How to react to an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Passes by itself: try again with backoff and jitter.
    Transient,
    /// A person must act first; the message says what is to be done. Trying again is harmless.
    Operator,
    /// walcast asked for something it should not have asked for.
    Bug,
}

/// An error or a notice as a Postgres server reported it.
///
/// `Display` leaves out the detail of the SQLSTATE classes 22 and 23, where it may quote values of rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, …, never translated.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// What else the server knows about it.
    pub detail: Option<String>,
    /// What the server proposes to do.
    pub hint: Option<String>,
}

impl ServerError {
    /// Reads the body of an `ErrorResponse` or a `NoticeResponse`: fields of one letter and a text that ends with NUL
    /// (protocol section "Error and Notice Message Fields").
    #[must_use]
    pub fn from_body(mut body: &[u8]) -> Self {
        let mut error = Self::default();
        // A malformed field ends the list: what was readable is still worth more than nothing.
        while let Some((&letter, rest)) = body.split_first().filter(|(letter, _)| **letter != 0) {
            let Some(end) = rest.iter().position(|byte| *byte == 0) else { break };
            error.set(letter, &rest[..end]);
            body = &rest[end + 1..];
        }
        error
    }

    pub(crate) fn from_fields(mut fields: ErrorFields<'_>) -> Self {
        let mut error = Self::default();
        while let Ok(Some(field)) = fields.next() {
            error.set(field.type_(), field.value_bytes());
        }
        error
    }

    fn set(&mut self, letter: u8, value: &[u8]) {
        let value = String::from_utf8_lossy(value).into_owned();
        match letter {
            b'V' => self.severity = value,
            b'S' if self.severity.is_empty() => self.severity = value,
            b'C' => self.sqlstate = value,
            b'M' => self.message = value,
            b'D' => self.detail = Some(value),
            b'H' => self.hint = Some(value),
            _ => {}
        }
    }

    /// How to react, by SQLSTATE. Unknown states of an `ERROR` count as [`ErrorClass::Bug`].
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        let state = self.sqlstate.as_str();
        match state {
            // lock_not_available, object_in_use, query_canceled
            "55P03" | "55006" | "57014" => return ErrorClass::Transient,
            _ => {}
        }
        match state.get(..2).unwrap_or_default() {
            // Connection trouble, rollbacks, no resources, operator intervention, the machine.
            "08" | "40" | "53" | "57" | "58" | "25" => ErrorClass::Transient,
            // Authorisation, no such database, feature, object state, privileges and names, limits, internal.
            "28" | "3D" | "3F" | "0A" | "54" | "55" | "F0" | "XX" => ErrorClass::Operator,
            "42" if matches!(state, "42501" | "42704" | "42P01" | "42710" | "42P17") => ErrorClass::Operator,
            "22" if matches!(state, "22021" | "22P05" | "22023") => ErrorClass::Operator,
            _ => ErrorClass::Bug,
        }
    }

    /// What a person can do about it, by SQLSTATE, where walcast knows better than [`ServerError::hint`]. `url`: by which
    /// name the connection string is known.
    fn remedy(&self, url: &str) -> Option<String> {
        let remedy = match self.sqlstate.as_str() {
            "28P01" => return Some(format!("correct the password in {url}, in PGPASSWORD or in ~/.pgpass")),
            // The message is translated, the file's name is not.
            "28000" if self.message.contains("pg_hba.conf") => {
                "let pg_hba.conf have a line for this role, database and address, and reload it"
            }
            // That REPLICATION lacks is 42501, and only the source's role needs it.
            "28000" => return Some(format!("create the role with LOGIN, or correct the user in {url}")),
            "3D000" => return Some(format!("create the database, or correct its name in {url}")),
            "53300" => "raise max_connections, or let other programs use fewer connections",
            "57P01" => "see whether the server was stopped, or somebody ended this session",
            "57P02" => "see in the server's log why it crashed; it starts again by itself",
            "57P03" => "wait until the server is up",
            _ => return None,
        };
        Some(remedy.to_owned())
    }

    /// The server is going down or not up yet (57P01 `admin_shutdown`, 57P02 `crash_shutdown`, 57P03
    /// `cannot_connect_now`).
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        matches!(self.sqlstate.as_str(), "57P01" | "57P02" | "57P03")
    }
}

impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        Self {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.sqlstate)?;
        let quotes_values = self.sqlstate.starts_with("22") || self.sqlstate.starts_with("23");
        if let Some(detail) = self.detail.as_ref().filter(|_| !quotes_values) {
            write!(f, "; detail: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// What a connection string without a name is called.
pub(crate) const UNNAMED: &str = "the connection string";

/// Why a connection to Postgres could not be had, or what failed on it.
///
/// [`Error::class`] says how to react. No message holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection could be had by a connection string that has a name ([`crate::ConnectionConfig::named`]).
    #[error("{source}")]
    NotConnected {
        /// The name.
        setting: String,
        /// Why.
        source: Box<Error>,
    },
    /// The connection string is not one.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// No connection to this server: refused, no route, no such name or socket.
    #[error("cannot reach Postgres at {server}: {source}")]
    Unreachable {
        /// Host and port, or the socket.
        server: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server did not answer within `connect_timeout`.
    #[error("Postgres at {server} did not answer within {} s (connect_timeout)", timeout.as_secs())]
    ConnectTimeout {
        /// Host and port, or the socket.
        server: String,
        /// The limit.
        timeout: Duration,
    },
    /// TLS was asked for and could not be had, or the certificate is not good.
    #[error("no TLS with Postgres at {server}: {problem}")]
    Tls {
        /// Host and port.
        server: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// walcast will not or cannot authenticate as the server asks.
    #[error("cannot log in to Postgres at {server}: {problem}")]
    Authentication {
        /// Host and port, or the socket.
        server: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The server asks for a password, and none is known.
    #[error("cannot log in to Postgres at {server}: {problem}")]
    NoPassword {
        /// Host and port, or the socket.
        server: String,
        /// Where it was looked for.
        problem: String,
    },
    /// Connected, but the server is not of the kind `target_session_attrs` asks for.
    #[error("Postgres at {server} is not what target_session_attrs={wanted} asks for")]
    UnsuitableServer {
        /// Host and port, or the socket.
        server: String,
        /// The value of `target_session_attrs`.
        wanted: &'static str,
    },
    /// None of several hosts or addresses would do.
    #[error("no Postgres could be reached: {}", list(.0))]
    NoHost(Vec<Error>),
    /// The server reported an error.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The connection ended: the server or something between closed it.
    #[error("the connection to Postgres was closed by the other side")]
    Closed,
    /// The server ended a replication stream in good order, as it does when it shuts down.
    #[error("Postgres ended the replication stream, as it does when it shuts down")]
    StreamEnded,
    /// The connection broke.
    #[error("the connection to Postgres broke: {0}")]
    Io(#[from] io::Error),
    /// The other side does not speak the protocol as documented, or is no Postgres.
    #[error("unexpected answer from Postgres: {0}")]
    Protocol(String),
    /// The SQL client refused a value or a result.
    #[error("walcast misread an answer of Postgres: {0}")]
    Client(#[source] tokio_postgres::Error),
    /// The pool was asked for a session after it was closed.
    #[error("the pool of Postgres sessions is closed")]
    PoolClosed,
}

fn list(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The error the server reported, when it was one.
    #[must_use]
    pub fn server_error(&self) -> Option<&ServerError> {
        match self {
            Self::NotConnected { source, .. } => source.server_error(),
            Self::Server(error) => Some(error),
            Self::NoHost(errors) => errors.iter().find_map(Self::server_error),
            _ => None,
        }
    }

    /// The SQLSTATE the server reported, when it reported one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.server_error().map(|error| error.sqlstate.as_str())
    }

    /// How to react.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NotConnected { source, .. } => source.class(),
            Self::Server(error) => error.class(),
            Self::ConnectionString(_)
            | Self::Tls { .. }
            | Self::Authentication { .. }
            | Self::NoPassword { .. } => ErrorClass::Operator,
            Self::Client(_) | Self::PoolClosed => ErrorClass::Bug,
            // One host that may come back is enough to go on trying.
            Self::NoHost(errors) => {
                let transient = errors.iter().any(|error| error.class() == ErrorClass::Transient);
                if transient { ErrorClass::Transient } else { ErrorClass::Operator }
            }
            // Also a protocol error: something between (a proxy) may have answered in the server's place.
            _ => ErrorClass::Transient,
        }
    }

    /// What a person can do about it, in which setting; `None` where the message says it, or nothing is known. Never with
    /// a password.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotConnected { setting, source } => source.hint_for(setting),
            _ => self.hint_for(UNNAMED),
        }
    }

    /// The same, of the connection string that is known by the name `url`.
    fn hint_for(&self, url: &str) -> Option<String> {
        match self {
            Self::NoPassword { .. } => Some(format!(
                "give the password in PGPASSWORD, in ~/.pgpass, or in {url} (postgresql://user:password@host/database)"
            )),
            Self::Unreachable { .. } => Some(format!("start the server, or correct host and port in {url}")),
            Self::ConnectTimeout { .. } => Some(format!(
                "see that the server runs and that no firewall is in the way, or correct host and port in {url}"
            )),
            Self::UnsuitableServer { .. } => {
                Some(format!("name the primary in {url}, or leave target_session_attrs out"))
            }
            Self::Closed | Self::StreamEnded | Self::Io(_) => {
                Some("see that the server runs and can be reached".to_owned())
            }
            Self::Server(error) => error.remedy(url),
            // What does not pass by itself needs somebody the most.
            Self::NoHost(errors) => {
                let of = |class| {
                    let mut errors = errors.iter().filter(move |error| error.class() == class);
                    errors.find_map(|error| error.hint_for(url))
                };
                of(ErrorClass::Operator).or_else(|| of(ErrorClass::Transient))
            }
            _ => None,
        }
    }

    /// The server is going down or not up yet: a replication connection must be given up at once, because
    /// a consumer that stays and cannot acknowledge keeps the server from stopping.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        matches!(self, Self::StreamEnded) || self.server_error().is_some_and(ServerError::is_shutting_down)
    }

    pub(crate) fn from_response(body: &ErrorResponseBody) -> Self {
        Self::Server(Box::new(ServerError::from_fields(body.fields())))
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        Self::Server(Box::new(error))
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return Self::Server(Box::new(server.into()));
        }
        if error.is_closed() {
            return Self::Closed;
        }
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause {
            // The kinds that the decoder uses for malformed messages are the client's, not the line's.
            Some(cause)
                if !matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) =>
            {
                Self::Io(io::Error::new(cause.kind(), cause.to_string()))
            }
            _ => Self::Client(error),
        }
    }
}

#[cfg(test)]
mod tests;
