//! Rows by key: `POST /v1/rows`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use url::Url;
use walcast_model::{Cursor, FeedId, RelationName};
use walcast_protocol::ErrorMessage;

use crate::connection::{Target, dial, words};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// Connecting, the request and the answer together; the daemon itself takes 10 s at the most (`rows_answer_max`).
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Which rows to look up; see [`crate::Handle::rows`].
#[derive(Clone, Debug)]
pub struct Lookup {
    table: RelationName,
    columns: Option<Vec<String>>,
    keys: Vec<Key>,
}

impl Lookup {
    /// Rows of `table`, written `schema.table`.
    ///
    /// # Errors
    /// When that is not the name of one table.
    pub fn new(table: &str) -> Result<Self, Error> {
        Ok(Self { table: name(table)?, columns: None, keys: Vec::new() })
    }

    /// One more row, by exactly the columns of its key: `json!({"id": 1})`, a map, or a struct. The daemon takes 1,000 in
    /// one request (`rows_keys_max`), of 64 KiB in all (`message_bytes_max`).
    ///
    /// # Errors
    /// When it does not become a JSON object.
    pub fn key(mut self, key: &impl Serialize) -> Result<Self, Error> {
        self.keys.push(Key::new(key)?);
        Ok(self)
    }

    /// Only these columns, besides the key's.
    #[must_use]
    pub fn columns<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    pub(crate) fn body(&self) -> String {
        body(&self.table, self.columns.as_deref(), self.keys.iter())
    }
}

/// The name of one table.
pub(crate) fn name(table: &str) -> Result<RelationName, Error> {
    let table: RelationName = table.parse().map_err(|_| {
        let message = format!("{table:?} is not the name of one table; write schema.table");
        Error::new(ErrorKind::Argument, message)
    })?;
    Ok(table)
}

/// A request.
pub(crate) fn body<'a>(
    table: &RelationName,
    columns: Option<&[String]>,
    keys: impl Iterator<Item = &'a Key>,
) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut body = format!("{{\"table\":{},\"keys\":[", quoted(&table.to_string()));
    for (index, key) in keys.enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(key.json());
    }
    body.push(']');
    if let Some(columns) = columns {
        let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        body.push_str(&format!(",\"columns\":[{}]", columns.join(",")));
    }
    body.push('}');
    body
}

/// Rows as the source has them now, with the two positions that say what is in them.
#[derive(Clone, Debug, Deserialize)]
pub struct Rows {
    /// The feed that both cursors are of.
    pub feed: FeedId,
    /// Everything that the rows do not contain is at or after it: a stream from here misses nothing that is newer.
    pub cursor: Cursor,
    /// Everything that the rows contain is before it, and the feed has all of it.
    pub reached: Cursor,
    /// One for each key, in the order of the keys, as the server wrote it. `None`: there is none, or not for this client.
    pub rows: Vec<Option<Box<RawValue>>>,
}

/// Why there are no rows.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The same request may be answered later: not before `after`, when the daemon says so.
    Later { error: Error, after: Option<Duration> },
    /// It will not.
    Refused(Error),
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Later { error, .. } | Unanswered::Refused(error) => error,
        }
    }
}

/// Where rows are asked for. Each request has a connection of its own: seconds lie between them.
pub(crate) struct RowsDoor {
    target: Target,
    url: Url,
    /// What was shown last. Held for a look.
    authorization: Mutex<Option<HeaderValue>>,
}

impl RowsDoor {
    pub(crate) fn new(target: Target, url: Url) -> Self {
        Self { target, url, authorization: Mutex::default() }
    }

    /// Sends one request. A token that is refused is asked for once more, where another one can come.
    ///
    /// # Cancellation
    /// Dropped, the connection is closed and the daemon stops looking.
    pub(crate) async fn ask(&self, body: String) -> Result<Rows, Unanswered> {
        let shown = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let was_kept = shown.is_some();
        let authorization = match shown {
            Some(shown) => Some(shown),
            None => self.authorize().await?,
        };
        let body = Bytes::from(body);
        match self.exchange(body.clone(), authorization).await {
            Err(Unanswered::Refused(error)) if error.kind() == ErrorKind::Unauthorized => {
                self.authorization.lock().unwrap_or_else(PoisonError::into_inner).take();
                if !was_kept || !self.target.token.is_renewable() {
                    return Err(Unanswered::Refused(error));
                }
                let authorization = self.authorize().await?;
                self.exchange(body, authorization).await
            }
            answer => answer,
        }
    }

