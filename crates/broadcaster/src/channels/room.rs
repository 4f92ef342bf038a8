//! One channel: who is in it, and what they are told.
//!
//! What changes in who is shown is gathered, and told at most once in an interval: one frame for all who know what there
//! was before, and one with everybody for those who do not. So whoever came and went in between is told to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;
use walcast_model::Lsn;
use walcast_protocol::{ChannelMessage, Member as Shown, Presence, Sender, ServerMessage};

use super::mailbox::Mailbox;

/// A member, by the order in which they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct MemberId(pub(super) usize);

/// Who comes.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) who: Sender,
    pub(super) state: Option<Box<RawValue>>,
    /// Whether it may see who is there.
    pub(super) sees: bool,
}

#[derive(Debug)]
struct Member {
    mailbox: Arc<Mailbox>,
    who: Sender,
    /// It is shown.
    state: Option<Box<RawValue>>,
    sees: bool,
    /// Those who see were told that it is shown.
    is_told: bool,
}

impl Member {
    fn shown(&self) -> Option<Shown> {
        Some(Shown { who: self.who.clone(), state: self.state.clone()? })
    }
}

/// Something that is said.
#[derive(Debug)]
pub(super) enum Saying {
    Client { payload: Box<RawValue>, from: MemberId, echo: bool },
    Database { payload: Box<RawValue>, lsn: Lsn },
}

/// One channel. Empty at first.
#[derive(Debug)]
pub(super) struct Room {
    name: Arc<str>,
    members: BTreeMap<MemberId, Member>,
    /// Those who are shown since it was told, or say something else.
    came: BTreeSet<MemberId>,
    /// Those who are shown no more, of whom it was told that they are.
    went: BTreeMap<MemberId, Sender>,
    /// Those who do not know who was there before.
    unaware: BTreeSet<MemberId>,
    told_at: Option<Instant>,
    due: Option<Instant>,
}

impl Room {
    pub(super) const fn new(name: Arc<str>) -> Self {
        Self {
            name,
            members: BTreeMap::new(),
            came: BTreeSet::new(),
            went: BTreeMap::new(),
            unaware: BTreeSet::new(),
            told_at: None,
            due: None,
        }
    }

    pub(super) const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// When it is to be told who came and went.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn join(&mut self, id: MemberId, newcomer: Newcomer) {
        let Newcomer { mailbox, who, state, sees } = newcomer;
        self.members.insert(id, Member { mailbox, who, state: None, sees, is_told: false });
        self.set_state(id, state);
        self.tell_anew(id);
    }

    /// Whether it was there.
    pub(super) fn leave(&mut self, id: MemberId) -> bool {
        self.set_state(id, None);
        self.unaware.remove(&id);
        self.members.remove(&id).is_some()
    }

    pub(super) fn set_state(&mut self, id: MemberId, state: Option<Box<RawValue>>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if state.is_some() {
            self.went.remove(&id);
            self.came.insert(id);
        } else {
            self.came.remove(&id);
            if member.is_told {
                self.went.insert(id, member.who.clone());
            }
        }
        member.state = state;
    }

    pub(super) fn set_sees(&mut self, id: MemberId, sees: bool) {
        if !sees {
            self.set_state(id, None);
            self.unaware.remove(&id);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.sees = sees;
        }
        self.tell_anew(id);
    }

    pub(super) fn tell_anew(&mut self, id: MemberId) {
        if self.members.get(&id).is_some_and(|member| member.sees) {
            self.unaware.insert(id);
        }
    }

    /// Tells who came and went, if anything is to be told and it may be told again; else says when.
    pub(super) fn settle(&mut self, now: Instant, interval: Duration) {
        let is_news = !self.came.is_empty() || !self.went.is_empty() || !self.unaware.is_empty();
        let free_at = self.told_at.map_or(now, |told_at| told_at + interval);
        self.due = (is_news && free_at > now).then_some(free_at);
        if is_news && free_at <= now {
            self.tell();
            self.told_at = Some(now);
        }
    }

    fn tell(&mut self) {
        let shown = |id: &MemberId| self.members.get(id).and_then(Member::shown);
        let has_changed = !self.came.is_empty() || !self.went.is_empty();
        let knows = |(id, member): &(&MemberId, &Member)| member.sees && !self.unaware.contains(id);
        if has_changed && self.members.iter().any(|member| knows(&member)) {
            let frame = Self::frame(Presence {
                channel: self.name.to_string(),
                members: None,
                left: self.went.values().cloned().collect(),
                joined: self.came.iter().filter_map(shown).collect(),
            });
            for (_, member) in self.members.iter().filter(knows) {
                member.mailbox.post_presence(&self.name, &frame);
            }
        }
        if !self.unaware.is_empty() {
            let members = self.members.values().filter_map(Member::shown).collect();
            let channel = self.name.to_string();
            let all = Presence { channel, members: Some(members), left: Vec::new(), joined: Vec::new() };
            let frame = Self::frame(all);
            for member in self.unaware.iter().filter_map(|id| self.members.get(id)) {
                member.mailbox.post_presence(&self.name, &frame);
            }
            self.unaware.clear();
        }
        for id in std::mem::take(&mut self.went).keys() {
            if let Some(member) = self.members.get_mut(id) {
                member.is_told = false;
            }
        }
        for id in std::mem::take(&mut self.came) {
            if let Some(member) = self.members.get_mut(&id) {
                member.is_told = true;
            }
        }
    }

    fn frame(message: impl Into<ServerMessage>) -> Bytes {
        message.into().to_json().into()
    }

    /// What it takes to tell everybody of a state, in bytes.
    pub(super) fn cost_of(&self, state: Option<&RawValue>) -> usize {
        state.map_or(0, |state| state.get().len()).saturating_mul(self.members.len())
    }

    /// Hands something out: one frame for all who may see who says it, and one for the others. Returns the bytes of all that
    /// are told.
    pub(super) fn say(&self, saying: Saying) -> usize {
        let (payload, from, lsn, but) = match saying {
            Saying::Client { payload, from: id, echo } => {
                let Some(member) = self.members.get(&id) else { return 0 };
                (payload, Some(member.who.clone()), None, (!echo).then_some(id))
            }
            Saying::Database { payload, lsn } => (payload, None, Some(lsn), None),
        };
        let mut message = ChannelMessage { channel: self.name.to_string(), payload, from, lsn };
        let (mut whole, mut narrow, mut bytes) = (None, None, 0);
        let is_for = |(id, _): &(&MemberId, &Member)| Some(**id) != but;
        // First those who may see it, so that the message can be narrowed afterwards.
        for (_, member) in self.members.iter().filter(is_for).filter(|(_, member)| member.sees) {
            let frame = whole.get_or_insert_with(|| Self::frame(message.clone()));
            member.mailbox.post_message(&self.name, frame);
            bytes += frame.len();
        }
        if let Some(from) = &mut message.from {
            (from.user, from.client_id) = (None, None);
        }
        for (_, member) in self.members.iter().filter(is_for).filter(|(_, member)| !member.sees) {
            let frame = narrow.get_or_insert_with(|| Self::frame(message.clone()));
            member.mailbox.post_message(&self.name, frame);
            bytes += frame.len();
        }
        bytes
    }
}
