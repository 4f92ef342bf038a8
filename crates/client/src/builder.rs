//! How a client is set up.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use url::Url;
use walcast_protocol::STREAM_PATH;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::connection::Target;
use crate::cursor_store::{CursorStore, MemoryStore};
use crate::error::{Error, ErrorKind};
use crate::token::{Token, bearer};

/// Settings of a [`Client`]; see [`Client::builder`].
pub struct ClientBuilder {
    url: String,
    token: Token,
    store: Arc<dyn CursorStore>,
    backoff: Backoff,
    connect_timeout: Duration,
    message_bytes_max: usize,
    transaction_bytes_max: usize,
    tls: Option<Arc<ClientConfig>>,
    #[cfg(test)]
    memory: Option<crate::client::Memory>,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            token: Token::None,
            store: Arc::new(MemoryStore::default()),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(10),
            message_bytes_max: 256 << 20,
            transaction_bytes_max: 64 << 20,
            tls: None,
            #[cfg(test)]
            memory: None,
        }
    }

    /// Connects to what the test holds instead of to an address.
    #[cfg(test)]
    pub(crate) fn over(mut self, memory: crate::client::Memory) -> Self {
        self.memory = Some(memory);
        self
    }

    /// The token to show to the daemon, as `Authorization: Bearer`.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Fixed(token.into());
        self
    }

    /// Where tokens come from: asked before each connection, and again before the daemon says that the last one expires, so
    /// that the connection goes on. What it fails with is logged, and it is asked again.
    #[must_use]
    pub fn token_from<F, T>(mut self, ask: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.token = Token::From(Arc::new(move || Box::pin(ask())));
        self
    }

    /// Where cursors are kept. Default: a [`MemoryStore`].
    #[must_use]
    pub fn cursor_store(mut self, store: impl CursorStore + 'static) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// How long to wait between attempts.
    #[must_use]
    pub const fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The longest time for an attempt to connect, and after it for the daemon's `welcome`. Default 10 s.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The largest message to take, in bytes; a larger one ends the client with [`ErrorKind::TooBig`]. A message is about
    /// as large as the daemon's `part_bytes` setting, or as one row. Default 256 MiB.
    #[must_use]
    pub const fn message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Up to which size the parts of a transaction are joined, in bytes of their messages; what is over it is delivered
    /// in pieces with `more`. With 0 every part is delivered as it comes. Default 64 MiB.
    #[must_use]
    pub const fn transaction_bytes_max(mut self, bytes: usize) -> Self {
        self.transaction_bytes_max = bytes;
        self
    }

    /// TLS settings for `wss` URLs. Default: TLS 1.2 and 1.3, the system's root certificates, no client certificate.
    #[must_use]
    pub fn tls_config(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The client. It connects with the first [`Client::next`].
    ///
    /// # Errors
    /// When the URL is none of `ws://` and `wss://`, when the token cannot stand in a header, or when the system has no
    /// root certificates to check a `wss` server with.
    pub fn build(self) -> Result<Client, Error> {
        let url = parse_url(&self.url)?;
        if let Token::Fixed(token) = &self.token {
            bearer(token)?;
        }
        let tls = match (self.tls, url.scheme()) {
            (Some(config), _) => Some(config),
            (None, "wss") => Some(system_tls()?),
            (None, _) => None,
        };
        let target = Target {
            url,
            token: self.token,
            tls,
            message_bytes_max: self.message_bytes_max,
            connect_timeout: self.connect_timeout,
            #[cfg(test)]
            memory: self.memory,
        };
        Ok(Client::new(target, self.store, self.backoff, self.transaction_bytes_max))
    }
}

/// A URL without a path means the daemon's own.
fn parse_url(text: &str) -> Result<Url, Error> {
    let argument = |message: String| Error::new(ErrorKind::Argument, message);
    let example = "write ws://127.0.0.1:4700 or wss://feed.example.org";
    let mut url =
        Url::parse(text).map_err(|error| argument(format!("the URL cannot be read: {error}; {example}")))?;
    if !matches!(url.scheme(), "ws" | "wss") || url.host_str().is_none() {
        return Err(argument(format!("the URL is not one of a WebSocket; {example}")));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path(STREAM_PATH);
    }
    url.set_fragment(None);
    Ok(url)
}

fn system_tls() -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let message =
            "the system has no root certificates; install them (ca-certificates) or give a tls_config";
        return Err(Error::new(ErrorKind::Argument, message));
    }
    // Named, because a process in which two crates ask for two providers has no default one.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Argument, "TLS cannot be used").caused(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::parse_url;

    #[test]
    fn a_url_without_a_path_means_the_stream() {
        assert_eq!(parse_url("ws://localhost:4700").unwrap().as_str(), "ws://localhost:4700/v1/stream");
        assert_eq!(parse_url("wss://h/").unwrap().as_str(), "wss://h/v1/stream");
        assert_eq!(parse_url("wss://h/feeds/a?x=1").unwrap().as_str(), "wss://h/feeds/a?x=1");
        for text in ["", "localhost:4700", "http://localhost", "ws://"] {
            assert!(parse_url(text).is_err(), "{text:?}");
        }
    }
}
