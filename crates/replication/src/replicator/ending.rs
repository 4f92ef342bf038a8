//! What the end of a stream means for the feed, and who is told.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use walcast_feed::SourceState;
use walcast_postgres::ErrorClass;

use super::Replicator;
use super::keeper::{FeedEnd, LastingHole, Tenure};
use crate::error::Error;
use crate::metrics::{HOLE, INTERRUPTIONS_TOTAL};

/// How long history is waited for with each question about the end of a stream: as long the slot is not tried again. After
/// that it counts as a history that does not answer, and is asked again with the next end.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why the feed cannot go on. What fails meanwhile is no news, and its remedy no help.
#[derive(Debug)]
pub(super) struct KnownHole {
    reason: String,
    hint: Option<String>,
    /// Whether no server brings what is missing. A slot may be there on the server that was meant.
    is_lasting: bool,
    /// Until it is kept for those who do not read the slot.
    unkept: Option<LastingHole>,
}

impl KnownHole {
    /// Whether the feed may go on all the same, once it is read from a server that lacks nothing.
    pub(super) const fn may_pass(&self) -> bool {
        !self.is_lasting
    }
}

impl Replicator {
    /// Finds out what an error means for the feed, and tells the keeper. Returns what is to be told to people.
    pub(super) async fn ended(&mut self, error: Error) -> Error {
        let error = self.judged(error).await;
        if self.has_held && error.is_hole() {
            self.remember(&error);
        }
        // Before anybody acts on it: who is ended then leaves what it knew.
        self.keep_hole().await;
        self.tell(&error);
        error
    }

    /// Who has lost the feed, or does not know yet that another one was begun, takes its slot for gone or for ahead.
    async fn judged(&mut self, error: Error) -> Error {
        let is_doubtful = self.has_held && (error.is_hole() || self.hole.is_some());
        let Some(keeper) = self.settings.keeper.clone().filter(|_| is_doubtful) else { return error };
        let slot = self.settings.slot.clone();
        let other = match answered(keeper.tenure()).await {
            Ok(Tenure::Own) => return error,
            Ok(Tenure::BeingSetUp) => Error::BeingSetUp { slot },
            Ok(Tenure::Over) => Error::Overtaken { slot },
            Err(reason) => {
                tracing::warn!(error = reason, "history does not say whose the feed is; asking again");
                return error;
            }
        };
        tracing::debug!(%error, "not judged, as the feed may be over");
        self.hole = None;
        metrics::gauge!(HOLE).set(0.0);
        other
    }

    fn remember(&mut self, error: &Error) {
        metrics::gauge!(HOLE).set(1.0);
        let before = self.hole.take();
        let was_lasting = before.as_ref().is_some_and(|known| known.is_lasting);
        let lasting = error.lasting_hole(self.writer.head().lsn());
        let is_lasting = was_lasting || lasting.is_some();
        // The same is found again and again.
        let found = lasting.filter(|_| !was_lasting);
        let unkept = found.or_else(|| before.and_then(|known| known.unkept));
        self.hole = Some(KnownHole { reason: error.to_string(), hint: error.hint(), is_lasting, unkept });
    }

    /// Has it kept, if it is not yet. Each later failure tries again; should the process end before, then whoever reads the
    /// slot next finds it again.
    async fn keep_hole(&mut self) {
        let Some(keeper) = self.settings.keeper.clone() else { return };
        let Some(known) = self.hole.as_mut() else { return };
        let Some(hole) = known.unkept.clone() else { return };
        match answered(keeper.keep_hole(hole)).await {
            Ok(()) => known.unkept = None,
            Err(reason) => tracing::warn!(
                error = reason,
                "that changes are missing is not recorded yet: who does not read the slot cannot tell; trying again"
            ),
        }
    }

    /// Tells the keeper when an error means that the feed cannot go on as it is.
    fn tell(&self, error: &Error) {
        let end = match error {
            Error::Branched { .. } => FeedEnd::Branched,
            Error::SentDiffers { at, .. } => FeedEnd::Differs { at: *at },
            Error::Overtaken { .. } => FeedEnd::Overtaken,
            // Who was faster has moved the slot, which looks like a hole from here and is none.
            error if !self.has_held && (error.is_hole() || matches!(error, Error::SlotInUse { .. })) => {
                FeedEnd::Overtaken
            }
            error if error.is_hole() => FeedEnd::Hole,
            _ => return,
        };
        if let Some(keeper) = &self.settings.keeper {
            keeper.ended(end);
        }
    }

    /// Says that the slot does not stream, before it is known what that means for the feed. What is to be done about a
    /// hole is said only by who has the feed.
    pub(super) fn say_interrupted(&self, error: &Error) {
        let (reason, hint) = self.told(error);
        let is_judged = !error.is_hole() || self.hole.is_some() || self.settings.keeper.is_none();
        self.writer.set_source(SourceState::Interrupted { reason, hint: hint.filter(|_| is_judged) });
    }

    /// What people are told: why the slot does not stream, and what to do about it.
    fn told(&self, error: &Error) -> (String, Option<String>) {
        match &self.hole {
            Some(known) if !error.is_hole() => {
                (format!("{}; and now: {error}", known.reason), known.hint.clone())
            }
            _ => (error.to_string(), error.hint()),
        }
    }

    /// Says that the slot does not stream, and tries again after `wait`.
    pub(super) fn interrupted(&mut self, error: &Error, wait: Duration) {
        self.away_since.get_or_insert_with(Instant::now);
        metrics::counter!(INTERRUPTIONS_TOTAL).increment(1);
        let (reason, hint) = self.told(error);
        let slot = &self.settings.slot;
        match error.class() {
            ErrorClass::Transient => {
                tracing::warn!(
                    slot,
                    error = reason,
                    hint,
                    "the slot does not stream; trying again in {wait:.1?}"
                );
            }
            ErrorClass::Operator | ErrorClass::Bug => {
                tracing::error!(
                    slot,
                    error = reason,
                    hint,
                    "the slot does not stream; trying again in {wait:.1?}"
                );
            }
        }
        self.writer.set_source(SourceState::Interrupted { reason, hint });
    }
}

/// What history answers, if it does in time.
async fn answered<T>(answer: BoxFuture<'static, Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("history does not answer within {ANSWER_WAIT_MAX:?}"));
    tokio::time::timeout(ANSWER_WAIT_MAX, answer).await.unwrap_or_else(late)
}
