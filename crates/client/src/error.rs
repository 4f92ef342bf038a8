//! What ends a client.

use std::fmt;

use walcast_protocol::ErrorMessage;

/// What went wrong, as far as a program can act on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The URL, a table's name, an id or another argument does not fit.
    Argument,
    /// The daemon serves nobody without a token, and this client has none.
    NoToken,
    /// The daemon, or what is in front of it, does not accept this token, or lets nobody in without one.
    Unauthorized,
    /// The daemon refuses this client, or what it asks for, as it is: its first fatal `error`, its close code or its HTTP
    /// status says why.
    Refused,
    /// A frame is over [`crate::ClientBuilder::message_bytes_max`].
    TooBig,
    /// What answers is not walcast, or speaks another version of the protocol.
    Protocol,
    /// The [`crate::CursorStore`] failed.
    Store,
    /// The daemon cannot be reached, or cannot answer now: the same may succeed later.
    Unavailable,
    /// It did not come in time.
    Deadline,
    /// The client, or the subscription, is over.
    Ended,
    /// The feed is another one by now, in which positions may mean something else.
    FeedChanged,
}

/// Why a client ended or could not be built, or what was asked of it failed. Lost connections are no errors, see [`crate::Event::Reconnecting`].
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    answer: Option<Box<ErrorMessage>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), answer: None, source: None }
    }

    pub(crate) fn caused(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the daemon said about what it `refused`.
    pub(crate) fn answered(kind: ErrorKind, refused: &str, answer: ErrorMessage) -> Self {
        let mut message = format!("the daemon refused {refused} ({}): {}", answer.code, answer.message);
        if let Some(hint) = &answer.hint {
            message.push_str("; ");
            message.push_str(hint);
        }
        Self { kind, message, answer: Some(Box::new(answer)), source: None }
    }

    /// The same for somebody else; the source's words, not the source.
    pub(crate) fn repeat(&self) -> Self {
        Self { kind: self.kind, message: self.to_string(), answer: self.answer.clone(), source: None }
    }

    /// Why the [`crate::CursorStore`] could not load or store, for implementations of it.
    #[must_use]
    pub fn store(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorKind::Store, message).caused(source)
    }

    /// What went wrong, for programs.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The daemon's own words, when it was the daemon that refused.
    #[must_use]
    pub fn answer(&self) -> Option<&ErrorMessage> {
        self.answer.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Display already says it; the chain continues behind it.
        self.source.as_deref().and_then(std::error::Error::source)
    }
}
