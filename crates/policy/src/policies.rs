//! The policies of the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use walcast_filter::Claims;
use walcast_model::RelationName;
use walcast_protocol::TablePattern;

use crate::channel::{ChannelGrants, ChannelPolicy, ChannelRights, ChannelSaying, sayings};
use crate::mistake::Mistake;
use crate::policy::TablePolicy;
use crate::read;
use crate::rights::Rights;

/// Whose policies. A token's role is always a name, also one that is called `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Role {
    /// Every role, as far as its own policies say nothing.
    Every,
    /// The one with this name.
    Named(String),
}

type OfRole = BTreeMap<TablePattern, Arc<TablePolicy>>;

/// All policies, as they were read once. The default has none, and so denies everything.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Policies {
    pub(crate) roles: BTreeMap<Role, OfRole>,
    pub(crate) channels: BTreeMap<Role, Vec<ChannelPolicy>>,
    pub(crate) count: usize,
}

impl Policies {
    /// Reads the text of a `policies.toml`. An empty one is good, and denies everything.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the lines. None of its policies may be used then: what is left
    /// of a wrong text can give more than the whole.
    pub fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        read::read(text)
    }

    /// How many `[[policy]]` there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none: then nobody may have anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What the bearer of a token with this role and these claims may have. Equal for equal policies, roles and claims,
    /// so that those who may have the same share the work.
    #[must_use]
    pub fn rights(&self, role: &str, claims: &Claims) -> Rights {
        let entries = self.of_role(role).into_iter();
        Rights::Granted(entries.map(|(pattern, policy)| (pattern.clone(), policy.grant(claims))).collect())
    }

    /// The channels that the bearer of a token with this role and these claims may be in.
    #[must_use]
    pub fn channel_rights(&self, role: &str, claims: &Claims) -> ChannelRights {
        let (own, of_every) = self.channels_of(role);
        ChannelRights::Granted(ChannelGrants::new(own, of_every, claims))
    }

    /// What each policy about channels that can count for `role` says of a channel, those of the role itself first. What
    /// those that count allow is what [`Policies::channel_rights`] gives.
    #[must_use]
    pub fn about_channel(&self, role: &str, claims: &Claims, channel: &str) -> Vec<ChannelSaying<'_>> {
        let (own, of_every) = self.channels_of(role);
        sayings(own, of_every, claims, channel)
    }

    /// How many patterns of channels policies name.
    #[must_use]
    pub fn channel_patterns(&self) -> usize {
        self.channels.values().map(Vec::len).sum()
    }

    fn channels_of(&self, role: &str) -> (&[ChannelPolicy], &[ChannelPolicy]) {
        let of = |role: Role| self.channels.get(&role).map_or(&[][..], Vec::as_slice);
        (of(Role::Named(role.to_owned())), of(Role::Every))
    }

    /// The one policy that decides what `role` may have of a table, with its pattern; `None` for nothing. It is the one
    /// that [`Policies::rights`] follows.
    #[must_use]
    pub fn deciding(&self, role: &str, table: &RelationName) -> Option<(TablePattern, &TablePolicy)> {
        let about = self.of_role(role).into_iter().filter(|(pattern, _)| pattern.matches(table));
        TablePattern::most_telling(about).map(|(pattern, policy)| (pattern.clone(), policy))
    }

    /// The policies that decide what anybody may have of a table, each once with its pattern, in the order in which they
    /// stand in the text.
    #[must_use]
    pub fn deciding_for_anybody(&self, table: &RelationName) -> Vec<(TablePattern, &TablePolicy)> {
        let name = |role: &Role| match role {
            Role::Named(name) => name.clone(),
            // Any that has no policies of its own; no role has an empty name.
            Role::Every => String::new(),
        };
        let deciding = self.roles.keys().filter_map(|role| self.deciding(&name(role), table));
        let mut found: Vec<(TablePattern, &TablePolicy)> = deciding.collect();
        found.sort_by_key(|(_, policy)| policy.place.policy);
        found.dedup_by_key(|(_, policy)| policy.place.policy);
        found
    }

    /// What each policy names, once for each role, with the policy, in the order in which they stand in the text.
    #[must_use]
    pub fn patterns(&self) -> Vec<(&TablePattern, &TablePolicy)> {
        let all = self.roles.values().flatten().map(|(pattern, policy)| (pattern, &**policy));
        let mut patterns: Vec<_> = all.collect();
        patterns.sort_by_key(|(pattern, policy)| (policy.place.policy, *pattern));
        patterns
    }

    /// The policies that can count for a role: its own, and those of every role where no own one says anything.
    fn of_role(&self, role: &str) -> BTreeMap<&TablePattern, &TablePolicy> {
        let own = self.roles.get(&Role::Named(role.to_owned()));
        let said = |pattern| own.is_some_and(|own| own.keys().any(|own| own.covers(pattern)));
        let every = self.roles.get(&Role::Every).into_iter().flatten();
        let left = every.filter(|(pattern, _)| !said(pattern));
        let own = own.into_iter().flatten();
        own.chain(left).map(|(pattern, policy)| (pattern, &**policy)).collect()
    }
}
