//! What clients say about channels, and in them.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use walcast_protocol::{ErrorCode, ErrorMessage, JoinChannel, LeaveChannel, PublishMessage, SetPresence};

use super::connection::{Connection, End};
use crate::channels::not_granted;
use crate::metrics as names;
use crate::refusal::Refusal;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn join(&mut self, mut message: JoinChannel) -> Option<End> {
        self.subscribes.take(Instant::now());
        let (channel, reference) = (message.channel.clone(), message.reference.take());
        if self.memberships.has(&channel) {
            // An error with the channel says that the client is not in it.
            let refusal = Refusal::bad(format!("this connection is in the channel {channel:?} already"));
            let hint = "set its state with presence, or leave first; it stays in the channel";
            return self.answer(Err(refusal.hint(hint)), None, reference);
        }
        match self.memberships.join(message, self.pass.channels(), self.pass.user()) {
            Ok(mut joined) => {
                joined.reference = reference;
                self.refused = 0;
                self.push(joined);
                None
            }
            // A name that is too long is not said again.
            Err(refusal) => {
                let is_short = channel.len() <= self.broadcaster.limits().channel_name_bytes_max;
                self.answer(Err(refusal), is_short.then_some(channel), reference)
            }
        }
    }

    pub(super) fn leave(&mut self, message: LeaveChannel) -> Option<End> {
        let left = self.memberships.leave(&message.channel);
        self.answer(left, None, message.reference)
    }

    pub(super) fn publish(&mut self, mut message: PublishMessage) -> Option<End> {
        let reference = message.reference.take();
        if self.is_too_fast() {
            return self.say_too_fast(reference);
        }
        let published = self.memberships.publish(message);
        self.answer(published, None, reference)
    }

    pub(super) fn set_presence(&mut self, message: SetPresence) -> Option<End> {
        let SetPresence { channel, state, reference } = message;
        if self.is_too_fast() {
            return self.say_too_fast(reference);
        }
        let set = self.memberships.set_state(&channel, state);
        self.answer(set, None, reference)
    }

    fn is_too_fast(&mut self) -> bool {
        let now = Instant::now();
        self.publishes.try_take(now, now).is_err()
    }

    /// Not held against it: whoever moves a pointer is too fast many times in a row.
    fn say_too_fast(&mut self, reference: Option<String>) -> Option<End> {
        const LIMIT: &str = "publishes_per_second_max";
        metrics::counter!(names::CHANNELS_REFUSED, "limit" => LIMIT).increment(1);
        let max = self.broadcaster.limits().publishes_per_second_max;
        let text = format!("messages and states in a second ({LIMIT}): at most {max}; it was not published");
        let error = ErrorMessage::new(ErrorCode::LimitExceeded, text);
        let hint = Some("send less often, and the newest of what replaces what was before".to_owned());
        self.tell_error(ErrorMessage { hint, reference, ..error });
        None
    }

    /// Whoever is shown is asked whether he is still there: a connection that was lost without a word is given up by the
    /// kernel only after many minutes.
    pub(super) fn ask_for_presence(&mut self) {
        if !self.memberships.has_state() {
            return;
        }
        if self.heard_at.elapsed() > self.broadcaster.limits().presence_silence_max {
            self.memberships.set_away(true);
        }
        // What waits for a client that does not read would grow.
        if self.has_channel_room() {
            self.socket.get_mut().push_ping();
        }
    }

    /// The client may not be in a channel any more.
    pub(super) fn expel(&mut self, channel: &str) {
        let error = not_granted(channel).into_message(None, false);
        self.tell_error(ErrorMessage { channel: Some(channel.to_owned()), ..error });
    }

    fn answer(
        &mut self,
        outcome: Result<(), Refusal>,
        channel: Option<String>,
        reference: Option<String>,
    ) -> Option<End> {
        match outcome {
            Ok(()) => {
                self.refused = 0;
                None
            }
            Err(refusal) => {
                self.refuse_with(ErrorMessage { channel, reference, ..refusal.into_message(None, false) })
            }
        }
    }
}
