//! The channels that one connection has joined.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use walcast_model::{check_readable, one_line};
use walcast_policy::{ChannelGrant, ChannelRights};
use walcast_protocol::{Dropped, ErrorCode, JoinChannel, Joined, PublishMessage, Sender, ServerMessage};

use super::mailbox::{Mail, Mailbox};
use super::room::{MemberId, Newcomer, Saying};
use super::{Channels, Full};
use crate::encode::{Frame, Says};
use crate::metrics as names;
use crate::refusal::Refusal;
use crate::request::{ClientId, has_control};

/// The channels that one connection has joined. It leaves them when this is dropped.
#[derive(Debug)]
pub(crate) struct Memberships {
    channels: Channels,
    /// There while it is in a channel: most clients are in none.
    pub(super) seat: Option<Box<Seat>>,
}

/// What a connection has that is in channels.
#[derive(Debug)]
pub(super) struct Seat {
    mailbox: Arc<Mailbox>,
    /// One at the least.
    joined: BTreeMap<Arc<str>, Membership>,
    /// It has said nothing for long, and is shown nowhere meanwhile.
    is_away: bool,
    /// Bytes that were handed out because of what it said.
    handed_out: usize,
}

#[derive(Clone, Debug)]
struct Membership {
    id: MemberId,
    grant: ChannelGrant,
    /// What the others are told of it.
    state: Option<Box<RawValue>>,
}

/// A request that is over a limit; counted.
fn over(limit: &'static str, message: String) -> Refusal {
    metrics::counter!(names::CHANNELS_REFUSED, "limit" => limit).increment(1);
    Refusal::new(ErrorCode::LimitExceeded, message)
}

/// The same whether or not there is such a channel.
pub(crate) fn not_granted(channel: &str) -> Refusal {
    Refusal::forbidden(format!("no policy grants the channel {channel:?} to this client"))
}

/// What a client with these rights may do in a channel, by the code that lets it in.
///
/// # Errors
/// When it would not be let in, whoever is there. `bytes_max`: of a name (`channel_name_bytes_max`).
pub fn channel_grant(
    channel: &str,
    rights: &ChannelRights,
    bytes_max: usize,
) -> Result<ChannelGrant, Refusal> {
    if channel.len() > bytes_max {
        let text = format!("a channel's name has at most {bytes_max} bytes (channel_name_bytes_max)");
        return Err(over("channel_name_bytes_max", text));
    }
    if channel.is_empty() || has_control(channel) {
        return Err(Refusal::bad("a channel's name is not empty and has no control characters"));
    }
    rights.of(channel).ok_or_else(|| not_granted(channel))
}

impl Seat {
    const fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox, joined: BTreeMap::new(), is_away: false, handed_out: 0 }
    }
}

impl Memberships {
    pub(crate) const fn new(channels: Channels) -> Self {
        Self { channels, seat: None }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.seat.is_none()
    }

    fn joined(&self) -> impl Iterator<Item = (&Arc<str>, &Membership)> {
        self.seat.iter().flat_map(|seat| &seat.joined)
    }

    fn of(&self, channel: &str) -> Result<(&Arc<str>, &Membership), Refusal> {
        let found = self.seat.as_ref().and_then(|seat| seat.joined.get_key_value(channel));
        found.ok_or_else(|| {
            let refusal = Refusal::bad(format!("this connection is not in the channel {channel:?}"));
            refusal.hint("join it first, and again on each connection")
        })
    }

