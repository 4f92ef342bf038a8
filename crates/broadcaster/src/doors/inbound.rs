//! What clients say.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use walcast_protocol::{
    Ack, ClientMessage, CloseCode, DecodeError, ErrorCode, ErrorMessage, Subscribe, SubscriptionId,
    Unsubscribe,
};

use super::connection::{Connection, End};
use crate::metrics as names;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::subscription::Client;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A text frame.
    pub(super) fn text(&mut self, text: &str) -> Option<End> {
        let message = match ClientMessage::decode(text) {
            Ok(message) => message,
            Err(error) => return self.unreadable(&error),
        };
        let answer = match message {
            // An error with an id says that there is no such subscription, so only a refused one gets it.
            ClientMessage::Subscribe(message) if self.subscriptions.has(&message.id) => {
                let refusal =
                    Refusal::bad(format!("there is a subscription {:?} already", message.id.as_str()));
                let hint = "unsubscribe it first, or use another id; the one that is there goes on";
                Err((None, refusal.hint(hint)))
            }
            ClientMessage::Subscribe(message) => {
                let id = message.id.clone();
                self.subscribe(message).map_err(|refusal| (Some(id), refusal))
            }
            ClientMessage::Unsubscribe(message) => {
                self.unsubscribe(&message).map_err(|refusal| (None, refusal))
            }
            ClientMessage::Auth(auth) => return self.authenticate(&auth.token),
            ClientMessage::Ack(ack) => self.acknowledge(&ack).map_err(|refusal| (None, refusal)),
            ClientMessage::Clients(_) => self.list_clients().map_err(|refusal| (None, refusal)),
            ClientMessage::Join(join) => return self.join(join),
            ClientMessage::Leave(leave) => return self.leave(leave),
            ClientMessage::Publish(publish) => return self.publish(publish),
            ClientMessage::Presence(presence) => return self.set_presence(presence),
        };
        match answer {
            Ok(()) => {
                self.refused = 0;
                None
            }
            Err((id, refusal)) => self.refuse(id, refusal),
        }
    }

    /// A text frame that is no message.
    fn unreadable(&mut self, error: &DecodeError) -> Option<End> {
        let malformed = error.malformed();
        let refusal = Refusal::bad(error.to_string());
        let like = ClientMessage::example(malformed.map_or("subscribe", |malformed| malformed.name));
        let refusal = match like {
            Some(like) => refusal.hint(format!("a message looks like {like}")),
            None => refusal,
        };
        // An error with an id says that there is no such subscription: for one that was asked for, and is not there.
        let asked = malformed.filter(|malformed| malformed.name == "subscribe");
        let id = asked.and_then(|malformed| malformed.id.clone()).filter(|id| !self.subscriptions.has(id));
        self.refuse(id, refusal)
    }

    /// A binary frame.
    pub(super) fn binary(&mut self) -> Option<End> {
        self.refuse(None, Refusal::bad("a message is a text frame, and this one is binary"))
    }

    fn subscribe(&mut self, message: Subscribe) -> Result<(), Refusal> {
        self.subscribes.take(Instant::now());
        let limits = *self.broadcaster.limits();
        let over = |what: &str, max: usize| {
            let message = format!("{what}: at most {max}");
            Err(Refusal::new(ErrorCode::LimitExceeded, message).hint("see welcome.limits"))
        };
        if self.subscriptions.len() >= limits.subscriptions_max {
            return over("subscriptions in one connection (subscriptions_max)", limits.subscriptions_max);
        }
        let client = Client { applicant: self.applicant(), user: self.pass.owner() };
        let subscription =
            self.broadcaster.subscribe(Request::try_from(message)?, self.pass.rights(), &client)?;
        self.subscriptions.push(subscription);
        Ok(())
    }

    fn acknowledge(&mut self, ack: &Ack) -> Result<(), Refusal> {
        match self.subscriptions.get_mut(&ack.id) {
            Some(subscription) => subscription.acknowledge(ack.cursor),
            None => Err(Refusal::bad(format!("there is no subscription {:?}", ack.id.as_str()))),
        }
    }

    fn list_clients(&mut self) -> Result<(), Refusal> {
        let Some(user) = self.pass.owner() else {
            let refusal = Refusal::new(ErrorCode::Forbidden, "nothing is kept for a client without a user");
            return Err(refusal.hint("send a token with a subject (sub)"));
        };
        // One at a time; who asks again meanwhile gets one answer.
        if self.listing.is_none() {
            self.listing = Some(self.broadcaster.clients_of(user.to_owned()));
            self.seldom.ring();
        }
        Ok(())
    }

    fn unsubscribe(&mut self, message: &Unsubscribe) -> Result<(), Refusal> {
        if !self.subscriptions.remove(&message.id) {
            return Err(Refusal::bad(format!("there is no subscription {:?}", message.id.as_str())));
        }
        Ok(())
    }

    /// An error that is not held against the client.
    pub(super) fn tell_error(&mut self, error: ErrorMessage) {
        metrics::counter!(names::ERRORS, "code" => error.code.to_string()).increment(1);
        self.push(error);
    }

    /// Answers with an error; the connection stays, unless it says nothing but what is refused.
    fn refuse(&mut self, id: Option<SubscriptionId>, refusal: Refusal) -> Option<End> {
        self.refuse_with(refusal.into_message(id, false))
    }

    /// As [`Connection::refuse`].
    pub(super) fn refuse_with(&mut self, error: ErrorMessage) -> Option<End> {
        self.tell_error(error);
        self.refused += 1;
        let max = self.broadcaster.limits().bad_messages_max;
        if self.refused < max {
            return None;
        }
        let text = format!("{max} messages in a row were refused (bad_messages_max)");
        let error = ErrorMessage::new(ErrorCode::LimitExceeded, text);
        self.push(ErrorMessage { fatal: true, ..error });
        Some(CloseCode::Policy.into())
    }
}
