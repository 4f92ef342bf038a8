//! Compacted catch-up: the net effect of many transactions, for clients that asked for it.
//!
//! It comes as one transaction in parts, of which only the last has a cursor: before that the client's copy is at no
//! transaction's boundary. A client that stops reading in the middle is not waited for: what was read for it is let go,
//! the messages are ended without a cursor, and the same is read again from where it was, which is right because a
//! compacted change can be applied twice.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use walcast_history::LatestPage;
use walcast_model::{Cursor, Part, Transaction};

use super::streaming::Stream;
use super::{Phase, Session, Turn};
use crate::encode::{self, Piece, View};

/// A page of the net effect, and the place that it takes among those in memory.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) page: LatestPage,
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

/// What is being given out.
#[derive(Debug)]
pub(super) struct Compacted {
    parts: VecDeque<Arc<Part>>,
    /// Where the position is after them.
    next: Cursor,
    /// The transaction that the client was told goes on.
    begun: Option<Arc<Transaction>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Compacted {
    /// Lets go of it: what the client has to be told the end of.
    pub(super) fn let_go(self) -> Option<Arc<Transaction>> {
        self.begun
    }
}

impl Stream {
    /// Whether the client was told of changes that lead nowhere yet.
    pub(super) fn is_inside_compacted(&self) -> bool {
        self.abandoned.is_some() || self.compacted.as_ref().is_some_and(|compacted| compacted.begun.is_some())
    }
}

impl Session {
    /// A page of history for a client that wants the latest rows.
    pub(super) fn latest(&mut self, folded: Folded) {
        let Folded { page: LatestPage { page, is_compacted }, place } = folded;
        if !is_compacted {
            return self.page(page);
        }
        let Phase::Streaming(stream) = &mut self.phase else { return };
        stream.asked = false;
        if page.parts.is_empty() {
            stream.after_reading = page.next;
            return;
        }
        let parts = page.parts.into_iter().map(Arc::new).collect();
        stream.compacted = Some(Compacted { parts, next: page.next, begun: None, _place: place });
    }

    /// The next part of it; `None` when there is none.
    pub(super) fn deliver_compacted(&mut self) -> Option<Turn> {
        let Phase::Streaming(stream) = &mut self.phase else { return None };
        if let Some(transaction) = stream.abandoned.take() {
            let piece = Piece { cursor: None, more: false };
            let frame = self.heads.transaction(encode::compacted_ending(&transaction, None), piece);
            self.frames.push_back(frame);
            return Some(Turn::Again);
        }
        let compacted = stream.compacted.as_mut()?;
        let Some(part) = compacted.parts.pop_front() else {
            let next = compacted.next;
            stream.compacted = None;
            stream.after_reading = next;
            return Some(Turn::Again);
        };
        let encoded = encode::part(&part, self.shape.wanted(), View { is_compacted: true, ..View::whole() });
        let was_begun = compacted.begun.is_some();
        if encoded.ends {
            compacted.begun = None;
            self.last_cursor = self.last_cursor.max(encoded.next);
        } else if !encoded.runs.is_empty() {
            compacted.begun = Some(Arc::clone(part.transaction()));
        }
        for run in &encoded.runs {
            for relation in &run.relations {
                self.tell_relation(relation);
            }
            let frame = self.heads.transaction(run.tail.clone(), run.piece);
            self.frames.push_back(frame);
        }
        if encoded.ends && encoded.runs.is_empty() && was_begun {
            let ending = encode::compacted_ending(part.transaction(), Some(encoded.next));
            let piece = Piece { cursor: Some(encoded.next), more: false };
            let frame = self.heads.transaction(ending, piece);
            self.frames.push_back(frame);
        }
        Some(Turn::Again)
    }
}

#[cfg(test)]
mod tests;