    /// Joins a channel.
    pub(crate) fn join(
        &mut self,
        message: JoinChannel,
        rights: &ChannelRights,
        user: Option<&str>,
    ) -> Result<Joined, Refusal> {
        let limits = *self.channels.limits();
        let JoinChannel { channel, state, client_id, reference } = message;
        let grant = channel_grant(&channel, rights, limits.channel_name_bytes_max)?;
        if self.joined().count() >= limits.channels_per_connection_max {
            let max = limits.channels_per_connection_max;
            let text = format!("channels in one connection (channels_per_connection_max): at most {max}");
            return Err(over("channels_per_connection_max", text).hint("leave some of them"));
        }
        let client_id = client_id.map(ClientId::try_from).transpose()?.map(ClientId::into_string);
        let state = state.map(|state| self.state(&channel, state, grant)).transpose()?;
        // It cannot be guessed, and does not tell how many there were.
        let member = format!("{:016x}", rand::random::<u64>());
        let who = Sender { member: member.clone(), user: user.map(str::to_owned), client_id };
        let mailbox = self.seat.as_ref().map(|seat| Arc::clone(&seat.mailbox));
        let mailbox = mailbox.unwrap_or_else(|| Mailbox::new(limits.channel_queue_bytes_max));
        let newcomer =
            Newcomer { mailbox: Arc::clone(&mailbox), who, state: state.clone(), sees: grant.presence };
        let joined = self.channels.join(&channel, newcomer, Instant::now());
        let (name, id, told) = joined.map_err(|full| match full {
            Full::Channels => {
                let text = format!("channels in all (channels_max): at most {}", limits.channels_max);
                over("channels_max", text).hint("try again later, or join one that is there")
            }
            Full::Members => {
                let max = limits.channel_members_max;
                over(
                    "channel_members_max",
                    format!("members of one channel (channel_members_max): at most {max}"),
                )
            }
        })?;
        let seat = self.seat.get_or_insert_with(|| Box::new(Seat::new(mailbox)));
        seat.joined.insert(name, Membership { id, grant, state });
        seat.handed_out += told;
        Ok(Joined { channel, member, reference })
    }

    /// Whether the connection is in a channel.
    pub(crate) fn has(&self, channel: &str) -> bool {
        self.of(channel).is_ok()
    }

    fn state(
        &self,
        channel: &str,
        state: Box<RawValue>,
        grant: ChannelGrant,
    ) -> Result<Box<RawValue>, Refusal> {
        let max = self.channels.limits().state_bytes_max;
        if !grant.presence {
            let text = format!("no policy allows this client presence in the channel {channel:?}");
            return Err(Refusal::forbidden(text));
        }
        if state.get().len() > max {
            return Err(over(
                "state_bytes_max",
                format!("a state has at most {max} bytes (state_bytes_max)"),
            ));
        }
        check_readable(&state)
            .map_err(|why| Refusal::bad(format!("not every client could read the state: {why}")))?;
        Ok(one_line(state))
    }

    /// Leaves a channel. Nothing of it follows.
    pub(crate) fn leave(&mut self, channel: &str) -> Result<(), Refusal> {
        let id = self.of(channel)?.1.id;
        self.end(channel, id);
        Ok(())
    }

    fn end(&mut self, channel: &str, id: MemberId) {
        self.channels.leave(channel, id, Instant::now());
        let Some(seat) = &mut self.seat else { return };
        seat.joined.remove(channel);
        if seat.joined.is_empty() {
            self.seat = None;
        } else {
            seat.mailbox.forget(channel);
        }
    }

    /// Leaves all of them.
    pub(crate) fn leave_all(&mut self) {
        let now = Instant::now();
        for (channel, membership) in self.seat.take().into_iter().flat_map(|seat| seat.joined) {
            self.channels.leave(&channel, membership.id, now);
        }
    }

    /// Says something.
    pub(crate) fn publish(&mut self, message: PublishMessage) -> Result<(), Refusal> {
        let PublishMessage { channel, payload, echo, reference: _ } = message;
        let (name, membership) = self.of(&channel)?;
        if !membership.grant.publish {
            let text = format!("no policy allows this client to publish in the channel {channel:?}");
            return Err(Refusal::forbidden(text));
        }
        let max = self.channels.limits().payload_bytes_max;
        if payload.get().len() > max {
            let text = format!("a payload has at most {max} bytes (payload_bytes_max)");
            return Err(over("payload_bytes_max", text));
        }
        check_readable(&payload)
            .map_err(|why| Refusal::bad(format!("not every client could read the payload: {why}")))?;
        let payload = one_line(payload);
        let told = self.channels.say(name, Saying::Client { payload, from: membership.id, echo });
        self.note_handed_out(told);
        Ok(())
    }

