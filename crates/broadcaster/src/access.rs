//! Who is let in, and what they may have: what the doors ask.
//!
//! ```text
//!  token ──Verifier──► Identity ──role, claims──► Policies ──► Rights ──► every subscription of the connection
//! ```
//!
//! A pass is made here and nowhere else, so a connection that has one was let in.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use walcast_auth::{Identity, Rejection, Verifier};
use walcast_filter::Claims;
use walcast_policy::{ChannelRights, Policies, Rights};

/// Who decides who is let in. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Nobody: who reaches the doors may have all that is published.
    Open,
    /// Those with a token that is good, as far as policies grant them something.
    Tokens(Tokens),
}

/// What it takes to let in by token.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Says whether a token is good, and whose it is.
    pub verifier: Verifier,
    /// Say what its bearer may have; those in force now count, also for who is there already.
    pub policies: watch::Receiver<Arc<Policies>>,
    /// The role of those who come without a token, with no claims; `None`: they are not let in.
    pub anonymous_role: Option<Arc<str>>,
}

/// A client that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    bearer: Bearer,
    rights: Arc<Rights>,
    channels: ChannelRights,
}

#[derive(Clone, Debug)]
enum Bearer {
    /// Nobody asked.
    Anybody,
    /// Without a token.
    Anonymous(Arc<str>),
    Known {
        identity: Identity,
        /// How far clocks may be apart.
        leeway: Duration,
    },
}

/// Why another token was not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotRenewed {
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// What was sent already was for somebody else.
    #[error("the token is of another subject than the one before; open another connection for it")]
    AnotherSubject,
}

impl Authority {
    /// Lets a client in that shows this token, or none. `None`: it has to show one first.
    ///
    /// # Errors
    /// Why the token is refused.
    pub(crate) fn admit(&self, token: Option<&str>) -> Result<Option<Pass>, Rejection> {
        let bearer = match (self, token) {
            (Self::Open, _) => Bearer::Anybody,
            (Self::Tokens(tokens), Some(token)) => tokens.verify(token)?,
            (Self::Tokens(Tokens { anonymous_role: Some(role), .. }), None) => {
                Bearer::Anonymous(Arc::clone(role))
            }
            (Self::Tokens(_), None) => return Ok(None),
        };
        let (rights, channels) = self.rights(&bearer)?;
        Ok(Some(Pass { bearer, rights: Arc::new(rights), channels }))
    }

    /// Another token for a client that is let in. Whether its rights are others now.
    ///
    /// # Errors
    /// Why it is not taken; nothing has changed then.
    pub(crate) fn renew(&self, pass: &mut Pass, token: &str) -> Result<bool, NotRenewed> {
        let Self::Tokens(tokens) = self else { return Ok(false) };
        let bearer = tokens.verify(token)?;
        // Who was anonymous may say who it is.
        if let Bearer::Known { .. } = &pass.bearer
            && bearer.subject() != pass.bearer.subject()
        {
            return Err(NotRenewed::AnotherSubject);
        }
        let rights = self.rights(&bearer)?;
        pass.bearer = bearer;
        Ok(pass.take(rights))
    }

    /// Policies may have changed. Whether the client's rights have.
    pub(crate) fn review(&self, pass: &mut Pass) -> bool {
        match self.rights(&pass.bearer) {
            Ok(rights) => pass.take(rights),
            // Its claims could be read when it was let in.
            Err(_) => false,
        }
    }

    /// Tells when policies change; `None` when there are none.
    pub(crate) fn changes(&self) -> Option<watch::Receiver<Arc<Policies>>> {
        match self {
            Self::Open => None,
            Self::Tokens(tokens) => {
                let mut changes = tokens.policies.clone();
                changes.mark_unchanged();
                Some(changes)
            }
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    fn rights(&self, bearer: &Bearer) -> Result<(Rights, ChannelRights), Rejection> {
        let everything = (Rights::Everything, ChannelRights::Everything);
        let Self::Tokens(tokens) = self else { return Ok(everything) };
        let policies = Arc::clone(&tokens.policies.borrow());
        let (role, claims) = match bearer {
            Bearer::Anybody => return Ok(everything),
            Bearer::Anonymous(role) => (role.as_ref(), "{}"),
            Bearer::Known { identity, .. } => (identity.role(), identity.claims_json()),
        };
        let claims = Claims::parse(claims).map_err(|_| Rejection::Malformed)?;
        Ok((policies.rights(role, &claims), policies.channel_rights(role, &claims)))
    }
}

impl Tokens {
    fn verify(&self, token: &str) -> Result<Bearer, Rejection> {
        let identity = self.verifier.verify(token)?;
        Ok(Bearer::Known { identity, leeway: self.verifier.leeway() })
    }
}

impl Bearer {
    fn subject(&self) -> Option<&str> {
        match self {
            Self::Anybody | Self::Anonymous(_) => None,
            Self::Known { identity, .. } => identity.subject(),
        }
    }
}

impl Pass {
    fn take(&mut self, (rights, channels): (Rights, ChannelRights)) -> bool {
        let changed = *self.rights != rights || self.channels != channels;
        if changed {
            (self.rights, self.channels) = (Arc::new(rights), channels);
        }
        changed
    }

    /// The channels that it may be in.
    pub(crate) const fn channels(&self) -> &ChannelRights {
        &self.channels
    }

    pub(crate) const fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// The user, where the token says who that is.
    pub(crate) fn user(&self) -> Option<&str> {
        self.bearer.subject()
    }

    /// Of whom what it acknowledges is: empty where nobody asks who clients are; `None` where that is not known, since
    /// those who are not known could read and overwrite one another's.
    pub(crate) fn owner(&self) -> Option<&str> {
        match &self.bearer {
            Bearer::Anybody => Some(""),
            bearer => bearer.subject().filter(|subject| !subject.is_empty()),
        }
    }

    /// When its token expires, as the token says.
    pub(crate) fn expires_at(&self) -> Option<SystemTime> {
        match &self.bearer {
            Bearer::Anybody | Bearer::Anonymous(_) => None,
            Bearer::Known { identity, .. } => identity.expires_at(),
        }
    }

    /// How long it is still let in: while its token would be, should it come again. `None`: for ever.
    pub(crate) fn left(&self) -> Option<Duration> {
        let Bearer::Known { identity, leeway } = &self.bearer else { return None };
        let end = identity.expires_at()?.checked_add(*leeway)?;
        Some(end.duration_since(SystemTime::now()).unwrap_or_default())
    }
}
