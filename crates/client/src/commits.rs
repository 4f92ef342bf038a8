//! Who waits until a subscription has come to a commit. No I/O, no clock.

use std::collections::BTreeMap;

use tokio::sync::oneshot;
use walcast_model::{Cursor, FeedId, Lsn};
use walcast_protocol::SubscriptionId;

use crate::cursor_store::StoredCursor;
use crate::error::{Error, ErrorKind};

/// Bytes of a WAL page (`XLOG_BLCKSZ`), and of the header of every page but the first of a file. Postgres's
/// `src/include/access/xlog_internal.h`, `SizeOfXLogShortPHD`.
const PAGE_BYTES: u64 = 8192;
const PAGE_HEADER_BYTES: u64 = 24;

/// A commit whose end is asked for while the WAL ends with a page: the insert position is after the header of a page that
/// nobody has written yet, and a feed at rest never gets there. No record ends inside a header.
fn without_page_header(lsn: Lsn) -> Lsn {
    if lsn.get() % PAGE_BYTES <= PAGE_HEADER_BYTES {
        Lsn::new(lsn.get() - lsn.get() % PAGE_BYTES)
    } else {
        lsn
    }
}

type Answer = oneshot::Sender<Result<(), Error>>;

/// How far the caller has come with one subscription, and who waits for more.
#[derive(Default)]
struct Place {
    /// Everything before it was handled; `None` until it has begun, and in an initial sync.
    cursor: Option<Cursor>,
    /// What the positions are compared in: the feed of the last cursor.
    feed: Option<FeedId>,
    /// By what they wait for, and their numbers.
    waiters: BTreeMap<(Lsn, u64), Answer>,
}

/// How far the caller has come, and all who wait for that.
#[derive(Default)]
pub(crate) struct Commits {
    places: BTreeMap<SubscriptionId, Place>,
}

impl Commits {
    /// There is a subscription.
    pub(crate) fn begin(&mut self, id: SubscriptionId) {
        self.places.insert(id, Place::default());
    }

    /// There is no such subscription any more.
    pub(crate) fn forget(&mut self, id: &SubscriptionId) {
        if let Some(mut place) = self.places.remove(id) {
            place.end(&over(id));
        }
    }

    /// Adds a waiter under a number that no other one has: what it is cancelled by.
    pub(crate) fn add(&mut self, number: u64, id: &SubscriptionId, lsn: Lsn, answer: Answer) -> (Lsn, u64) {
        let lsn = without_page_header(lsn);
        match self.places.get_mut(id) {
            None => drop(answer.send(Err(over(id)))),
            Some(Place { cursor: Some(cursor), .. }) if *cursor >= Cursor::from(lsn) => {
                let _ = answer.send(Ok(()));
            }
            Some(place) => drop(place.waiters.insert((lsn, number), answer)),
        }
        (lsn, number)
    }

    pub(crate) fn cancel(&mut self, id: &SubscriptionId, waiter: (Lsn, u64)) {
        if let Some(place) = self.places.get_mut(id) {
            place.waiters.remove(&waiter);
        }
    }

    /// The caller has handled everything of these subscriptions, which are all that there are, up to these cursors.
    pub(crate) fn handled<'a>(
        &mut self,
        places: impl Iterator<Item = (&'a SubscriptionId, Option<&'a StoredCursor>)>,
    ) {
        let mut places = places.peekable();
        // Both are in order.
        self.places.retain(|id, place| {
            while places.next_if(|(other, _)| *other < id).is_some() {}
            let is_there = places.next_if(|(other, _)| *other == id);
            match is_there {
                Some((_, stored)) => place.move_to(stored),
                None => place.end(&over(id)),
            }
            is_there.is_some()
        });
    }

    pub(crate) fn end(&mut self, error: &Error) {
        for place in self.places.values_mut() {
            place.end(error);
        }
    }
}

fn over(id: &SubscriptionId) -> Error {
    Error::new(ErrorKind::Ended, format!("the subscription {id} is over, or was never there"))
}

impl Place {
    fn move_to(&mut self, stored: Option<&StoredCursor>) {
        self.cursor = stored.map(|stored| stored.cursor);
        let Some(StoredCursor { feed, cursor, .. }) = stored else { return };
        if self.feed.as_ref() != Some(feed) && self.feed.replace(feed.clone()).is_some() {
            let message = format!(
                "the feed is {feed} by now, in which positions may mean something else; look whether the commit is there"
            );
            self.end(&Error::new(ErrorKind::FeedChanged, message));
        }
        while let Some(waiter) = self.waiters.first_entry()
            && Cursor::from(waiter.key().0) <= *cursor
        {
            // Who does not listen has cancelled.
            let _ = waiter.remove().send(Ok(()));
        }
    }

    fn end(&mut self, error: &Error) {
        for answer in std::mem::take(&mut self.waiters).into_values() {
            let _ = answer.send(Err(error.repeat()));
        }
    }
}
