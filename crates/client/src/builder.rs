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
    rows_url: Option<String>,
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
            rows_url: None,
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

    /// Where rows are asked for, `http://` or `https://`, with its path. Default: beside the stream, so `rows` in place of the
    /// last part of its path, at the same host and port.
    #[must_use]
    pub fn rows_url(mut self, url: &str) -> Self {
        self.rows_url = Some(url.to_owned());
        self
    }

    /// TLS settings for `wss` and `https` URLs. Default: TLS 1.2 and 1.3, the system's root certificates, no client certificate.
    #[must_use]
    pub fn tls_config(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// The client. It connects with the first [`Client::next`].
    ///
    /// # Errors
    /// When a URL is none of `ws://` and `wss://`, or of `http://` and `https://` for rows; when the token cannot stand in a header, or when the system has no
    /// root certificates to check a `wss` server with.
    pub fn build(self) -> Result<Client, Error> {
        let url = parse_url(&self.url)?;
        let rows_url = self.rows_url.as_deref().map_or_else(|| beside(&url), parse_rows_url)?;
        if let Token::Fixed(token) = &self.token {
            bearer(token)?;
        }
        let is_secure = url.scheme() == "wss" || rows_url.scheme() == "https";
        let tls = match self.tls {
            None if is_secure => Some(system_tls()?),
            given => given,
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
        Ok(Client::new(target, rows_url, self.store, self.backoff, self.transaction_bytes_max))
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

/// Rows are asked for beside the stream.
fn beside(stream: &Url) -> Result<Url, Error> {
    let scheme = if stream.scheme() == "wss" { "https" } else { "http" };
    let failed =
        || Error::new(ErrorKind::Argument, "there is no URL of rows beside this one; give a rows_url");
    let text = format!("{scheme}{}", &stream[url::Position::AfterScheme..]);
    let mut url = Url::parse(&text).map_err(|_| failed())?;
    url.path_segments_mut().map_err(|()| failed())?.pop_if_empty().pop().push("rows");
    Ok(url)
}

fn parse_rows_url(text: &str) -> Result<Url, Error> {
    let argument = |message: String| Error::new(ErrorKind::Argument, message);
    let example = "write https://feed.example.org/v1/rows";
    let mut url = Url::parse(text)
        .map_err(|error| argument(format!("the URL of rows cannot be read: {error}; {example}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(argument(format!("the URL of rows is not one of HTTP; {example}")));
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
    use super::{beside, parse_rows_url, parse_url};

    #[test]
    fn rows_are_beside_the_stream() {
        let rows = |text: &str| beside(&parse_url(text).unwrap()).unwrap().to_string();
        assert_eq!(rows("ws://localhost:4700"), "http://localhost:4700/v1/rows");
        assert_eq!(rows("wss://u@h/feeds/a/?token=x"), "https://u@h/feeds/rows?token=x");
        assert_eq!(parse_rows_url("https://h/r?x=1#y").unwrap().as_str(), "https://h/r?x=1");
        assert!(parse_rows_url("ws://h").is_err() && parse_rows_url("h").is_err());
    }

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
