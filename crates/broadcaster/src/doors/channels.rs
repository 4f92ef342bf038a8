//! What clients say about channels, and in them.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use walcast_protocol::{ErrorCode, ErrorMessage, JoinChannel, LeaveChannel, PublishMessage, SetPresence};

use super::connection::{Connection, End};
use super::pace::Pace;
use crate::channels::not_granted;
use crate::limits::Limits;
use crate::metrics as names;
use crate::refusal::Refusal;

/// How fast one connection talks in channels.
pub(super) struct Talk {
    publishes: Pace,
    /// What it has others told, where nobody knows whose it is.
    fan_out: Pace,
}

impl Talk {
    fn new(limits: &Limits, now: Instant) -> Self {
        let pace = |rate: usize| Pace::new(rate, rate.saturating_mul(4), now);
        Self {
            publishes: pace(limits.publishes_per_second_max),
            fan_out: pace(limits.fan_out_bytes_per_second_max),
        }
    }
}

/// What is said too fast, and what to do.
struct TooFast {
    limit: &'static str,
    what: &'static str,
    max: usize,
    hint: &'static str,
}

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
                self.pay();
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
        if let Err(too_fast) = self.keep_pace() {
            return self.say_too_fast(&too_fast, reference);
        }
        let published = self.memberships.publish(message);
        self.pay();
        self.answer(published, None, reference)
    }

    pub(super) fn set_presence(&mut self, message: SetPresence) -> Option<End> {
        let SetPresence { channel, state, reference } = message;
        if let Err(too_fast) = self.keep_pace() {
            return self.say_too_fast(&too_fast, reference);
        }
        let set = self.memberships.set_state(&channel, state);
        self.pay();
        self.answer(set, None, reference)
    }

    /// Whether it may say something now.
    fn keep_pace(&mut self) -> Result<(), TooFast> {
        let (limits, now) = (self.broadcaster.limits(), Instant::now());
        let talk = self.talk.get_or_insert_with(|| Box::new(Talk::new(limits, now)));
        let fan_out = match self.pass.user() {
            Some(user) => self.entrance.fan_out.free_at(user),
            None => talk.fan_out.free_at(),
        };
        if fan_out.is_some_and(|free_at| free_at > now) {
            return Err(TooFast {
                limit: "fan_out_bytes_per_second_max",
                what: "bytes that others are told in channels in a second, once for each of them",
                max: limits.fan_out_bytes_per_second_max,
                hint: "send less, less often, or to channels with fewer members",
            });
        }
        talk.publishes.try_take(now, now).map(drop).map_err(|_| TooFast {
            limit: "publishes_per_second_max",
            what: "messages and states in a second",
            max: limits.publishes_per_second_max,
            hint: "send less often, and the newest of what replaces what was before",
        })
    }

    /// What was handed out because of what it said is known only then, so it is waited for afterwards.
    fn pay(&mut self) {
        let bytes = self.memberships.take_handed_out();
        if bytes == 0 {
            return;
        }
        let (limits, now) = (self.broadcaster.limits(), Instant::now());
        match self.pass.user() {
            Some(user) => {
                self.entrance.fan_out.take_many(user, limits.fan_out_bytes_per_second_max, bytes, now);
            }
            None => {
                let talk = self.talk.get_or_insert_with(|| Box::new(Talk::new(limits, now)));
                talk.fan_out.take_many(bytes, now);
            }
        }
    }

    /// Not held against it: whoever moves a pointer is too fast many times in a row.
    fn say_too_fast(&mut self, too_fast: &TooFast, reference: Option<String>) -> Option<End> {
        let TooFast { limit, what, max, hint } = *too_fast;
        metrics::counter!(names::CHANNELS_REFUSED, "limit" => limit).increment(1);
        let text = format!("{what} ({limit}): at most {max}; it was not published");
        let error = ErrorMessage::new(ErrorCode::LimitExceeded, text);
        self.tell_error(ErrorMessage { hint: Some(hint.to_owned()), reference, ..error });
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
