//! SQL sessions with pinned settings.

mod replay;

use std::fmt;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::{Connection, ConnectionConfig, Error};
use replay::Replay;

/// Settings in which databases differ and on which walcast's results would depend.
const PINNED: &str = "SET DateStyle = 'ISO, MDY'; SET IntervalStyle = postgres; SET TimeZone = 'UTC'; \
    SET bytea_output = hex; SET extra_float_digits = 3; SET search_path = pg_catalog; \
    SET lc_monetary = 'C'; SET quote_all_identifiers = off; \
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET idle_session_timeout = 0";

/// Why a session is over, once it is.
type Fate = Option<Option<Arc<Error>>>;

/// An SQL session; dereferences to [`tokio_postgres::Client`].
///
/// Its settings are pinned whatever the role, database or server say: UTF8 (SQL_ASCII in such a database),
/// `DateStyle=ISO`, `IntervalStyle=postgres`, `TimeZone=UTC`, `bytea_output=hex`, `extra_float_digits=3`,
/// `lc_monetary=C`, `quote_all_identifiers=off`, `search_path=pg_catalog`, and no timeouts. The connection ends when the
/// session is dropped.
pub struct Session {
    client: Client,
    connection: AbortHandle,
    fate: watch::Receiver<Fate>,
    server_version: u32,
    process_id: i32,
    sql_ascii: bool,
}

impl Session {
    /// Connects and pins the settings. `application_name` is what `pg_stat_activity` shows, unless the connection
    /// string names one. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connect(config: &ConnectionConfig, application_name: &str) -> Result<Self, Error> {
        let connection = Connection::open(config, application_name, &[("client_encoding", "UTF8")]).await?;
        let (server_version, process_id) = (connection.server_version(), connection.process_id());
        let sql_ascii = connection.is_sql_ascii();
        let replay = Replay::new(connection);
        let mut settings = tokio_postgres::Config::new();
        // The log-in is over; what the client asks for now is answered from memory.
        settings.user(config.user()).ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = settings.connect_raw(replay, NoTls).await?;
        let (report, fate) = watch::channel(None);
        let connection = tokio::spawn(drive(connection, report)).abort_handle();
        let session = Self { client, connection, fate, server_version, process_id, sql_ascii };
        session.pin_settings().await?;
        Ok(session)
    }

    async fn pin_settings(&self) -> Result<(), Error> {
        let mut statements = PINNED.to_owned();
        if self.server_version >= 170_000 {
            statements.push_str("; SET transaction_timeout = 0");
        }
        if self.sql_ascii {
            statements.push_str("; SET client_encoding = 'SQL_ASCII'");
        }
        Ok(self.client.batch_execute(&statements).await?)
    }

    /// The server's version in the form of `server_version_num`: 150018 for 15.18.
    #[must_use]
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The server process, as in `pg_stat_activity.pid`.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// The database is SQL_ASCII: text values may hold any bytes.
    #[must_use]
    pub fn is_sql_ascii(&self) -> bool {
        self.sql_ascii
    }

    /// Waits until the connection is over, and says why when there was a reason: [`Error::is_shutting_down`] is true
    /// when the server is going down. Does not keep the session alive. Cancel-safe.
    pub fn closed(&self) -> impl Future<Output = Option<Arc<Error>>> + Send + 'static {
        let mut fate = self.fate.clone();
        async move {
            // The sender goes away without a word when the session is dropped.
            fate.wait_for(Option::is_some).await.ok().and_then(|fate| fate.clone().flatten())
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// Moves messages between the client and the stream until the connection is over.
async fn drive(mut connection: tokio_postgres::Connection<Replay, NoTlsStream>, report: watch::Sender<Fate>) {
    let fate = loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(severity = notice.severity(), message = notice.message(), "Postgres said");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(Arc::new(Error::from(error))),
            None => break None,
        }
    };
    // Nobody waits for it: fine.
    let _ = report.send(Some(fate));
}
