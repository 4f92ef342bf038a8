//! Channels: what clients say to one another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use walcast_protocol::{
    ClientMessage, ErrorMessage, JoinChannel, Joined, LeaveChannel, Member, Presence, PublishMessage,
    SetPresence,
};

use crate::error::{Error, ErrorKind};

/// Messages that wait for [`Client::next`](crate::Client::next) to send them.
const WAITING_MAX: usize = 1000;

/// What a client wants of channels and knows of them, shared with its [`Channel`]s.
#[derive(Default)]
pub(crate) struct Channels {
    // Held for a look or a change.
    book: Mutex<Book>,
    client: AtomicWaker,
}

#[derive(Default)]
struct Book {
    wanted: BTreeMap<String, Wanted>,
    waiting: Vec<ClientMessage>,
    is_connected: bool,
}

#[derive(Default)]
struct Wanted {
    state: Option<Box<RawValue>>,
    client_id: Option<String>,
    /// What the daemon calls this connection in it, once it is in.
    member: Option<String>,
    members: BTreeMap<String, Member>,
}

impl Channels {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the client when there is something to send.
    pub(crate) fn register(&self, waker: &Waker) {
        self.client.register(waker);
    }

    /// A connection is there: the messages that join everything again.
    pub(crate) fn connected(&self) -> Vec<ClientMessage> {
        let mut book = self.book();
        book.is_connected = true;
        book.waiting.clear();
        book.wanted.iter().map(|(channel, wanted)| wanted.join(channel)).collect()
    }

    /// What was there is there no more.
    pub(crate) fn disconnected(&self) {
        let mut book = self.book();
        book.is_connected = false;
        book.waiting.clear();
        for wanted in book.wanted.values_mut() {
            wanted.member = None;
            wanted.members.clear();
        }
    }

    /// What is to be sent.
    pub(crate) fn take(&self) -> Vec<ClientMessage> {
        std::mem::take(&mut self.book().waiting)
    }

    pub(crate) fn joined(&self, joined: &Joined) {
        if let Some(wanted) = self.book().wanted.get_mut(&joined.channel) {
            wanted.member = Some(joined.member.clone());
        }
    }

    pub(crate) fn presence(&self, presence: &Presence) {
        let mut book = self.book();
        let Some(wanted) = book.wanted.get_mut(&presence.channel) else { return };
        if let Some(members) = &presence.members {
            wanted.members =
                members.iter().map(|member| (member.who.member.clone(), member.clone())).collect();
        }
        for who in &presence.left {
            wanted.members.remove(&who.member);
        }
        for member in &presence.joined {
            wanted.members.insert(member.who.member.clone(), member.clone());
        }
    }

    /// The daemon does not let it in, or not any more.
    pub(crate) fn refused(&self, error: &ErrorMessage) {
        if let Some(channel) = &error.channel {
            self.book().wanted.remove(channel);
        }
    }
}

impl Wanted {
    fn join(&self, channel: &str) -> ClientMessage {
        JoinChannel {
            channel: channel.to_owned(),
            state: self.state.clone(),
            client_id: self.client_id.clone(),
            reference: None,
        }
        .into()
    }
}

/// A channel of a [`Client`](crate::Client), for any task; made by [`Client::channel`](crate::Client::channel). Clones are
/// alike.
///
/// What is said in it comes as [`Event::Message`](crate::Event::Message), who is there as
/// [`Event::Presence`](crate::Event::Presence); these, and everything that is asked for here, go by
/// [`Client::next`](crate::Client::next), which some task has to call. After a lost connection what was joined is joined
/// again by itself, with its state. What was said meanwhile is gone: nothing in channels is kept.
///
/// What the daemon refuses comes as [`Event::Error`](crate::Event::Error). With `channel` in it the client is not in that
/// channel any more, and does not join it again by itself.
#[derive(Clone)]
pub struct Channel {
    name: String,
    client_id: Option<String>,
    channels: Arc<crate::handle::Shared>,
}

impl Channel {
    pub(crate) const fn new(name: String, channels: Arc<crate::handle::Shared>) -> Self {
        Self { name, client_id: None, channels }
    }

    /// What this client calls itself there, shown beside its user: 1 to 128 bytes without control characters. For joins from
    /// now on.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = Some(client_id.into());
        self
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Joins it without being shown. [`Event::Joined`](crate::Event::Joined) says when that is done, now and after each
    /// new connection. Without effect where it was asked for before.
    pub fn join(&self) {
        self.enter(None);
    }

