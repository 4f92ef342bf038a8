//! The end of a subscription whose cursor cannot be served: from where on one like it could.

use walcast_model::Cursor;
use walcast_protocol::ErrorCode;

use super::{Phase, Question, Session, Turn, Wait};
use crate::reach::Reached;
use crate::refusal::Refusal;

/// What the client is to be told, but for a position that it could go on at.
#[derive(Debug)]
pub(super) struct Reaching {
    refusal: Refusal,
    /// No position before it will do.
    from: Cursor,
    asked: bool,
}

impl Reaching {
    /// Of refusals that name a position, those that must find it first.
    pub(super) fn of(refusal: &Refusal) -> Option<Self> {
        let from = refusal.oldest.filter(|_| refusal.code == ErrorCode::CursorTooOld)?;
        Some(Self { refusal: refusal.clone(), from, asked: false })
    }
}

impl Session {
    pub(super) const fn reach(&mut self) -> Turn {
        let Phase::Reaching(reaching) = &mut self.phase else { return Turn::Again };
        if std::mem::replace(&mut reaching.asked, true) {
            return Turn::Wait(Wait::Answer);
        }
        Turn::Ask(Question::Reach { from: reaching.from })
    }

    /// From where on it could be served.
    pub(super) fn reached(&mut self, reached: Result<Reached, Refusal>) {
        let Phase::Reaching(reaching) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        let refusal = reaching.refusal.resuming_at(reached.unwrap_or(Reached::Unknown));
        self.end(refusal);
    }
}
