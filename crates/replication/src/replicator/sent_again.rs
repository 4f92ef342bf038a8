//! The proof that a server which was started again is what it was: it sends the transactions again that it sent before.
//!
//! A slot remembers up to where it was acknowledged, and everything before that is older than the files of a server that
//! has the slot. What it sends from there on is compared with what history has of it. Equal transactions at equal
//! positions, with equal ids and times, are the same; so when all are equal, nothing in the feed was taken back, and
//! nothing that the feed lacks was written in its place.

use std::collections::VecDeque;

use walcast_model::{Lsn, Transaction};

use crate::error::Error;

/// How many of the last transactions are compared.
pub(super) const COMPARED_MAX: u32 = 10_000;

/// What is still to be sent again.
#[derive(Debug)]
pub(super) struct SentAgain {
    expected: VecDeque<Transaction>,
    from: Lsn,
    to: Lsn,
}

impl SentAgain {
    /// `stored` are all transactions with changes from `from` up to `to`, in order.
    pub(super) fn new(stored: Vec<Transaction>, from: Lsn, to: Lsn) -> Self {
        Self { expected: stored.into(), from, to }
    }

    /// A transaction with changes was sent.
    ///
    /// # Errors
    /// When it is not the one that was sent before.
    pub(super) fn next(&mut self, sent: &Transaction) -> Result<(), Error> {
        let start = sent.start.lsn();
        if start < self.from || start >= self.to {
            return Ok(());
        }
        match self.expected.pop_front() {
            Some(stored) if stored == *sent => Ok(()),
            stored => Err(self.differs(stored.map_or(start, |stored| stored.start.lsn().min(start)))),
        }
    }

    /// Everything before `reached` was sent. Whether that is all that there is to compare.
    ///
    /// # Errors
    /// When a transaction was not sent again.
    pub(super) fn reached(&self, reached: Lsn) -> Result<bool, Error> {
        match self.expected.front() {
            Some(stored) if reached >= self.to => Err(self.differs(stored.start.lsn())),
            _ => Ok(reached >= self.to),
        }
    }

    fn differs(&self, at: Lsn) -> Error {
        Error::SentDiffers { at, position: self.to.into() }
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{CommitStart, Lsn, Timestamp, Transaction, Xid};

    use super::SentAgain;

    fn transaction(start: u64, xid: u64) -> Transaction {
        Transaction {
            start: CommitStart::new(Lsn::new(start)),
            xid: Xid::new(xid),
            committed_at: Timestamp::default(),
        }
    }

    fn compare(sent: &[(u64, u64)]) -> bool {
        let stored = vec![transaction(20, 2), transaction(30, 3)];
        let mut again = SentAgain::new(stored, Lsn::new(15), Lsn::new(40));
        let same = sent.iter().all(|(start, xid)| again.next(&transaction(*start, *xid)).is_ok());
        assert!(again.reached(Lsn::new(39)).is_ok_and(|done| !done));
        same && again.reached(Lsn::new(40)).is_ok_and(|done| done)
    }

    #[test]
    fn only_the_same_transactions_are_the_same() {
        assert!(compare(&[(20, 2), (30, 3)]));
        assert!(compare(&[(10, 1), (20, 2), (30, 3), (40, 4)]), "outside of what is compared");
        assert!(!compare(&[(20, 2)]), "one is gone");
        assert!(!compare(&[(30, 3)]), "the first is gone");
        assert!(!compare(&[(20, 2), (25, 9), (30, 3)]), "there is one more");
        assert!(!compare(&[(20, 2), (30, 9)]), "another one is in its place");
        assert!(!compare(&[]));
    }
}
