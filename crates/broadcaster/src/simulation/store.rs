//! History's store: what `change_history` and the feed's record would hold, commits whose outcome nobody knows, and the
//! appender's rules at the level of positions.
//!
//! The appender of `walcast-history` is a driver of SQL; what it decides is modelled here: from where it writes, when
//! it may acknowledge, what it makes of a position that it finds.

use std::collections::BTreeSet;
use std::sync::Arc;

use walcast_feed::{Feed, Read};
use walcast_history::Page;
use walcast_model::{Cursor, Lsn, Part, Seq, Snapshot};

use super::source::{Logged, Source};
use crate::testing::slice;

/// One commit: the changes from `from` to `to`, if the position still is `from` and its writer has the claim.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    writer: u64,
    from: Cursor,
    to: Cursor,
    parts: Vec<Arc<Part>>,
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) position: Cursor,
    /// Who has claimed the feed.
    writer: u64,
    pub(super) oldest: Cursor,
    parts: Vec<Part>,
    /// Changes that were ever stored.
    stored: usize,
    /// Transactions of which changes were dropped.
    dropped: BTreeSet<u64>,
    /// Commits that lost their client and may still happen.
    floating: Vec<Commit>,
    pub(super) is_away: bool,
}

/// A store's changes must be the log, each exactly once.
fn check_next(logged: Option<&Logged>, at: Cursor, part: &Part, index: usize) -> Result<(), String> {
    let change = part.changes().get(index).ok_or("a part lost a change")?;
    let expected = logged.ok_or_else(|| format!("history stores a change at {at} that was never made"))?;
    let oid = change.relation.oid().get();
    if expected.at != at || expected.write.table.oid != oid || expected.xid != part.transaction().xid.get() {
        return Err(format!("history stores a change of {oid} at {at} instead of {expected:?}"));
    }
    Ok(())
}

impl Store {
    pub(super) const fn new(position: Cursor) -> Self {
        Self {
            position,
            writer: 0,
            oldest: position,
            parts: Vec::new(),
            stored: 0,
            dropped: BTreeSet::new(),
            floating: Vec::new(),
            is_away: false,
        }
    }

    /// Whether the commit happens.
    fn apply(&mut self, commit: &Commit, source: &Source) -> Result<bool, String> {
        if commit.from != self.position || commit.writer != self.writer {
            return Ok(false);
        }
        for part in &commit.parts {
            let Some(part) = slice(part, commit.from, usize::MAX) else { continue };
            for index in 0..part.changes().len() {
                let at = Cursor::new(part.transaction().start.lsn(), part.first().plus(index));
                check_next(source.log().get(self.stored), at, &part, index)?;
                self.stored += 1;
            }
            self.parts.push(part);
        }
        self.position = commit.to;
        match source.log().get(self.stored) {
            Some(next) if next.at < commit.to => {
                Err(format!("history is at {} without the change at {}", commit.to, next.at))
            }
            _ => Ok(true),
        }
    }

    pub(super) fn land(&mut self, a: u32, source: &Source) -> Result<bool, String> {
        if self.floating.is_empty() {
            return Ok(false);
        }
        let commit = self.floating.remove(a as usize % self.floating.len());
        self.apply(&commit, source)?;
        Ok(true)
    }

    pub(super) fn float(&mut self, commit: Commit) {
        self.floating.push(commit);
    }

    /// What retention does: whole transactions go, the newest stays.
    pub(super) fn drop_oldest(&mut self, a: u32) -> bool {
        let ends: Vec<Cursor> = self.parts.iter().filter_map(|part| part.end().map(Cursor::after)).collect();
        let Some((_, droppable)) = ends.split_last() else { return false };
        if droppable.is_empty() {
            return false;
        }
        self.oldest = droppable[a as usize % droppable.len()];
        let (oldest, dropped) = (self.oldest, &mut self.dropped);
        self.parts.retain(|part| {
            let stays = part.cursor() >= oldest;
            if !stays {
                dropped.insert(part.transaction().xid.get());
            }
            stays
        });
        true
    }

    /// A page of at most this many changes; `None` when history no longer reaches back.
    pub(super) fn page(&self, from: Cursor, to: Cursor, changes_max: usize) -> Option<Page> {
        if from < self.oldest {
            return None;
        }
        let mut left = changes_max;
        let mut parts = Vec::new();
        for part in &self.parts {
            if part.next_cursor() <= from || part.cursor() >= to {
                continue;
            }
            let Some(part) = slice(part, from, left) else { continue };
            left -= part.changes().len();
            let next = part.next_cursor();
            parts.push(part);
            if left == 0 {
                return Some(Page { parts, next });
            }
        }
        Some(Page { parts, next: to })
    }

