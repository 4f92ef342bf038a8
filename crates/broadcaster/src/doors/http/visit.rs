//! A client for the time of one request.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use walcast_policy::Policies;

use super::answer::{self, Refused};
use crate::access::{Authority, Pass};
use crate::doors::Door;
use crate::doors::entrance::{Whose, token};
use crate::doors::pace::{SharedPace, TooFast};
use crate::doors::patience::Patience;
use crate::doors::peer::Arrival;
use crate::doors::places::Places;
use crate::doors::stranger::{Farewell, count_user};
use crate::doors::tally::{Counted, Tally};
use crate::metrics as names;
use crate::turns::Applicant;

/// How long a request that comes too fast is held back; one that would have to wait for longer is refused.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);
/// How a token comes with a request.
const HOW: &str = "send it as Authorization: Bearer, or as ?token= in the URL";

/// A client that was let in, and what it is counted in.
pub(super) struct Visit {
    pub(super) pass: Pass,
    /// In whose line it stands.
    pub(super) applicant: Applicant,
    /// Tells when policies have changed since it was let in.
    pub(super) policies: Option<watch::Receiver<Arc<Policies>>>,
    pub(super) patience: Patience,
    pub(super) presence: Arc<Presence>,
    untaken: Tally<Whose>,
    untaken_bytes_max: usize,
}

/// What a client is counted in, until dropped.
pub(super) struct Presence {
    _user: Option<Counted<Arc<str>>>,
    places: Places,
}

/// A client that has yet to take its answer.
pub(super) struct Held {
    _presence: Arc<Presence>,
    _bytes: Counted<Whose>,
}

impl Visit {
    /// Lets the client of a request in.
    pub(super) async fn admit(
        door: &Door,
        arrival: &Arrival,
        (pace, patience): (&SharedPace, Patience),
        headers: &HeaderMap,
        query: Option<&str>,
    ) -> Result<Self, Refused> {
        let places = Places::take(door, arrival, headers)?;
        let (entrance, limits) = (&door.entrance, door.broadcaster.limits());
        let policies = entrance.authority.changes();
        let admitted = entrance.authority.admit(token(headers, query).as_deref());
        let pass = match admitted {
            Ok(Some(pass)) => pass,
            Ok(None) => {
                let farewell = Farewell::unauthorized("missing", "there is no token", Some(HOW));
                return Err(answer::farewell(farewell));
            }
            Err(rejection) => return Err(answer::farewell(Farewell::rejected(&rejection))),
        };
        let user = count_user(entrance, &pass, limits).map_err(answer::farewell)?;
        let now = Instant::now();
        let until = now + HELD_BACK_MAX;
        let free_at = match pass.user() {
            Some(user) => entrance.paces.try_take(user, limits.requests_per_second_max, now, until),
            None => pace.try_take(now, until),
        };
        let free_at = free_at.map_err(|TooFast| {
            too_fast("refused");
            let message = "too many requests in a second (requests_per_second_max)";
            answer::too_many(message, "ask less often, or let the request wait with wait=")
        })?;
        if let Some(free_at) = free_at {
            too_fast("later");
            sleep_until(free_at).await;
        }
        let applicant = match pass.user() {
            Some(user) => Applicant::User(Arc::from(user)),
            None => Applicant::Connection(entrance.number()),
        };
        let presence = Arc::new(Presence { _user: user, places });
        let (untaken, untaken_bytes_max) = (entrance.untaken.clone(), limits.untaken_bytes_max);
        Ok(Self { pass, applicant, policies, patience, presence, untaken, untaken_bytes_max })
    }

    /// Its answer has so many bytes, which it is waited for to take: until its token expires, and no longer than for anybody.
    pub(super) fn hold(self, bytes: usize) -> Result<Held, Refused> {
        let whose = match (self.pass.user(), self.presence.places.address()) {
            (Some(user), _) => Whose::User(Arc::from(user)),
            (None, Some(address)) => Whose::Address(address),
            (None, None) => Whose::Local,
        };
        // One by itself is always given.
        let bytes = bytes.min(self.untaken_bytes_max);
        let held = self.untaken.add(whose, bytes, self.untaken_bytes_max).ok_or_else(|| {
            let message = "there is too much that was asked for and is not read (untaken_bytes_max)";
            answer::too_many(message, "read what is answered before you ask for more")
        })?;
        self.patience.for_answer(self.ends_at());
        Ok(Held { _presence: self.presence, _bytes: held })
    }

    /// Whether it may have what it could when it was let in, as far as policies say now.
    pub(super) fn is_granted_the_same(&self, authority: &Authority) -> bool {
        !authority.review(&mut self.pass.clone())
    }

    /// When it is no longer let in; `None`: never.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.pass.left().and_then(|left| Instant::now().checked_add(left))
    }

    /// Why it ends then; `None` when by its clock it does not yet.
    pub(super) fn expired(&self) -> Option<Farewell> {
        let is_over = self.pass.left().is_some_and(|left| left.is_zero());
        is_over.then(|| {
            Farewell::unauthorized(
                "expired_connected",
                "the token has expired",
                Some("come with another one"),
            )
        })
    }
}

fn too_fast(effect: &'static str) {
    let limit = "requests_per_second_max";
    metrics::counter!(names::TOO_FAST, "limit" => limit, "effect" => effect).increment(1);
}

/// Waits for a moment; for ever when there is none.
pub(super) async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
