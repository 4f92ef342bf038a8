//! The token that a client shows, and where the next one comes from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use walcast_model::Timestamp;
use walcast_protocol::Heartbeat;

use crate::error::{Error, ErrorKind};

/// Why there is no token.
pub(crate) type NoToken = Box<dyn std::error::Error + Send + Sync>;

type Asking = Pin<Box<dyn Future<Output = Result<String, NoToken>> + Send>>;

/// What is shown to the daemon.
#[derive(Clone, Default)]
pub(crate) enum Token {
    #[default]
    None,
    /// Always the same.
    Fixed(String),
    /// Asked for before each connection, and before the last one expires.
    From(Arc<dyn Fn() -> Asking + Send + Sync>),
}

impl Token {
    pub(crate) const fn is_there(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether another one may come.
    pub(crate) const fn is_renewable(&self) -> bool {
        matches!(self, Self::From(_))
    }

    /// What a connection is made with.
    pub(crate) async fn header(&self) -> Result<Option<HeaderValue>, NoToken> {
        let token = match self {
            Self::None => return Ok(None),
            Self::Fixed(token) => token.clone(),
            Self::From(ask) => ask().await?,
        };
        Ok(Some(bearer(&token)?))
    }
}

pub(crate) fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        Error::new(ErrorKind::Argument, "the token holds a character that no header may have")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// How much of a token's time may be left when the next one is asked for, at the most.
const MARGIN_MAX: Duration = Duration::from_secs(60);
/// The pause after one could not be had.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the token of one connection from expiring.
#[derive(Default)]
pub(crate) struct Renewal {
    /// When the one in use expires, as the daemon says.
    expires_at: Option<Timestamp>,
    due: Option<Pin<Box<Sleep>>>,
    asking: Option<Asking>,
}

impl Renewal {
    /// The daemon says when the token expires: the next one is asked for in the last fifth of its time.
    pub(crate) fn heard(&mut self, heartbeat: &Heartbeat) {
        let Some(expires_at) = heartbeat.token_expires_at.filter(|at| Some(*at) != self.expires_at) else {
            return;
        };
        self.expires_at = Some(expires_at);
        let left = expires_at.seconds_since(heartbeat.time).clamp(0.0, 1e9);
        let left = Duration::from_secs_f64(left);
        self.due = Some(Box::pin(sleep(left.saturating_sub((left / 5).min(MARGIN_MAX)))));
    }

    /// The daemon asks for the token: it did not come with the request.
    pub(crate) fn ask(&mut self, token: &Token) {
        self.asking = match token {
            Token::None => None,
            Token::Fixed(token) => Some(Box::pin(std::future::ready(Ok(token.clone())))),
            Token::From(ask) => Some(ask()),
        };
    }

    /// The next token, when it is time for it and it is there.
    pub(crate) fn poll(&mut self, token: &Token, cx: &mut Context<'_>) -> Poll<String> {
        loop {
            if let Some(asking) = &mut self.asking {
                let answer = std::task::ready!(asking.as_mut().poll(cx));
                self.asking = None;
                match answer {
                    Ok(token) => return Poll::Ready(token),
                    Err(error) => {
                        tracing::warn!(%error, "there is no new token; asking again");
                        self.due = Some(Box::pin(sleep(RETRY)));
                    }
                }
            }
            let Some(due) = &mut self.due else { return Poll::Pending };
            std::task::ready!(due.as_mut().poll(cx));
            self.due = None;
            let Token::From(ask) = token else { return Poll::Pending };
            self.asking = Some(ask());
        }
    }
}
