//! What the frames of a connection mean: subscriptions and where they are. No I/O, no clock.

mod acknowledging;
mod starting_over;
mod state;

use std::collections::BTreeMap;

use walcast_model::{Cursor, FeedId};
use walcast_protocol::{
    Ack, ClientMessage, DecodeError, ErrorMessage, Heartbeat, Mode, PROTOCOL_VERSION, RelationMessage,
    ServerMessage, Subscribed, SubscriptionId, TransactionMessage, Unsubscribe, Welcome,
};

use crate::cursor_store::StoredCursor;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::subscription::Subscription;
use acknowledging::Acknowledging;
use state::State;

/// What a frame led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// Tell the caller.
    Event(Event),
    /// Tell the caller both, in this order.
    Events(Box<(Event, Event)>),
    /// Tell the caller that a subscription is over for now, and ask for it again after the wait before this attempt.
    Retry { id: SubscriptionId, attempt: u32, error: ErrorMessage },
    /// Send the daemon these, and tell the caller that a subscription starts over because it has other rights.
    StartOver { id: SubscriptionId, messages: Box<[ClientMessage; 2]> },
    /// Send the daemon the token: it serves nobody without.
    Token,
    /// Read on.
    Nothing,
    /// Give the connection up and make another.
    Lost(String),
    /// The client is over.
    Over(Error),
}

/// All subscriptions of a client, over its connections.
#[derive(Debug)]
pub(crate) struct Session {
    subscriptions: BTreeMap<SubscriptionId, State>,
    feed: Option<FeedId>,
    transaction_bytes_max: usize,
}

impl Session {
    pub(crate) const fn new(transaction_bytes_max: usize) -> Self {
        Self { subscriptions: BTreeMap::new(), feed: None, transaction_bytes_max }
    }

    /// What is stored of a subscription whose caller has applied everything before `cursor`. Its feed is that of the last cursor
    /// that the caller got, which is not that of the present connection when the feed has changed and the daemon has not
    /// answered yet.
    pub(crate) fn stored(&self, id: &SubscriptionId, cursor: Cursor) -> Option<StoredCursor> {
        let resume = self.subscriptions.get(id)?.resume.clone()?;
        Some(StoredCursor { cursor, ..resume })
    }

