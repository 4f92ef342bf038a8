//! A plain SQL session.

use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

use crate::{LIMIT, within};

/// A `tokio_postgres::Client` that owns its connection; hung up when dropped.
#[derive(Debug)]
pub struct TestSession {
    client: Client,
    connection: JoinHandle<()>,
}

impl TestSession {
    /// Connects without TLS.
    ///
    /// # Panics
    ///
    /// When the URL or the server is no good.
    pub async fn connect(url: &str) -> Self {
        let config: Config = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        match Self::try_connect(&config).await {
            Ok(session) => session,
            Err(error) => panic!("connecting to {url}: {error:?}"),
        }
    }

    /// Connects without TLS, to a server that may be down or hang.
    ///
    /// # Errors
    ///
    /// When the server is not there, refuses, or does not answer within 10 s.
    pub async fn attempt(url: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        const ANSWER_MAX: Duration = Duration::from_secs(10);
        let config: Config = url.parse()?;
        let (client, connection) = tokio::time::timeout(ANSWER_MAX, config.connect(NoTls)).await??;
        let connection = tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(Self { client, connection })
    }

    pub(crate) async fn try_connect(config: &Config) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = within("a connection to Postgres", LIMIT, config.connect(NoTls)).await?;
        let connection = tokio::spawn(async move {
            // A session that ends with its server is what many tests are about.
            let _ended = connection.await;
        });
        Ok(Self { client, connection })
    }

    /// First column of the first row as text; `None` for NULL or no row.
    ///
    /// # Panics
    ///
    /// When the statement fails.
    pub async fn scalar(&self, sql: &str) -> Option<String> {
        let messages = self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })?
    }
}

impl Deref for TestSession {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for TestSession {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for TestSession {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
