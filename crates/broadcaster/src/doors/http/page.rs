//! One page of transactions, and waiting for its first one.
//!
//! ```text
//!  subscribed ──► transactions … ──► caught up ──► the first transaction, or the time is over
//!                    │ full             │ there are some       │
//!                    ▼ more             ▼ answer               ▼ answer
//! ```

use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::{Instant, sleep_until};
use walcast_model::Cursor;
use walcast_protocol::ErrorMessage;

use super::answer::{self, Refused};
use super::body;
use super::lone::{Lone, Output};
use super::query::Form;
use super::visit::{Visit, reached};
use crate::doors::Door;
use crate::doors::entrance::changed;
use crate::encode::{Piece, Says};
use crate::metrics::{self as names, InGauge};
use crate::refusal::Refusal;
use crate::subscription::Subscription;

/// What a page has so far.
#[derive(Debug)]
struct Page {
    /// Where it begins; `None` while that is not known.
    start: Option<Cursor>,
    /// Everything that it has, as JSON objects between commas.
    taken: Taken,
    transactions: Vec<u8>,
    relations: Vec<u8>,
    /// What was so after the last whole transaction.
    whole: Taken,
    /// Everything that was committed before it was asked for is in it, or before it.
    is_caught_up: bool,
    transactions_max: usize,
    bytes_max: usize,
}

/// How much of a page there is.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Whole transactions.
    count: usize,
    /// Bytes of `transactions`, and of `relations`.
    bytes: (usize, usize),
    /// The cursor after it.
    cursor: Cursor,
}

/// Why nothing more is taken now.
#[derive(Debug)]
enum Pause {
    /// There is nothing more now.
    Quiet,
    /// There is no room.
    Full,
    /// It is over.
    Over(Option<Box<ErrorMessage>>),
}

impl Page {
    const fn new(transactions_max: usize, bytes_max: usize) -> Self {
        const NOTHING: Taken = Taken { count: 0, bytes: (0, 0), cursor: Cursor::ZERO };
        Self {
            start: None,
            taken: NOTHING,
            transactions: Vec::new(),
            relations: Vec::new(),
            whole: NOTHING,
            is_caught_up: false,
            transactions_max,
            bytes_max,
        }
    }

    fn take_from(&mut self, subscription: &mut Lone) -> Pause {
        loop {
            if self.taken.count >= self.transactions_max || self.transactions.len() >= self.bytes_max {
                return Pause::Full;
            }
            let frame = match subscription.next() {
                Output::Frame(frame) => frame,
                Output::Nothing => return Pause::Quiet,
                Output::Over => return Pause::Over(None),
            };
            match frame.says {
                Says::Subscribed(cursor) => {
                    self.start = Some(cursor);
                    (self.taken.cursor, self.whole.cursor) = (cursor, cursor);
                }
                Says::Relation => append(&mut self.relations, &frame.tail),
                Says::Transaction(piece) => self.transaction(&frame.tail, piece),
                Says::CaughtUp(cursor) => {
                    self.is_caught_up = true;
                    self.taken.cursor = self.taken.cursor.max(cursor);
                    self.whole.cursor = self.whole.cursor.max(cursor);
                }
                Says::Error(error) => return Pause::Over(Some(error)),
                Says::SnapshotComplete(_) | Says::Heartbeat(_) | Says::Other(_) => {}
            }
        }
    }

    fn transaction(&mut self, tail: &[u8], piece: Piece) {
        append(&mut self.transactions, tail);
        let count = self.taken.count + usize::from(!piece.more);
        let cursor = piece.cursor.unwrap_or(self.taken.cursor);
        self.taken = Taken { count, bytes: (self.transactions.len(), self.relations.len()), cursor };
        if !piece.more {
            self.whole = self.taken;
        }
    }

    const fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// Whether it ends inside a transaction.
    const fn is_open(&self) -> bool {
        self.taken.bytes.0 > self.whole.bytes.0
    }

    /// Forgets what it has; it is asked for again.
    fn clear(&mut self) {
        let cursor = self.start.unwrap_or_default();
        self.whole = Taken { cursor, ..Taken::default() };
        self.back_to_whole();
    }

    fn back_to_whole(&mut self) {
        self.taken = self.whole;
        self.transactions.truncate(self.whole.bytes.0);
        self.relations.truncate(self.whole.bytes.1);
    }

