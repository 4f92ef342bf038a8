//! One subscription of a client: where it is, and what asks for it.

use walcast_model::FeedId;
use walcast_protocol::{ClientMessage, ErrorMessage, StartAt, TransactionMessage};

use super::acknowledging::{Acknowledging, Begin};
use crate::cursor_store::StoredCursor;
use crate::subscription::{Rights, Subscription};

/// A subscription and where it is.
#[derive(Debug)]
pub(super) struct State {
    pub(super) subscription: Subscription,
    /// After the last event that the caller got; `None` while there is no cursor to go on from.
    pub(super) resume: Option<StoredCursor>,
    /// Under which rights the caller has what it has; `None` while nobody knows.
    pub(super) rights: Option<Rights>,
    /// The caller has discarded what it had: it can only begin with an initial sync.
    pub(super) anew: bool,
    /// What comes of it is still that of before it was started over.
    pub(super) stale: bool,
    /// The daemon has answered on the present connection: what it says of all subscriptions holds for this one.
    pub(super) confirmed: bool,
    /// Parts of a transaction that the caller has not got yet, joined.
    pub(super) joined: Option<TransactionMessage>,
    pub(super) joined_bytes: usize,
    /// It was refused for a reason that passes, and is not asked for until [`Session::ask_again`].
    pub(super) resting: bool,
    /// How often that was, since it got on last.
    pub(super) refusals: u32,
    /// Of one with a `client_id`.
    pub(super) acknowledging: Option<Acknowledging>,
}

impl State {
    /// What the daemon had of it, it has no more.
    pub(super) fn disconnect(&mut self) {
        self.confirmed = false;
        self.stale = false;
        self.joined = None;
        self.joined_bytes = 0;
        if let Some(acknowledging) = &mut self.acknowledging {
            acknowledging.disconnect();
        }
    }

    /// Of one that has not begun.
    pub(super) fn first_request(&self) -> ClientMessage {
        self.request_from(self.resume.as_ref())
    }

    /// What asks for it on a connection to `feed`.
    pub(super) fn request(&self, feed: Option<&FeedId>) -> Result<ClientMessage, Box<ErrorMessage>> {
        let begin = self.acknowledging.as_ref().map(|acknowledging| acknowledging.begin(feed)).transpose()?;
        Ok(match begin {
            None | Some(Begin::Given) => self.request_from(self.resume.as_ref()),
            Some(Begin::At(stored)) => self.request_from(Some(&stored)),
            Some(Begin::Anew) => {
                let mut request = self.subscription.request.clone();
                request.cursor = StartAt::Snapshot;
                request.into()
            }
        })
    }

    fn request_from(&self, start: Option<&StoredCursor>) -> ClientMessage {
        let mut request = self.subscription.request.clone();
        if let Some(StoredCursor { feed, cursor, .. }) = start {
            request.cursor = StartAt::from(*cursor);
            request.feed = Some(feed.clone());
        } else if self.anew {
            request.cursor = StartAt::Snapshot;
        }
        request.into()
    }
}
