//! The replication connection: a walsender and what it can be asked, up to the stream of a slot.

mod command;
mod feedback;
mod frame;
mod pace;
mod settings;
mod stream;

use walcast_model::Lsn;
use walcast_postgres::{Connection, ConnectionConfig, Error, TextRows, Wire};

pub use command::{CreatedSlot, SlotOptions, SlotSnapshot, SystemIdentity, TimelineSwitch};
pub use feedback::Feedback;
pub use frame::StreamFrame;
pub use settings::ReplicationSettings;
pub use stream::ReplicationStream;

/// A connection to a walsender of one database (`replication=database`), on which nothing streams.
///
/// Its methods are not cancel-safe: when one of their futures is dropped before it is done, drop the connection too.
#[derive(Debug)]
pub struct ReplicationConnection {
    wire: Wire,
    server_version: u32,
    process_id: i32,
    settings: ReplicationSettings,
    /// A stream has run and was finished on this connection.
    streamed: bool,
}

impl ReplicationConnection {
    /// Connects and pins the settings that decide what the stream looks like (text formats, encoding, timeouts),
    /// whatever role, database and server say.
    ///
    /// # Errors
    /// As [`Connection::open`]. SQLSTATE 28000 also when no line of `pg_hba.conf` names this database (a line for
    /// `replication` does not count), 42501 without the REPLICATION attribute.
    pub async fn connect(
        config: &ConnectionConfig,
        application_name: &str,
        settings: &ReplicationSettings,
    ) -> Result<Self, Error> {
        let startup = settings.startup_parameters();
        let startup: Vec<(&str, &str)> =
            startup.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let connection = Connection::open(config, application_name, &startup).await?;
        let (server_version, process_id) = (connection.server_version(), connection.process_id());
        let statements = settings.statements(server_version, connection.is_sql_ascii());
        let mut wire = connection.into_wire();
        for statement in statements {
            wire.simple_query(&statement).await?;
        }
        Ok(Self { wire, server_version, process_id, settings: settings.clone(), streamed: false })
    }

    /// The server's version in the form of `server_version_num`: 150018 for 15.18.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The walsender, as in `pg_stat_replication.pid` and `pg_replication_slots.active_pid`.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// Runs SQL or a replication command by the simple query protocol, the only one a walsender understands.
    ///
    /// # Errors
    /// The server's error, after which the connection is good for the next command; others end it.
    pub async fn query(&mut self, sql: &str) -> Result<TextRows, Error> {
        self.wire.simple_query(sql).await
    }

    /// Starts the stream of a slot at `from`, or where the slot was acknowledged up to when that is later: the server
    /// moves the start silently. `publications` are read by name at each change; the server does not check here that
    /// they exist.
    ///
    /// What is streamed: protocol version 1, text values, logical messages.
    ///
    /// A connection has one stream: the server never takes its walsender's "done" flags back for a logical slot
    /// (`StartLogicalReplication` in `walsender.c`, up to 18), so a second one would end at once.
    ///
    /// # Errors
    /// 55006 when the slot is in use (the message has the PID), 42704 when it does not exist, 55000 when it is lost;
    /// [`Error::Protocol`] for a second stream. The connection is then closed.
    pub async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        publications: &[impl AsRef<str>],
    ) -> Result<ReplicationStream, Error> {
        if self.streamed {
            return Err(Error::Protocol("a second stream on one connection; connect again".into()));
        }
        self.wire.start_copy_both(&command::start_replication(slot, from, publications)).await?;
        Ok(ReplicationStream::new(self))
    }

    /// Says goodbye. Dropping the connection does the same less politely.
    ///
    /// # Errors
    /// When the connection is broken already.
    pub async fn close(mut self) -> Result<(), Error> {
        self.wire.send(b"X\0\0\0\x04").await
    }
}

#[cfg(test)]
mod tests;
