//! Which recent parts concern a shape, and their frames.

use std::collections::VecDeque;
use std::sync::Arc;

use walcast_model::Cursor;

use super::Kept;
use crate::encode::Encoded;

/// Room for so many is kept when there are none.
const HITS_FEW: usize = 8;

/// A part that concerns the shape.
#[derive(Debug)]
struct Hit {
    cursor: Cursor,
    next: Cursor,
    only: Only,
    encoded: Option<Kept>,
}

/// The only changes of a part that can concern the shape, by their index; `None` when that is not known.
pub(crate) type Only = Option<Arc<[u32]>>;

/// What follows a cursor.
#[derive(Debug)]
pub(crate) enum Next {
    /// The router did not look that far back: the session has to read on by itself.
    Unknown,
    /// The next part that concerns the shape, with its frames if somebody encoded them.
    /// `is_last`: nothing follows it so far.
    Part { cursor: Cursor, encoded: Option<Arc<Encoded>>, is_last: bool },
    /// Nothing, as far as the router has seen.
    Nothing,
}

/// What became of a part that was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Noted {
    /// It was told before.
    Known,
    /// It is new, and others were told since the sessions were woken last.
    New,
    /// It is the first since the sessions were woken last: they are to be woken.
    First,
}

#[derive(Debug)]
pub(crate) struct Traffic {
    /// From here on `hits` is complete; `None` while the router does not tell.
    from: Option<Cursor>,
    hits: VecDeque<Hit>,
    /// Whether something was noted since the sessions were woken.
    unheard: bool,
}

impl Traffic {
    pub(crate) const fn new() -> Self {
        Self { from: None, hits: VecDeque::new(), unheard: false }
    }

    pub(crate) const fn begin(&mut self, from: Cursor) {
        self.from = Some(from);
    }

    /// Of what it knows then, the oldest is forgotten while it is more than `hits_max`.
    pub(crate) fn note(&mut self, cursor: Cursor, next: Cursor, only: Only, hits_max: usize) -> Noted {
        if self.hits.back().is_some_and(|hit| hit.cursor >= cursor) {
            return Noted::Known;
        }
        if self.hits.is_empty() {
            // Most shapes have one at a time.
            self.hits.reserve_exact(1);
        }
        self.hits.push_back(Hit { cursor, next, only, encoded: None });
        // More than one when there may be fewer than before.
        while self.hits.len() > hits_max.max(1)
            && let Some(oldest) = self.hits.pop_front()
        {
            self.from = Some(oldest.next);
        }
        if std::mem::replace(&mut self.unheard, true) { Noted::New } else { Noted::First }
    }

    pub(crate) const fn woken(&mut self) {
        self.unheard = false;
    }

    pub(crate) fn overtaken(&mut self, oldest: Cursor) {
        self.hits.clear();
        self.from = self.from.map(|_| oldest);
    }

    /// Forgets what is behind everybody who can still ask for it.
    pub(crate) fn forget_before(&mut self, cursor: Cursor) {
        if self.from.is_none_or(|from| cursor < from) {
            return;
        }
        while let Some(hit) = self.hits.pop_front_if(|hit| hit.next <= cursor) {
            self.from = Some(hit.next);
        }
        if self.hits.is_empty() && self.hits.capacity() > HITS_FEW {
            self.hits = VecDeque::new();
        }
    }

    pub(crate) fn next(&self, cursor: Cursor) -> Next {
        if self.from.is_none_or(|from| cursor < from) {
            return Next::Unknown;
        }
        let index = self.hits.partition_point(|hit| hit.next <= cursor);
        self.hits.get(index).map_or(Next::Nothing, |hit| Next::Part {
            cursor: hit.cursor,
            encoded: hit.encoded.as_ref().map(Kept::frames),
            is_last: index + 1 == self.hits.len(),
        })
    }

    fn hit(&mut self, cursor: Cursor) -> Option<&mut Hit> {
        let index = self.hits.partition_point(|hit| hit.cursor < cursor);
        self.hits.get_mut(index).filter(|hit| hit.cursor == cursor)
    }

    /// What is known of the part at `cursor`.
    pub(crate) fn only(&mut self, cursor: Cursor) -> Only {
        self.hit(cursor).and_then(|hit| hit.only.clone())
    }

    pub(crate) fn encoded(&mut self, cursor: Cursor) -> Option<Arc<Encoded>> {
        self.hit(cursor)?.encoded.as_ref().map(Kept::frames)
    }

    /// Whether there is a place for it.
    pub(crate) fn keep(&mut self, cursor: Cursor, frames: Kept) -> bool {
        let Some(hit) = self.hit(cursor) else { return false };
        hit.encoded = Some(frames);
        true
    }

    pub(crate) fn forget(&mut self, cursor: Cursor) {
        if let Some(hit) = self.hit(cursor) {
            hit.encoded = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn};

    use super::{Next, Traffic};

    fn at(lsn: u64) -> Cursor {
        Lsn::new(lsn).into()
    }

    #[test]
    fn what_was_pushed_out_is_unknown_and_never_nothing() {
        const HITS: usize = 2;
        let mut traffic = Traffic::new();
        assert!(matches!(traffic.next(at(10)), Next::Unknown));
        traffic.begin(at(10));
        assert!(matches!(traffic.next(at(9)), Next::Unknown));
        assert!(matches!(traffic.next(at(10)), Next::Nothing));
        traffic.note(at(20), at(25), None, HITS);
        traffic.note(at(20), at(25), None, HITS);
        traffic.note(at(30), at(35), None, HITS);
        assert!(matches!(traffic.next(at(10)), Next::Part { cursor, .. } if cursor == at(20)));
        assert!(matches!(traffic.next(at(25)), Next::Part { cursor, .. } if cursor == at(30)));
        traffic.note(at(40), at(45), None, HITS);
        assert!(matches!(traffic.next(at(10)), Next::Unknown));
        assert!(matches!(traffic.next(at(25)), Next::Part { cursor, .. } if cursor == at(30)));
        traffic.overtaken(at(60));
        assert!(matches!(traffic.next(at(45)), Next::Unknown));
        assert!(matches!(traffic.next(at(60)), Next::Nothing));
    }

    #[test]
    fn what_the_only_session_has_behind_it_is_unknown_to_those_before_it() {
        const HITS: usize = 1000;
        let mut traffic = Traffic::new();
        traffic.begin(at(10));
        for n in 2..102 {
            traffic.note(at(n * 10), at(n * 10 + 5), None, HITS);
        }
        traffic.forget_before(at(100));
        assert!(matches!(traffic.next(at(90)), Next::Unknown));
        assert!(matches!(traffic.next(at(95)), Next::Part { cursor, .. } if cursor == at(100)));
        traffic.forget_before(at(5000));
        assert!(matches!(traffic.next(at(5000)), Next::Nothing));
        assert!(traffic.hits.capacity() <= super::HITS_FEW);
    }
}
