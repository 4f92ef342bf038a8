//! walcast-postgres against real servers.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod catalog;
mod fake_server;
mod hosts;
mod login;
mod session;
mod tls;

use walcast_postgres::{ConnectionConfig, Error, Session};

/// Parses a connection string without any environment.
fn config(text: &str) -> ConnectionConfig {
    ConnectionConfig::parse(text, &|_| None).unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn connect(text: &str) -> Result<Session, Error> {
    Session::connect(&config(text), "walcast test").await
}

/// Connects and asks something, to see that the session works.
async fn scalar(text: &str, sql: &str) -> String {
    let session = connect(text).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    session.query_one(sql, &[]).await.unwrap().get(0)
}

async fn refused(text: &str) -> Error {
    match connect(text).await {
        Ok(_) => panic!("{text} was let in"),
        Err(error) => error,
    }
}