    /// The outer `None` when one that the snapshot does not see is gone.
    pub(super) fn first_invisible(&self, snapshot: &Snapshot, before: Cursor) -> Option<Option<Cursor>> {
        if self.dropped.iter().any(|xid| !snapshot.sees(walcast_model::Xid::new(*xid))) {
            return None;
        }
        let unseen = self.parts.iter().filter(|part| !snapshot.sees(part.transaction().xid));
        let first = unseen.map(|part| Cursor::from(part.transaction().start.lsn()));
        Some(first.into_iter().find(|cursor| *cursor < before))
    }
}

/// Where the appender's work is.
#[derive(Debug)]
enum State {
    /// It has no connection.
    Apart,
    Idle,
    Committing(Commit),
}

/// A commit of the one before came late: the record has to be read again.
#[derive(Debug)]
pub(super) struct MovedOn;

#[derive(Debug)]
pub(super) struct Appender {
    state: State,
    writer: u64,
    /// Who had the claim when the record was read; `None` once this one has it.
    found: Option<u64>,
    persisted: Cursor,
    position: Cursor,
    pub(super) acknowledged: u64,
}

impl Appender {
    pub(super) const fn new(store: &Store, writer: u64) -> Self {
        let position = store.position;
        let found = Some(store.writer);
        Self { state: State::Apart, writer, found, persisted: position, position, acknowledged: 0 }
    }

    /// The commit that its end leaves behind.
    pub(super) fn into_commit(self) -> Option<Commit> {
        match self.state {
            State::Committing(commit) => Some(commit),
            State::Apart | State::Idle => None,
        }
    }

    /// Connects, or begins a commit. To be called once the daemon has the slot.
    pub(super) fn step(
        &mut self,
        store: &mut Store,
        feed: &Feed,
        a: u32,
        bytes: usize,
    ) -> Result<bool, MovedOn> {
        if store.is_away {
            self.lose();
            return Ok(false);
        }
        match &self.state {
            State::Apart => {
                if let Some(found) = self.found {
                    if store.position != self.persisted || store.writer != found {
                        return Err(MovedOn);
                    }
                    store.writer = self.writer;
                    self.found = None;
                }
                assert_eq!(store.writer, self.writer, "nobody else claims the feed");
                assert!(store.position >= self.persisted, "history went back");
                if store.position > self.persisted {
                    self.stored(store.position, feed);
                }
                self.acknowledge();
                self.state = State::Idle;
                Ok(true)
            }
            State::Idle => match feed.read(self.position, bytes) {
                Read::Parts { parts, next } => {
                    self.begin(parts, next);
                    Ok(true)
                }
                Read::AtHead { head } => {
                    let moved = self.position < head;
                    self.pass(head, feed);
                    let persists = self.persisted < self.position && a.is_multiple_of(2);
                    if persists {
                        self.begin(Vec::new(), self.position);
                    }
                    Ok(moved || persists)
                }
                Read::Behind { .. } => panic!("the feed lost what history does not have"),
            },
            State::Committing(_) => Ok(false),
        }
    }

    fn begin(&mut self, parts: Vec<Arc<Part>>, to: Cursor) {
        self.state = State::Committing(Commit { writer: self.writer, from: self.persisted, to, parts });
    }

    /// Its connection is lost: the outcome of a commit is not known, and it does not happen.
    fn lose(&mut self) {
        self.state = State::Apart;
    }

    /// A commit ends: well, or with a lost connection before it, after it, or on its way.
    pub(super) fn settle(
        &mut self,
        store: &mut Store,
        source: &Source,
        feed: &Feed,
        a: u32,
    ) -> Result<bool, String> {
        if !matches!(self.state, State::Committing(_)) {
            return Ok(false);
        }
        let State::Committing(commit) = std::mem::replace(&mut self.state, State::Apart) else {
            return Ok(false);
        };
        match a % 8 {
            0 => {}
            1 => store.float(commit),
            2 => drop(store.apply(&commit, source)?),
            _ => {
                // Refused when the position is another: settled on the next connection.
                if store.apply(&commit, source)? {
                    self.stored(commit.to, feed);
                    self.acknowledge();
                    self.state = State::Idle;
                }
            }
        }
        Ok(true)
    }

    fn stored(&mut self, to: Cursor, feed: &Feed) {
        self.persisted = to;
        self.pass(to, feed);
    }

    fn pass(&mut self, to: Cursor, feed: &Feed) {
        self.position = self.position.max(to);
        feed.mark_stored(self.position);
    }

    fn acknowledge(&mut self) {
        if self.persisted.seq() == Seq::FIRST {
            self.acknowledged = self.acknowledged.max(self.persisted.lsn().get());
        }
    }
}

/// A position between transactions.
pub(super) fn at(position: u64) -> Cursor {
    Lsn::new(position).into()
}
