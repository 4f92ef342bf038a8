//! An authenticated connection on which nothing has been said yet: the common beginning of an SQL session and of a
//! replication stream.

use std::collections::BTreeMap;

use bytes::BytesMut;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use rand::seq::SliceRandom;

use crate::authentication::authenticate;
use crate::connection_string::{Host, SslMode, TargetSession};
use crate::dial::{Place, dial};
use crate::{ConnectionConfig, Error, ServerError, Wire};

/// A connection that the server has let in and that waits for the first command.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    parameters: BTreeMap<String, String>,
    process_id: i32,
    secret_key: i32,
    server: String,
}

impl Connection {
    /// Connects to the first host of `config` that will do and logs in. `startup` are settings for the startup
    /// message besides `user`, `database`, `application_name` and `options`; an unknown one makes the server refuse.
    ///
    /// Hosts and their addresses are tried in order (at random with `load_balance_hosts=random`), each within
    /// `connect_timeout`. As in libpq the next one is tried when a server cannot be reached, is starting or
    /// stopping, or is not of the kind `target_session_attrs` asks for, and not when it refuses the login.
    ///
    /// # Errors
    /// The one failure, or [`Error::NoHost`] with all of them; in [`Error::NotConnected`] when `config` has a name.
    /// Dropping the future gives the attempt up.
    pub async fn open(
        config: &ConnectionConfig,
        application_name: &str,
        startup: &[(&str, &str)],
    ) -> Result<Self, Error> {
        Self::first_of(config, application_name, startup).await.map_err(|error| match config.name() {
            Some(setting) => Error::NotConnected { setting: setting.to_owned(), source: Box::new(error) },
            None => error,
        })
    }

    async fn first_of(
        config: &ConnectionConfig,
        application_name: &str,
        startup: &[(&str, &str)],
    ) -> Result<Self, Error> {
        let mut hosts = config.hosts.clone();
        if config.shuffle_hosts {
            hosts.shuffle(&mut rand::rng());
        }
        let mut target = config.target_session;
        // `prefer-standby`: all hosts once for a standby, then all again for anything.
        let rounds = if target == TargetSession::PreferStandby { 2 } else { 1 };
        let mut failures = Vec::new();
        for round in 0..rounds {
            if round > 0 {
                target = TargetSession::Any;
            }
            for host in &hosts {
                let attempt = Attempt { config, application_name, startup, host, target };
                match attempt.run(&mut failures).await? {
                    Some(connection) => return Ok(connection),
                    None => continue,
                }
            }
        }
        Err(if failures.len() == 1 { failures.remove(0) } else { Error::NoHost(failures) })
    }

    /// A setting as the server reported it at the start (`server_encoding`, `in_hot_standby`, …).
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// All settings the server reported.
    pub(crate) fn parameters(&self) -> &BTreeMap<String, String> {
        &self.parameters
    }

    /// The server's version in the form of `server_version_num`: 150018 for 15.18.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        version_number(self.parameter("server_version").unwrap_or_default())
    }

    /// The server process, as in `pg_stat_activity.pid`.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    pub(crate) fn secret_key(&self) -> i32 {
        self.secret_key
    }

    /// The server's place, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The database is stored in no particular encoding, so its text may be anything.
    #[must_use]
    pub fn is_sql_ascii(&self) -> bool {
        self.parameter("server_encoding") == Some("SQL_ASCII")
    }

    /// The level of messages, for whoever speaks the protocol from here on.
    #[must_use]
    pub fn into_wire(self) -> Wire {
        self.wire
    }

    fn suits(&self, target: TargetSession) -> bool {
        let standby = self.parameter("in_hot_standby") == Some("on");
        let read_only = standby || self.parameter("default_transaction_read_only") == Some("on");
        match target {
            TargetSession::Any => true,
            TargetSession::ReadWrite => !read_only,
            TargetSession::ReadOnly => read_only,
            TargetSession::Primary => !standby,
            TargetSession::Standby | TargetSession::PreferStandby => standby,
        }
    }
}

/// `15.18 (Debian …)` → 150018; `19beta1` → 190000.
fn version_number(text: &str) -> u32 {
    let digits = |text: &str| -> u32 {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().unwrap_or(0)
    };
    let minor = text.split_once('.').filter(|(major, _)| major.bytes().all(|byte| byte.is_ascii_digit()));
    digits(text) * 10_000 + minor.map_or(0, |(_, minor)| digits(minor))
}