    /// Joins it, and is shown there with a state; or sets another state where it is joined.
    ///
    /// # Errors
    /// When the state does not become JSON, or is `null`; when too much waits to be sent.
    pub fn show(&self, state: &impl Serialize) -> Result<(), Error> {
        let state = json(state)?;
        if state.get() == "null" {
            return Err(Error::new(ErrorKind::Argument, "a state is not null; hide() ends being shown"));
        }
        if !self.enter(Some(state.clone())) {
            self.set_state(Some(state))?;
        }
        Ok(())
    }

    /// Is shown no more, and stays.
    ///
    /// # Errors
    /// When too much waits to be sent.
    pub fn hide(&self) -> Result<(), Error> {
        self.set_state(None)
    }

    /// Whether there was something to join.
    fn enter(&self, state: Option<Box<RawValue>>) -> bool {
        let mut book = self.channels.channels.book();
        if book.wanted.contains_key(&self.name) {
            return false;
        }
        let wanted = Wanted { state, client_id: self.client_id.clone(), ..Wanted::default() };
        let message = wanted.join(&self.name);
        book.wanted.insert(self.name.clone(), wanted);
        // Without a connection it is joined with the next one.
        if book.is_connected {
            book.waiting.push(message);
        }
        drop(book);
        self.channels.channels.client.wake();
        true
    }

    fn set_state(&self, state: Option<Box<RawValue>>) -> Result<(), Error> {
        let mut book = self.channels.channels.book();
        let is_connected = book.is_connected;
        if let Some(wanted) = book.wanted.get_mut(&self.name) {
            wanted.state.clone_from(&state);
        }
        if is_connected {
            let message = SetPresence { channel: self.name.clone(), state, reference: None };
            send(&mut book, message.into())?;
        }
        drop(book);
        self.channels.channels.client.wake();
        Ok(())
    }

    /// Says something to whoever is there now. That it was sent is not known: nothing confirms it, and a connection may be
    /// lost with it. Whoever needs to be sure writes a row.
    ///
    /// # Errors
    /// When it does not become JSON, there is no connection ([`ErrorKind::Unavailable`]), or too much waits to be sent.
    pub fn publish(&self, payload: &impl Serialize) -> Result<(), Error> {
        self.say(payload, false)
    }

    /// As [`Channel::publish`], and has it sent to itself too.
    ///
    /// # Errors
    /// As [`Channel::publish`].
    pub fn publish_with_echo(&self, payload: &impl Serialize) -> Result<(), Error> {
        self.say(payload, true)
    }

    fn say(&self, payload: &impl Serialize, echo: bool) -> Result<(), Error> {
        let payload = json(payload)?;
        let mut book = self.channels.channels.book();
        if !book.is_connected {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "there is no connection to the daemon, so nobody heard it",
            ));
        }
        let message = PublishMessage { channel: self.name.clone(), payload, echo, reference: None };
        send(&mut book, message.into())?;
        drop(book);
        self.channels.channels.client.wake();
        Ok(())
    }

    /// Leaves it, and does not join it again.
    pub fn leave(&self) {
        let mut book = self.channels.channels.book();
        if book.wanted.remove(&self.name).is_some() && book.is_connected {
            book.waiting.push(LeaveChannel { channel: self.name.clone(), reference: None }.into());
        }
        drop(book);
        self.channels.channels.client.wake();
    }

    /// What the daemon calls this connection in it; `None` while it is not in.
    #[must_use]
    pub fn member(&self) -> Option<String> {
        self.channels.channels.book().wanted.get(&self.name)?.member.clone()
    }

    /// Who is shown there, as far as the caller of [`Client::next`](crate::Client::next) was told. Nobody while there is no
    /// connection.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        let book = self.channels.channels.book();
        book.wanted
            .get(&self.name)
            .map(|wanted| wanted.members.values().cloned().collect())
            .unwrap_or_default()
    }
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value)
        .map_err(|error| Error::new(ErrorKind::Argument, "it does not become JSON").caused(error))
}

fn send(book: &mut Book, message: ClientMessage) -> Result<(), Error> {
    if book.waiting.len() >= WAITING_MAX {
        let text = format!("{WAITING_MAX} messages wait to be sent; call Client::next, or say less");
        return Err(Error::new(ErrorKind::Unavailable, text));
    }
    book.waiting.push(message);
    Ok(())
}
