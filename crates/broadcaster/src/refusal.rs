//! Why a request of a client is refused, or a subscription is over.

use walcast_filter::FilterError;
use walcast_model::{Cursor, FeedId, RelationName};
use walcast_protocol::{ErrorCode, ErrorMessage, SubscriptionId};

use crate::reach::Reached;

/// A refusal: what an `error` message says. The connection and its other subscriptions go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) oldest: Option<Cursor>,
    /// Why, in words that only those may know who may know everything: they are told it behind the message.
    pub(crate) cause: Option<Box<str>>,
    /// Its words are those of the source or of history, and may name what a client with bounded rights must not know.
    pub(crate) is_of_inside: bool,
}

/// What to do about a cursor that leads nowhere.
const SYNC_AGAIN: &str = "subscribe without a cursor for an initial sync";

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, oldest: None, cause: None, is_of_inside: false }
    }

    /// What the source or history says: tables, roles and statements that are for operators among it.
    pub(crate) fn of_inside(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { is_of_inside: true, ..Self::new(code, message) }
    }

    /// What of it a client is told: everything where no policies are in force for it (`may_know_all`), else what it needs. The
    /// rest is in the log.
    pub(crate) fn told(mut self, may_know_all: bool) -> Self {
        if let Some(cause) = self.cause.take().filter(|_| may_know_all) {
            self.message = format!("{}: {cause}", self.message);
        }
        if !self.is_of_inside || may_know_all {
            return self;
        }
        let log = "the daemon's log has the cause";
        let (message, hint) = match &self.code {
            ErrorCode::UnknownTable => {
                ("the table is not there, or not published", "ask whoever runs walcast what is")
            }
            ErrorCode::BadMessage => (
                "what is asked for does not fit the table: a column, or a value that is not of its column's type",
                "write values as they are in rows",
            ),
            ErrorCode::LimitExceeded => {
                ("it is more than the source can give at once", "ask for less at a time")
            }
            ErrorCode::NotReady => ("the source or the history cannot give it now", log),
            _ => ("the daemon cannot read its source or its history", log),
        };
        Self { message: message.to_owned(), hint: Some(hint.to_owned()), ..self }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadMessage, message)
    }

    /// A `where` that is not taken.
    pub(crate) fn bad_filter(table: &RelationName, error: &FilterError) -> Self {
        let code = if error.is_limit() { ErrorCode::LimitExceeded } else { ErrorCode::BadFilter };
        Self::new(code, format!("where of {table}: {error}")).hint(error.hint())
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        let hint = "ask whoever runs walcast for a policy that grants it to your role";
        Self::new(ErrorCode::Forbidden, message).hint(hint)
    }

    pub(crate) fn too_old(cursor: Cursor, oldest: Cursor) -> Self {
        let message = format!("history begins at {oldest}, after the cursor {cursor}");
        let refusal = Self::new(ErrorCode::CursorTooOld, message).hint(SYNC_AGAIN);
        Self { oldest: Some(oldest), ..refusal }
    }

    /// With a position that a subscription like the refused one can be resumed at.
    pub(crate) fn resuming_at(self, reached: Reached) -> Self {
        let (oldest, words) = match reached {
            Reached::From(at) if self.oldest == Some(at) => return self,
            Reached::From(at) => (Some(at), format!("the subscription can be served from {at} on")),
            Reached::Nowhere => {
                (None, "there is no position yet from which the subscription can be served".to_owned())
            }
            Reached::Unknown => {
                (None, "from where on the subscription can be served is not known now".to_owned())
            }
        };
        Self { message: format!("{}; {words}", self.message), oldest, ..self }
    }

    /// History let go of what an initial sync needed of it.
    pub(crate) fn outlived(message: impl Into<String>) -> Self {
        let hint =
            "ask again; if that does not help, history has to be kept for longer than an initial sync takes";
        Self::of_inside(ErrorCode::NotReady, message).hint(hint)
    }

    pub(crate) fn ahead(cursor: Cursor, reached: Cursor) -> Self {
        let message =
            format!("the cursor {cursor} is ahead of the feed, which has everything before {reached}");
        Self::new(ErrorCode::CursorAhead, message).hint(SYNC_AGAIN)
    }

    pub(crate) fn other_feed(asked: &FeedId, ours: &FeedId) -> Self {
        let message = format!("the cursor belongs to feed {asked}, and this is feed {ours}");
        Self::new(ErrorCode::FeedChanged, message).hint(SYNC_AGAIN)
    }

    pub(crate) fn beyond_branch(cursor: Cursor, feed: &FeedId, valid_to: Cursor) -> Self {
        let message = format!(
            "the cursor {cursor} is after {valid_to}, up to where the source is known to have what feed {feed} delivered"
        );
        Self::new(ErrorCode::FeedChanged, message).hint(SYNC_AGAIN)
    }

    /// The message for the client.
    pub(crate) fn into_message(self, id: Option<SubscriptionId>, fatal: bool) -> ErrorMessage {
        let Self { code, message, hint, oldest, cause: _, is_of_inside: _ } = self;
        ErrorMessage { code, message, hint, id, channel: None, reference: None, oldest, fatal }
    }
}