/// One host of the list.
struct Attempt<'a> {
    config: &'a ConnectionConfig,
    application_name: &'a str,
    startup: &'a [(&'a str, &'a str)],
    host: &'a Host,
    target: TargetSession,
}

impl Attempt<'_> {
    /// `None` when the next host is to be tried; why is in `failures` then.
    async fn run(&self, failures: &mut Vec<Error>) -> Result<Option<Connection>, Error> {
        let places = match self.limited(&self.host.to_string(), Place::of(self.host)).await {
            Ok(places) => places,
            Err(error) => {
                failures.push(error);
                return Ok(None);
            }
        };
        for place in places {
            match self.place(&place).await {
                Ok(connection) if connection.suits(self.target) => return Ok(Some(connection)),
                Ok(connection) => {
                    failures.push(Error::UnsuitableServer {
                        server: connection.server,
                        wanted: self.target.name(),
                    });
                }
                Err(error) if tries_next_host(&error) => failures.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// With and without TLS as the mode says. Another way is only tried when the server will not have the first one.
    async fn place(&self, place: &Place) -> Result<Connection, Error> {
        let ways = place.encryption(self.config.tls.mode);
        let (last, first) = ways.split_last().map_or((false, [].as_slice()), |(last, first)| (*last, first));
        for encrypt in first {
            match self.limited(&place.to_string(), self.connect(place, *encrypt)).await {
                Err(error) if changes_encryption(&error, self.config.tls.mode) => {}
                done => return done,
            }
        }
        self.limited(&place.to_string(), self.connect(place, last)).await
    }

    async fn limited<T>(
        &self,
        server: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match self.config.connect_timeout {
            None => work.await,
            Some(timeout) => tokio::time::timeout(timeout, work)
                .await
                .unwrap_or_else(|_| Err(Error::ConnectTimeout { server: server.to_owned(), timeout })),
        }
    }

    async fn connect(&self, place: &Place, encrypt: bool) -> Result<Connection, Error> {
        let mut wire = Wire::new(dial(self.config, place, encrypt).await?);
        let server = place.to_string();
        wire.send(&self.startup_message()?).await?;
        authenticate(&mut wire, self.config, self.host, &server).await?;
        let mut connection =
            Connection { wire, parameters: BTreeMap::new(), process_id: 0, secret_key: 0, server };
        loop {
            match connection.wire.next_greeting().await? {
                Message::BackendKeyData(body) => {
                    connection.process_id = body.process_id();
                    connection.secret_key = body.secret_key();
                }
                Message::ParameterStatus(body) => {
                    if let (Ok(name), Ok(value)) = (body.name(), body.value()) {
                        connection.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Message::NoticeResponse(body) => {
                    tracing::debug!(notice = %ServerError::from_fields(body.fields()), "Postgres said at the start");
                }
                Message::ErrorResponse(body) => return Err(Error::from_response(&body)),
                Message::ReadyForQuery(_) => return Ok(connection),
                _ => return Err(Error::Protocol("something else than the end of the startup".into())),
            }
        }
    }

    fn startup_message(&self) -> Result<BytesMut, Error> {
        let config = self.config;
        let mut parameters = vec![("user", config.user.as_str()), ("database", config.database.as_str())];
        parameters
            .push(("application_name", config.application_name.as_deref().unwrap_or(self.application_name)));
        parameters.extend(config.options.as_deref().map(|options| ("options", options)));
        parameters.extend_from_slice(self.startup);
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message)
            .map_err(|_| Error::Protocol("a setting of the connection string holds a NUL".into()))?;
        Ok(message)
    }
}

/// libpq gives up on a server that lets us talk and says no; everything else is a reason to look further.
fn tries_next_host(error: &Error) -> bool {
    match error {
        Error::Server(server) => server.is_shutting_down(),
        Error::Authentication { .. } | Error::NoPassword { .. } | Error::Tls { .. } => false,
        _ => true,
    }
}

/// Whether `allow` and `prefer` try the other way: the server refuses this kind of connection (28000, no matching
/// line in `pg_hba.conf`), or TLS itself failed.
fn changes_encryption(error: &Error, mode: SslMode) -> bool {
    match error {
        Error::Server(server) => server.sqlstate == "28000",
        Error::Tls { .. } => mode == SslMode::Prefer,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::version_number;

    #[test]
    fn versions_are_read_from_what_the_server_reports() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("17.10"), 170_010);
        assert_eq!(version_number("19beta1"), 190_000);
        assert_eq!(version_number("19devel"), 190_000);
        assert_eq!(version_number(""), 0);
    }
}