    /// After what the caller was given of each subscription.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&SubscriptionId, Option<&StoredCursor>)> {
        self.subscriptions.iter().map(|(id, state)| (id, state.resume.as_ref()))
    }

    pub(crate) fn contains(&self, id: &SubscriptionId) -> bool {
        self.subscriptions.contains_key(id)
    }

    /// Adds a subscription: the message that asks for it.
    pub(crate) fn add(&mut self, subscription: Subscription, stored: Option<StoredCursor>) -> ClientMessage {
        let id = subscription.id().clone();
        let acknowledges = subscription.request.client_id.is_some();
        let state = State {
            acknowledging: acknowledges.then(|| Acknowledging::new(stored.clone())),
            rights: stored
                .as_ref()
                .map(|stored| stored.rights.clone())
                .or_else(|| subscription.rights.clone()),
            subscription,
            resume: stored,
            anew: false,
            stale: false,
            confirmed: false,
            joined: None,
            joined_bytes: 0,
            resting: false,
            refusals: 0,
        };
        let message = state.first_request();
        self.subscriptions.insert(id, state);
        message
    }

    /// Takes a subscription away, if there was one: the message that ends it, unless the daemon does not have it.
    pub(crate) fn remove(&mut self, id: &SubscriptionId) -> Option<Option<ClientMessage>> {
        let state = self.subscriptions.remove(id)?;
        Some((!state.resting).then(|| Unsubscribe { id: id.clone() }.into()))
    }

    /// A new connection begins: the messages that ask for every subscription that does not rest, from where it was, and
    /// those that cannot go on.
    pub(crate) fn ask_for_all(&mut self) -> (Vec<ClientMessage>, Vec<Event>) {
        let ids: Vec<SubscriptionId> = self.subscriptions.keys().cloned().collect();
        let (mut messages, mut failed) = (Vec::new(), Vec::new());
        for id in ids {
            let Some(state) = self.subscriptions.get_mut(&id) else { continue };
            state.disconnect();
            if !state.resting {
                match self.request(&id) {
                    Ok(message) => messages.extend(message),
                    Err(event) => failed.push(*event),
                }
            }
        }
        (messages, failed)
    }

    /// The rest of a subscription is over: the message that asks for it, or that it cannot go on.
    pub(crate) fn ask_again(&mut self, id: &SubscriptionId) -> Result<Option<ClientMessage>, Box<Event>> {
        if let Some(state) = self.subscriptions.get_mut(id) {
            state.resting = false;
        }
        self.request(id)
    }

    fn request(&mut self, id: &SubscriptionId) -> Result<Option<ClientMessage>, Box<Event>> {
        let Some(state) = self.subscriptions.get(id) else { return Ok(None) };
        match state.request(self.feed.as_ref()) {
            Ok(message) => Ok(Some(message)),
            Err(error) => {
                self.subscriptions.remove(id);
                let error = ErrorMessage { id: Some(id.clone()), ..*error };
                Err(Box::new(Event::Failed { id: id.clone(), error }))
            }
        }
    }

    /// The caller has stored everything of a subscription before `cursor`.
    ///
    /// # Errors
    /// When nothing is kept for it, or the caller was not given that much.
    pub(crate) fn acknowledge(&mut self, id: &SubscriptionId, cursor: Cursor) -> Result<(), Error> {
        let argument = |message| Err(Error::new(ErrorKind::Argument, message));
        let Some(state) = self.subscriptions.get_mut(id) else {
            return argument(format!("the subscription {id} is over, or was never there"));
        };
        let Some(acknowledging) = &mut state.acknowledging else {
            return argument(format!(
                "the subscription {id} has no client_id, so nothing can be kept for it"
            ));
        };
        match &state.resume {
            None => {
                argument(format!("there is no cursor to acknowledge for {id}: it is in its initial sync"))
            }
            Some(given) if given.cursor < cursor => argument(format!(
                "the cursor {cursor} of {id} was not given yet; the last is {}",
                given.cursor
            )),
            Some(given) => {
                acknowledging.acknowledge(given.feed.clone(), cursor);
                Ok(())
            }
        }
    }

    /// The messages that say what the caller has acknowledged since they were taken last; at most one for each
    /// subscription.
    pub(crate) fn take_acks(&mut self) -> Vec<ClientMessage> {
        let confirmed = self.subscriptions.iter_mut().filter(|(_, state)| state.confirmed);
        let told = confirmed.filter_map(|(id, state)| {
            let cursor = state.acknowledging.as_mut()?.tell()?;
            Some(Ack { id: id.clone(), cursor }.into())
        });
        told.collect()
    }

    /// Whether there is something that the daemon is to be told when it has sent that much on this connection.
    pub(crate) fn has_acks(&self) -> bool {
        let confirmed = self.subscriptions.values().filter(|state| state.confirmed);
        let mut all = confirmed.filter_map(|state| state.acknowledging.as_ref());
        all.any(|acknowledging| acknowledging.untold().is_some())
    }

    /// Takes one text frame.
    pub(crate) fn frame(&mut self, text: &str) -> Step {
        match ServerMessage::decode(text) {
            Ok(message) => self.message(message, text.len()),
            // The daemon is newer; what it adds, an older client may ignore.
            Err(error @ DecodeError::UnknownType { .. }) => {
                tracing::debug!(%error, "message ignored");
                Step::Nothing
            }
            Err(error) => {
                let message = "the daemon sent what this client cannot read; update one of them";
                Step::Over(Error::new(ErrorKind::Protocol, message).caused(error))
            }
        }
    }

    fn message(&mut self, message: ServerMessage, bytes: usize) -> Step {
        if self.is_stale(&message) {
            return Step::Nothing;
        }
        match message {
            ServerMessage::Welcome(welcome) => self.welcome(welcome),
            ServerMessage::AuthRequired(_) => Step::Token,
            ServerMessage::Error(error) => self.error(error),
            ServerMessage::Heartbeat(heartbeat) => self.heartbeat(heartbeat),
            ServerMessage::Transaction(part) => self.transaction(part, bytes),
            ServerMessage::Subscribed(subscribed) => self.subscribed(subscribed),
            ServerMessage::SnapshotComplete(done) => {
                let known = self.reached(&done.id, done.cursor);
                self.gave(&done.id, done.cursor);
                event(known, || Event::SnapshotComplete(done))
            }
            ServerMessage::CaughtUp(caught_up) => {
                let known = self.reached(&caught_up.id, caught_up.cursor);
                event(known, || Event::CaughtUp(caught_up))
            }
            ServerMessage::Waiting(waiting) => event(self.contains(&waiting.id), || Event::Waiting(waiting)),
            ServerMessage::Relation(relation) => self.relation(relation),
            ServerMessage::Snapshot(rows) => event(self.contains(&rows.id), || Event::Snapshot(rows)),
            ServerMessage::Acked(acked) => event(self.contains(&acked.id), || Event::Acked(acked)),
            ServerMessage::Clients(list) => Step::Event(Event::Clients(list)),
            ServerMessage::Status(status) => Step::Event(Event::Status(status)),
            ServerMessage::Joined(joined) => Step::Event(Event::Joined(joined)),
            ServerMessage::Dropped(dropped) => Step::Event(Event::Dropped(dropped)),
            ServerMessage::Message(message) => Step::Event(Event::Message(message)),
            ServerMessage::Presence(presence) => Step::Event(Event::Presence(presence)),
            other => {
                tracing::debug!(kind = other.type_name(), "message ignored");
                Step::Nothing
            }
        }
    }

    fn welcome(&mut self, welcome: Welcome) -> Step {
        if welcome.protocol != PROTOCOL_VERSION {
            let message = format!(
                "the daemon ({}) speaks version {} of the protocol, this client {PROTOCOL_VERSION}; update one of them",
                welcome.server, welcome.protocol
            );
            return Step::Over(Error::new(ErrorKind::Protocol, message));
        }
        self.feed = Some(welcome.feed.clone());
        Step::Event(Event::Connected(welcome))
    }

    fn subscribed(&mut self, subscribed: Subscribed) -> Step {
        let feed = self.feed.clone();
        let Some(state) = self.subscriptions.get_mut(&subscribed.id) else { return Step::Nothing };
        state.stale = false;
        if state.has_other_rights(&subscribed) {
            return state.start_over();
        }
        state.rights = Some(subscribed.rights.clone());
        state.anew = subscribed.mode == Mode::Snapshot;
        state.confirmed = true;
        state.joined = None;
        state.joined_bytes = 0;
        let begun = match (subscribed.mode, feed) {
            (Mode::Snapshot, _) | (_, None) => None,
            (_, Some(feed)) => Some(state.at(feed, subscribed.cursor)),
        };
        match (&mut state.acknowledging, begun) {
            (None, begun) => state.resume = begun,
            (Some(acknowledging), None) => {
                acknowledging.begun_anew();
                state.resume = None;
            }
            (Some(acknowledging), Some(begun)) => {
                acknowledging.begun(begun.feed.clone(), begun.cursor, state.resume.as_ref());
                // The caller may have more than it has acknowledged, which comes again.
                let has_more = |had: &StoredCursor| had.feed == begun.feed && had.cursor > begun.cursor;
                if !state.resume.as_ref().is_some_and(has_more) {
                    state.resume = Some(begun);
                }
            }
        }
        Step::Event(Event::Subscribed(subscribed))
    }

    /// Notes that the caller gets everything of `id` before `cursor`. Whether there is such a subscription.
    fn reached(&mut self, id: &SubscriptionId, cursor: Cursor) -> bool {
        let feed = self.feed.clone();
        let Some(state) = self.subscriptions.get_mut(id) else { return false };
        state.refusals = 0;
        let had = state.resume.take();
        state.resume = feed.map(|feed| state.at(feed, cursor));
        state.anew = false;
        if let Some(acknowledging) = &mut state.acknowledging {
            acknowledging.sent(cursor);
            // What comes again does not take the caller back.
            if had.is_some() && acknowledging.had(cursor) {
                state.resume = had;
            }
        }
        true
    }

    /// Notes that the caller gets changes or rows of `id` that end at `cursor`.
    fn gave(&mut self, id: &SubscriptionId, cursor: Cursor) {
        if let Some(acknowledging) =
            self.subscriptions.get_mut(id).and_then(|state| state.acknowledging.as_mut())
        {
            acknowledging.given(cursor);
        }
    }

    /// A definition that changes inside a transaction: what came before it belongs to the old one.
    fn relation(&mut self, relation: RelationMessage) -> Step {
        let Some(state) = self.subscriptions.get_mut(&relation.id) else { return Step::Nothing };
        // The first definition of a table divides nothing.
        let changes_it = |joined: &mut TransactionMessage| {
            joined.changes.iter().any(|change| change.table == relation.table)
        };
        let Some(joined) = state.joined.take_if(changes_it) else {
            return Step::Event(Event::Relation(relation));
        };
        state.joined_bytes = 0;
        Step::Events(Box::new((self.given(joined), Event::Relation(relation))))
    }

    fn transaction(&mut self, mut part: TransactionMessage, bytes: usize) -> Step {
        let Some(state) = self.subscriptions.get_mut(&part.id) else { return Step::Nothing };
        // What is compacted has a cursor at its end alone, and may be given twice.
        if let (Some(acknowledging), Some(cursor)) = (&mut state.acknowledging, part.cursor)
            && !part.compacted
            && acknowledging.had(cursor)
        {
            acknowledging.sent(cursor);
            return Step::Nothing;
        }
        // What is said about the changes holds for all of them.
        let says = |one: &TransactionMessage| one.meta.as_ref().map(|meta| meta.get().to_owned());
        let before = state.joined.take_if(|joined| !part.changes.is_empty() && says(joined) != says(&part));
        if before.is_some() {
            state.joined_bytes = 0;
        }
        if let Some(mut joined) = state.joined.take() {
            joined.changes.append(&mut part.changes);
            joined.cursor = part.cursor;
            joined.more = part.more;
            part = joined;
        }
        state.joined_bytes += bytes;
        if part.more && state.joined_bytes < self.transaction_bytes_max {
            state.joined = Some(part);
            return before.map_or(Step::Nothing, |before| Step::Event(self.given(before)));
        }
        state.joined_bytes = 0;
        match before {
            None => Step::Event(self.given(part)),
            Some(before) => Step::Events(Box::new((self.given(before), self.given(part)))),
        }
    }

    /// The event of a transaction, or of a piece of one.
    fn given(&mut self, transaction: TransactionMessage) -> Event {
        if let Some(cursor) = transaction.cursor {
            self.reached(&transaction.id, cursor);
            self.gave(&transaction.id, cursor);
        }
        Event::Transaction(transaction)
    }

    fn heartbeat(&mut self, mut heartbeat: Heartbeat) -> Step {
        if let Some(cursor) = heartbeat.cursor {
            let confirmed = self.subscriptions.values_mut().filter(|state| state.confirmed);
            confirmed.filter_map(|state| state.acknowledging.as_mut()).for_each(|all| all.sent(cursor));
        }
        // Not for one that the daemon may not know yet, that is in its initial sync, or of which a part has arrived that
        // the caller does not have.
        let covers = |state: &State| state.confirmed && state.resume.is_some() && state.joined.is_none();
        if !self.subscriptions.values().all(covers) {
            heartbeat.cursor = None;
        }
        if let Some(cursor) = heartbeat.cursor {
            for resume in self.subscriptions.values_mut().filter_map(|state| state.resume.as_mut()) {
                resume.cursor = resume.cursor.max(cursor);
            }
        }
        Step::Event(Event::Heartbeat(heartbeat))
    }

    /// With an id, that subscription is over and the others go on; without, it is about a message, or fatal.
    fn error(&mut self, error: ErrorMessage) -> Step {
        let known = error.id.clone().filter(|id| self.contains(id));
        if error.fatal && error.code.is_retryable() {
            // The hint may hold the statement that mends it.
            let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            return Step::Lost(format!("{}: {}{hint}", error.code, error.message));
        }
        if error.fatal {
            let unauthorized = error.code == walcast_protocol::ErrorCode::Unauthorized;
            let kind = if unauthorized { ErrorKind::Unauthorized } else { ErrorKind::Refused };
            return Step::Over(Error::answered(kind, "this client", error));
        }
        match known {
            Some(id) if error.code.is_retryable() => {
                let Some(state) = self.subscriptions.get_mut(&id) else { return Step::Nothing };
                state.disconnect();
                state.resting = true;
                state.refusals = state.refusals.saturating_add(1);
                Step::Retry { id, attempt: state.refusals, error }
            }
            Some(id) => {
                self.subscriptions.remove(&id);
                Step::Event(Event::Failed { id, error })
            }
            None => Step::Event(Event::Error(error)),
        }
    }
}

/// An event of a subscription that is there; what was on its way when it was ended is ignored.
fn event(known: bool, event: impl FnOnce() -> Event) -> Step {
    if known { Step::Event(event()) } else { Step::Nothing }
}