    fn note_handed_out(&mut self, bytes: usize) {
        if let Some(seat) = &mut self.seat {
            seat.handed_out += bytes;
        }
    }

    /// The bytes that were handed out because of what it said since that was asked last, once for each who was told.
    pub(crate) fn take_handed_out(&mut self) -> usize {
        self.seat.as_mut().map_or(0, |seat| std::mem::take(&mut seat.handed_out))
    }

    /// Sets what the others are told of this client.
    pub(crate) fn set_state(&mut self, channel: &str, state: Option<Box<RawValue>>) -> Result<(), Refusal> {
        let (name, membership) = self.of(channel)?;
        let state = state.map(|state| self.state(channel, state, membership.grant)).transpose()?;
        let told = self.channels.set_state(name, membership.id, state.clone(), Instant::now());
        if let Some(seat) = &mut self.seat
            && let Some(membership) = seat.joined.get_mut(channel)
        {
            membership.state = state;
            seat.handed_out += told;
        }
        Ok(())
    }

    /// Whether it is to be shown anywhere.
    pub(crate) fn has_state(&self) -> bool {
        self.joined().any(|(_, membership)| membership.state.is_some())
    }

    /// It has said nothing for long, so it may not be there: it is shown no more, until it says something.
    pub(crate) fn set_away(&mut self, is_away: bool) {
        let Some(seat) = &mut self.seat else { return };
        if std::mem::replace(&mut seat.is_away, is_away) == is_away {
            return;
        }
        let now = Instant::now();
        for (channel, membership) in &seat.joined {
            if membership.state.is_some() {
                let state = membership.state.clone().filter(|_| !is_away);
                let _ = self.channels.set_state(channel, membership.id, state, now);
            }
        }
    }

    /// The client has other rights: it leaves what it may not be in, which is returned.
    pub(crate) fn change_rights(&mut self, rights: &ChannelRights) -> Vec<Arc<str>> {
        let (now, mut lost) = (Instant::now(), Vec::new());
        for (channel, membership) in self.seat.iter_mut().flat_map(|seat| &mut seat.joined) {
            let Some(grant) = rights.of(channel) else {
                lost.push(Arc::clone(channel));
                continue;
            };
            if grant.presence != membership.grant.presence {
                membership.state = None;
                self.channels.set_sees(channel, membership.id, grant.presence, now);
            }
            membership.grant = grant;
        }
        for channel in &lost {
            if let Ok(id) = self.of(channel).map(|(_, membership)| membership.id) {
                self.end(channel, id);
            }
        }
        lost
    }

    /// The next frame, if there is one.
    pub(crate) fn next(&self) -> Option<Frame> {
        let seat = self.seat.as_ref()?;
        loop {
            match seat.mailbox.take()? {
                Mail::Frame(tail) => {
                    return Some(Frame { head: Bytes::new(), tail, says: Says::Other("message") });
                }
                Mail::Dropped(channel, count) => {
                    let dropped = Dropped { channel: channel.to_string(), count };
                    return Some(ServerMessage::from(dropped).into());
                }
                Mail::Unaware(channels) => {
                    let now = Instant::now();
                    for (channel, membership) in
                        channels.iter().filter_map(|one| seat.joined.get_key_value(one))
                    {
                        self.channels.tell_anew(channel, membership.id, now);
                    }
                }
            }
        }
    }

    /// Whether there may be one. Wakes when there is.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        self.seat.as_ref().map_or(Poll::Pending, |seat| seat.mailbox.poll_ready(cx))
    }
}

impl Drop for Memberships {
    fn drop(&mut self) {
        self.leave_all();
    }
}
