//! What a client acknowledges of a subscription, and what becomes of it.

use std::future::pending;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use walcast_model::Cursor;
use walcast_protocol::{Acked, ErrorCode, ServerMessage, StartAt, SubscriptionId};

use crate::acks::{Claim, Outcome};
use crate::metrics as names;
use crate::refusal::Refusal;

/// The first and the last cursor that a client can have stored of what it was sent.
type Storable = Option<(Cursor, Cursor)>;

pub(super) struct Acknowledging {
    claim: Arc<Claim>,
    /// Comes with the next outcome.
    outcome: BoxFuture<'static, watch::Receiver<Outcome>>,
    /// What it acknowledged last since its session started.
    last: Cursor,
    /// Whether it begins where the client says, which counts for more than what was acknowledged before.
    corrects: bool,
    /// A name for what policies give the client.
    rights: Option<Arc<str>>,
}

impl Acknowledging {
    pub(super) fn new(claim: Arc<Claim>, start: StartAt, rights: Option<&str>) -> Self {
        Self {
            outcome: next_outcome(claim.watch()),
            claim,
            last: Cursor::ZERO,
            corrects: matches!(start, StartAt::At(_) | StartAt::Latest),
            rights: rights.map(Arc::from),
        }
    }

    pub(super) const fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// The client says what it has stored.
    ///
    /// # Errors
    /// When it cannot have stored that.
    pub(super) fn acknowledge(&mut self, cursor: Cursor, storable: Storable) -> Result<(), Refusal> {
        let Some((first, last)) = storable else {
            let refusal = Refusal::bad("there is no cursor yet that could be acknowledged");
            return Err(refusal.hint("acknowledge cursors that were sent since the last subscribed"));
        };
        let first = first.max(self.last);
        if cursor < first {
            let message =
                format!("the cursor {cursor} is before {first}: what was acknowledged does not go back");
            return Err(Refusal::bad(message).hint("to start over, subscribe at the cursor that is stored"));
        }
        if cursor > last {
            let message = format!("the cursor {cursor} is ahead of {last}, the last that was sent");
            return Err(
                Refusal::bad(message).hint("acknowledge cursors as they were sent, once they are stored")
            );
        }
        self.claim.acknowledge(cursor, self.rights.clone())?;
        (self.last, self.corrects) = (cursor, false);
        Ok(())
    }

    /// Once it has begun where its client says that it is.
    pub(super) fn correct(&mut self, storable: impl FnOnce() -> Storable) {
        if self.corrects
            && let Some((first, _)) = storable()
            // Tried again with the next step when too much waits; when the name is somebody else's it is over.
            && self.claim.correct(first).map_or_else(|refusal| refusal.code != ErrorCode::NotReady, |()| true)
        {
            self.corrects = false;
        }
    }

    /// The subscription starts over under other rights.
    pub(super) fn start_over(&mut self, rights: Option<&str>) {
        self.last = Cursor::ZERO;
        self.corrects = false;
        self.rights = rights.map(Arc::from);
    }

    /// What became of what the client acknowledged, unless it was told. Whoever asks is woken when there is more.
    pub(super) fn poll_outcome(&mut self, id: &SubscriptionId, cx: &mut Context<'_>) -> Poll<ServerMessage> {
        loop {
            let mut receiver = ready!(self.outcome.poll_unpin(cx));
            let is_somebody_elses = receiver.has_changed().is_err();
            let outcome = receiver.borrow_and_update().clone();
            self.outcome = next_outcome(receiver);
            match outcome {
                _ if is_somebody_elses => {}
                Outcome::Durable(cursor) if cursor > Cursor::ZERO => {
                    return Poll::Ready(Acked { id: id.clone(), cursor }.into());
                }
                Outcome::Nothing | Outcome::Durable(_) => {}
                Outcome::Refused(refusal) => {
                    metrics::counter!(names::ERRORS, "code" => refusal.code.to_string()).increment(1);
                    return Poll::Ready(refusal.into_message(None, false).into());
                }
            }
        }
    }
}

/// Owns its receiver, so that the place where it waits is kept between two looks.
fn next_outcome(mut outcome: watch::Receiver<Outcome>) -> BoxFuture<'static, watch::Receiver<Outcome>> {
    async move {
        match outcome.changed().await {
            Ok(()) => outcome,
            // It is somebody else's, and nothing comes any more.
            Err(_) => pending().await,
        }
    }
    .boxed()
}