    async fn authorize(&self) -> Result<Option<HeaderValue>, Unanswered> {
        let header = self.target.token.header().await;
        let header = header.map_err(|error| later(format!("there is no token: {error}")))?;
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&header);
        Ok(header)
    }

    async fn exchange(&self, body: Bytes, authorization: Option<HeaderValue>) -> Result<Rows, Unanswered> {
        let late = |_| later(format!("no answer within {REQUEST_MAX:?}"));
        let outcome = tokio::time::timeout(REQUEST_MAX, self.converse(body, authorization)).await;
        outcome.map_err(late).flatten().map_err(|unanswered| match unanswered {
            Unanswered::Later { error, after } => {
                // Host and port alone: a URL may hold a token.
                let host = self.url.host_str().unwrap_or_default();
                let port = self.url.port_or_known_default().unwrap_or_default();
                let error = Error::new(
                    ErrorKind::Unavailable,
                    format!("rows cannot be had from {host}:{port} now: {error}"),
                );
                Unanswered::Later { error, after }
            }
            refused => refused,
        })
    }

    async fn converse(&self, body: Bytes, authorization: Option<HeaderValue>) -> Result<Rows, Unanswered> {
        let mut request = Request::post(&self.url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(HOST, &self.url[url::Position::BeforeHost..url::Position::AfterPort])
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("walcast-client/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            Unanswered::Refused(Error::new(ErrorKind::Argument, "the URL cannot be used").caused(error))
        })?;
        let stream = dial(&self.target, &self.url).await.map_err(|error| later(error.to_string()))?;
        let answer = match (self.url.scheme(), &self.target.tls) {
            ("https", Some(tls)) => {
                let host = self.url.host_str().unwrap_or_default();
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let host = ServerName::try_from(host).map_err(|error| {
                    let message = "the URL's host cannot be the name in a certificate";
                    Unanswered::Refused(Error::new(ErrorKind::Argument, message).caused(error))
                })?;
                let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(tls));
                // Boxed: what TLS keeps is large.
                let stream = Box::pin(tls.connect(host, stream)).await;
                self.over(stream.map_err(|error| later(error.to_string()))?, request).await?
            }
            _ => self.over(stream, request).await?,
        };
        serde_json::from_slice(&answer).map_err(|error| {
            let message = "what answers is not walcast; check the URL of rows";
            Unanswered::Refused(Error::new(ErrorKind::Protocol, message).caused(error))
        })
    }

    /// The body of the answer.
    async fn over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, Unanswered> {
        let broken = |error: hyper::Error| later(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(broken)?;
            self.read(answer).await
        };
        tokio::pin!(exchange);
        tokio::select! {
            // Alone it reads and writes nothing.
            answer = &mut exchange => answer,
            ended = connection => {
                ended.map_err(broken)?;
                exchange.await
            }
        }
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Bytes, Unanswered> {
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = Limited::new(answer.into_body(), self.target.message_bytes_max).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let message = "an answer with rows is over this client's message_bytes_max; raise it";
                Unanswered::Refused(Error::new(ErrorKind::TooBig, message))
            } else {
                later(error.to_string())
            }
        })?;
        let body = body.to_bytes();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let passes = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            || status.is_server_error();
        if passes {
            let error = Error::new(ErrorKind::Unavailable, format!("{status}: {}", words(&body)));
            return Err(Unanswered::Later { error, after: after.map(Duration::from_secs) });
        }
        let unauthorized = status == StatusCode::UNAUTHORIZED;
        let kind = if unauthorized { ErrorKind::Unauthorized } else { ErrorKind::Refused };
        Err(Unanswered::Refused(match serde_json::from_slice::<ErrorMessage>(&body) {
            Ok(answer) => Error::answered(kind, "to look up rows", answer),
            Err(_) if unauthorized => Error::new(kind, format!("the token was refused: {}", words(&body))),
            Err(_) => {
                let message = format!("what answers for rows is not walcast ({status}): {}", words(&body));
                Error::new(ErrorKind::Protocol, message)
            }
        }))
    }
}

fn later(reason: String) -> Unanswered {
    Unanswered::Later { error: Error::new(ErrorKind::Unavailable, reason), after: None }
}