    /// The answer. `position`: everything before it was given to the page.
    fn finish(mut self, feed: &str, is_all: bool, position: Option<Cursor>) -> Vec<u8> {
        let more = !is_all || self.is_open();
        // What does not come whole comes alone.
        if self.is_open() && self.whole.count > 0 {
            self.back_to_whole();
        } else if let Some(position) = position.filter(|_| !self.is_open()) {
            self.taken.cursor = self.taken.cursor.max(position);
        }
        let mut body = Vec::with_capacity(self.transactions.len() + self.relations.len() + 160);
        let head = format!(
            "{{\"feed\":\"{feed}\",\"cursor\":\"{}\",\"more\":{more},\"relations\":[",
            self.taken.cursor
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&self.relations);
        body.extend_from_slice(b"],\"transactions\":[");
        body.extend_from_slice(&self.transactions);
        body.extend_from_slice(b"]}");
        body
    }
}

/// Appends a message without what names it: `tail` begins with a comma.
fn append(out: &mut Vec<u8>, tail: &[u8]) {
    if !out.is_empty() {
        out.push(b',');
    }
    out.push(b'{');
    out.extend_from_slice(tail.get(1..).unwrap_or_default());
}

/// Answers with a page of what the subscription gives.
pub(super) async fn serve(
    door: &Door,
    mut visit: Visit,
    subscription: Subscription,
    (transactions_max, wait): (usize, Duration),
    headers: &HeaderMap,
) -> Result<Response, Refused> {
    let form = Form::Page { transactions_max, wait };
    let _counted = InGauge::enter(names::POLLS);
    let mut subscription = Lone::from(subscription);
    let (broadcaster, authority) = (&door.broadcaster, &door.entrance.authority);
    let limits = broadcaster.limits();
    let feed = broadcaster.feed_id().to_string();
    let now = Instant::now();
    let (wait_until, answer_until) = (now + wait, now + limits.poll_answer_max);
    let ends_at = visit.ends_at();
    let mut page = Page::new(transactions_max, limits.poll_bytes_max);
    let mut is_all = loop {
        match page.take_from(&mut subscription) {
            Pause::Full => break false,
            Pause::Quiet if page.is_caught_up && !page.is_empty() && !page.is_open() => break true,
            Pause::Quiet => {}
            // The next request is told why.
            Pause::Over(_) if page.whole.count > 0 => break false,
            Pause::Over(Some(error)) => return Err(answer::over(&error, form)),
            Pause::Over(None) => return Err(answer::refusal(Refusal::bad("the subscription is over"))),
        }
        let until = match (page.is_caught_up, page.is_empty()) {
            (true, true) => wait_until,
            // The rest of a transaction, or the barrier: soon, or without it.
            (true, false) | (false, false) => answer_until,
            (false, true) => answer_until.max(wait_until),
        };
        tokio::select! {
            // All are cancel-safe.
            () = subscription.ready() => {}
            () = sleep_until(until) => break page.is_caught_up,
            () = reached(ends_at) => match visit.expired() {
                Some(farewell) => return Err(answer::farewell(farewell)),
                // By its clock it is good for a while longer, and this is not a long one.
                None => break false,
            },
            () = changed(visit.policies.as_mut()) => if !visit.is_granted_the_same(authority) {
                break false;
            },
            () = door.shutdown.cancelled() => break false,
        }
    };
    let mut position = subscription.session().position();
    drop(subscription);
    // Whatever ended it, policies may have changed before its last transaction. What was found is not given out then: the
    // next request is judged by what it may have.
    if !visit.is_granted_the_same(authority) {
        page.clear();
        (is_all, position) = (false, None);
    }
    if page.start.is_none() {
        let limit = limits.poll_answer_max.max(wait);
        let late = match door.shutdown.is_cancelled() {
            true => "the daemon is going down".to_owned(),
            false => format!(
                "what is asked for has not come, and is waited for {limit:?} (poll_answer_max, or wait)"
            ),
        };
        return Err(answer::refusal(broadcaster.hindrance(&late).told(visit.pass.rights().is_everything())));
    }
    body::json(page.finish(&feed, is_all, position), headers, visit).await
}
