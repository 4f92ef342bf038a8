//! What is looked at before somebody is let in, and who is counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::{HeaderMap, header};
use tokio::sync::watch;
use walcast_policy::Policies;

use super::origin::Origins;
use super::pace::Paces;
use super::peer::{Arrival, Peer, Proxies, TrustedProxy, is_forwarded};
use super::tally::{Counted, Tally};
use crate::access::Authority;

/// Who may come in; see the fields.
#[derive(Clone, Debug)]
pub struct EntranceSettings {
    /// Who decides about clients.
    pub authority: Authority,
    /// `allowed_origins`: web pages that may connect, beside those of the same host; `*` for all.
    pub allowed_origins: Vec<String>,
    /// `trusted_proxies`: whose `X-Forwarded-For`, `-Proto` and `-Host` are believed.
    pub trusted_proxies: Vec<TrustedProxy>,
}

impl EntranceSettings {
    /// Everybody, as far as there is a place.
    #[must_use]
    pub const fn open() -> Self {
        Self { authority: Authority::Open, allowed_origins: Vec::new(), trusted_proxies: Vec::new() }
    }
}

/// What the doors have in common. One for all of them.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) authority: Authority,
    pub(super) origins: Origins,
    pub(super) proxies: Proxies,
    /// Connections, whatever they become.
    knocking: Tally<IpAddr>,
    /// WebSockets, and requests for the feed.
    addresses: Tally<IpAddr>,
    pub(super) users: Tally<Arc<str>>,
    /// Bytes of answers that were not taken yet.
    pub(super) untaken: Tally<Whose>,
    /// How fast users may ask.
    pub(super) paces: Paces,
    /// How much users may have others told in channels.
    pub(super) fan_out: Paces,
    /// Operators have a listener of their own.
    has_admin: bool,
    next_connection: AtomicU64,
}

/// Whom answers are for: the user, where it is known, else whoever comes from there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Whose {
    User(Arc<str>),
    Address(IpAddr),
    /// Somebody who came by a Unix socket.
    Local,
}

/// There are too many of the same address.
#[derive(Debug)]
pub(super) struct Full;

impl Entrance {
    pub(super) fn new(settings: EntranceSettings, has_admin: bool) -> Self {
        Self {
            origins: Origins::new(&settings.allowed_origins),
            proxies: Proxies::new(settings.trusted_proxies),
            authority: settings.authority,
            knocking: Tally::default(),
            addresses: Tally::default(),
            users: Tally::default(),
            untaken: Tally::default(),
            paces: Paces::default(),
            fan_out: Paces::default(),
            has_admin,
            next_connection: AtomicU64::new(0),
        }
    }

    /// Counts a connection of which nothing is known but its other end; proxies come for many.
    pub(super) fn knock(&self, peer: Peer, max: usize) -> Result<Option<Counted<IpAddr>>, Full> {
        match peer.block() {
            Some(block) if !self.proxies.trust(peer) => self.knocking.enter(block, max).map(Some).ok_or(Full),
            _ => Ok(None),
        }
    }

    /// Counts a WebSocket, or a request for the feed, by whom it is for.
    pub(super) fn enter(
        &self,
        arrival: &Arrival,
        headers: &HeaderMap,
        max: usize,
    ) -> Result<Option<Counted<IpAddr>>, Full> {
        match self.proxies.client(arrival.peer, headers).block() {
            Some(block) => self.addresses.enter(block, max).map(Some).ok_or(Full),
            None => Ok(None),
        }
    }

    /// A name for one more connection.
    pub(super) fn number(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a request may be told how the daemon is doing: by the listener for operators, else when there is no
    /// authentication, or when it comes from this machine and nobody passes it on.
    pub(super) fn tells(&self, arrival: &Arrival, headers: &HeaderMap) -> bool {
        let is_own = arrival.peer.is_local() && !is_forwarded(headers);
        arrival.is_admin || (!self.has_admin && (self.authority.is_open() || is_own))
    }
}

/// Waits until policies change; for ever when there are none.
pub(super) async fn changed(policies: Option<&mut watch::Receiver<Arc<Policies>>>) {
    // Without its sender they never do.
    if let Some(policies) = policies
        && policies.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// The token of a request: of its header `Authorization: Bearer`, else of its query, `?token=`.
pub(super) fn token(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // Another scheme is for a proxy on the way.
    let bearer = header
        .map(|value| value.split_once(' ').unwrap_or((value, "")))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    let mut asked = pairs.filter_map(|pair| pair.strip_prefix("token="));
    bearer.or_else(|| asked.next().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::token;

    #[test]
    fn a_token_is_found_in_the_header_and_in_the_query() {
        let with = |value: &str, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            if !value.is_empty() {
                headers.insert("authorization", HeaderValue::from_str(value).unwrap());
            }
            token(&headers, query)
        };
        assert_eq!(with("", None), None);
        assert_eq!(with("", Some("x=1&token=a.b.c")), Some("a.b.c".to_owned()));
        assert_eq!(with("", Some("tokens=a")), None);
        assert_eq!(with("Bearer a.b.c", Some("token=d")), Some("a.b.c".to_owned()));
        assert_eq!(with("bearer  a.b.c", None), Some("a.b.c".to_owned()));
        assert_eq!(with("Bearer", None), Some(String::new()));
        assert_eq!(with("Basic abc", Some("token=d")), Some("d".to_owned()));
    }
}
