//! How walcast talks to a Postgres: connection strings as libpq reads them, dialling, TLS, logging in, SQL sessions,
//! and what the catalog says about tables and types.
//!
//! - [`ConnectionConfig`] is a parsed connection string.
//! - [`Connection`] is an authenticated connection on which nothing was said yet. A replication stream goes on from
//!   there with its [`Wire`]; a [`Session`] puts `tokio_postgres` on top, so both dial and log in by the same code.
//! - [`Pool`] lends sessions out.
//! - [`catalog`] reads relations and types.
//! - [`Error::class`] says how to react to what went wrong.
//!
//! In an SQL_ASCII database text has no encoding; the connections then use `client_encoding=SQL_ASCII`, as any other
//! makes the server refuse bytes that are not valid in it. Values are handed out as they are; names (of columns,
//! tables, …) that are not UTF-8 cannot be read by a [`Session`].

mod authentication;
pub mod catalog;
mod connection;
mod connection_string;
mod dial;
mod error;
mod pool;
mod quote;
mod session;
mod socket;
mod stream;
mod wire;

pub use connection::Connection;
pub use connection_string::{ConnectionConfig, ConnectionStringError, SslMode};
pub use error::{Error, ErrorClass, ServerError};
pub use pool::{Pool, PooledSession};
pub use quote::{quote_identifier, quote_literal};
pub use session::Session;
pub use socket::{Registered, Registration, Socket};
pub use stream::Stream;
pub use wire::{TextRows, Wire};
