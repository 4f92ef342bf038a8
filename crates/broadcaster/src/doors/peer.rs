//! Who is at the other end of a connection, and for whom a proxy speaks.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::HeaderMap;

/// The other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Peer {
    Address(IpAddr),
    /// A process of this machine, over a Unix socket.
    Local,
}

/// What a request came in by; every request has it among its extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) peer: Peer,
    /// Whether it came over TLS.
    pub(super) is_secure: bool,
    /// Whether the listener is one for operators.
    pub(super) is_admin: bool,
}

/// A proxy whose word is taken for who its clients are: an address, a network (`10.0.0.0/8`), or `unix` for whoever
/// connects over a Unix socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrustedProxy(Trusted);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trusted {
    Network { address: IpAddr, bits: u32 },
    Local,
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || "expected an address, a network such as 10.0.0.0/8, or unix".to_owned();
        if text == "unix" {
            return Ok(Self(Trusted::Local));
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most { Err(error()) } else { Ok(Self(Trusted::Network { address, bits })) }
    }
}

impl TrustedProxy {
    fn is(&self, peer: Peer) -> bool {
        match (self.0, peer) {
            (Trusted::Local, Peer::Local) => true,
            (Trusted::Network { address, bits }, Peer::Address(peer)) => {
                match (address.to_canonical(), peer.to_canonical()) {
                    (IpAddr::V4(network), IpAddr::V4(peer)) => {
                        let differing = network.to_bits() ^ peer.to_bits();
                        differing.leading_zeros() >= bits
                    }
                    (IpAddr::V6(network), IpAddr::V6(peer)) => {
                        let differing = network.to_bits() ^ peer.to_bits();
                        differing.leading_zeros() >= bits
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

/// What those who say it are taken to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies(Vec<TrustedProxy>);

impl Proxies {
    pub(super) const fn new(trusted: Vec<TrustedProxy>) -> Self {
        Self(trusted)
    }

    pub(super) fn trust(&self, peer: Peer) -> bool {
        self.0.iter().any(|proxy| proxy.is(peer))
    }

    /// For whom a request is: its peer, or whom a trusted proxy names. `X-Forwarded-For` is read from its end, because each
    /// proxy appends whom it saw; what stands before the first one that is not trusted anybody could have written.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let mut client = peer;
        let values: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        for entry in values.iter().rev().flat_map(|value| value.rsplit(',')) {
            if !self.trust(client) {
                break;
            }
            let Some(address) = address(entry.trim()) else { break };
            client = Peer::Address(address);
        }
        client
    }

    /// Whether the client's own connection is over TLS, as far as that is known.
    pub(super) fn is_secure(&self, arrival: &Arrival, headers: &HeaderMap) -> bool {
        let forwarded = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
        match forwarded {
            Some(scheme) if self.trust(arrival.peer) => {
                scheme.rsplit(',').next().is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
            }
            _ => arrival.is_secure,
        }
    }

    /// The host that the client asked for.
    pub(super) fn host<'a>(&self, arrival: &Arrival, headers: &'a HeaderMap) -> Option<&'a str> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let forwarded = text("x-forwarded-host").filter(|_| self.trust(arrival.peer));
        forwarded.and_then(|hosts| hosts.rsplit(',').next()).map(str::trim).or_else(|| text("host"))
    }
}

/// An entry of `X-Forwarded-For`; some proxies write the port too.
fn address(entry: &str) -> Option<IpAddr> {
    let with_port = || entry.parse().map(|address: std::net::SocketAddr| address.ip());
    entry.parse().or_else(|_| with_port()).ok()
}

/// Whether a proxy says that it passes the request on for somebody.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    const SIGNS: [&str; 6] =
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "forwarded", "via"];
    SIGNS.iter().any(|name| headers.contains_key(*name))
}

impl Peer {
    /// Under what its connections are counted: the address, of IPv6 the network that one subscriber has (/64). `None` for
    /// this machine's own processes.
    pub(super) fn block(self) -> Option<IpAddr> {
        match self {
            Self::Local => None,
            Self::Address(address) => Some(match address.to_canonical() {
                IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
                address => address,
            }),
        }
    }

    /// Whether it is on this machine.
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Local => true,
            Self::Address(address) => address.to_canonical().is_loopback(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{Peer, Proxies};

    fn peer(text: &str) -> Peer {
        Peer::Address(text.parse().unwrap())
    }

    fn client(trusted: &[&str], from: Peer, forwarded: &[&str]) -> Peer {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(value).unwrap());
        }
        Proxies::new(trusted.iter().map(|text| text.parse().unwrap()).collect()).client(from, &headers)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed_and_only_what_it_saw_itself() {
        let proxy = peer("10.1.2.3");
        assert_eq!(client(&[], proxy, &["1.1.1.1"]), proxy);
        assert_eq!(client(&["10.0.0.0/8"], peer("11.1.2.3"), &["1.1.1.1"]), peer("11.1.2.3"));
        assert_eq!(client(&["10.0.0.0/8"], proxy, &[]), proxy);
        assert_eq!(client(&["10.0.0.0/8"], proxy, &["9.9.9.9, 1.1.1.1"]), peer("1.1.1.1"));
        assert_eq!(client(&["10.0.0.0/8"], proxy, &["9.9.9.9", "1.1.1.1, 10.9.9.9"]), peer("1.1.1.1"));
        assert_eq!(client(&["10.0.0.0/8"], proxy, &["9.9.9.9, nonsense"]), proxy);
        assert_eq!(client(&["10.0.0.0/8"], proxy, &["1.1.1.1:443"]), peer("1.1.1.1"));
        assert_eq!(client(&["unix"], Peer::Local, &["[2001:db8::1]:9"]), peer("2001:db8::1"));
        assert_eq!(client(&["::1", "10.0.0.0/8"], peer("::ffff:10.0.0.1"), &["1.1.1.1"]), peer("1.1.1.1"));
        assert_eq!(client(&["0.0.0.0/0"], proxy, &["10.0.0.1, 10.0.0.2"]), peer("10.0.0.1"));
    }

    #[test]
    fn addresses_of_one_subscriber_are_counted_together() {
        assert_eq!(peer("2001:db8:0:1::5").block(), peer("2001:db8:0:1:ffff::").block());
        assert_ne!(peer("2001:db8:0:1::5").block(), peer("2001:db8:0:2::5").block());
        assert_eq!(peer("::ffff:1.2.3.4").block(), peer("1.2.3.4").block());
        assert_ne!(peer("1.2.3.4").block(), peer("1.2.3.5").block());
        assert_eq!(Peer::Local.block(), None);
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "localhost", "1.2.3.4/x"] {
            assert!(text.parse::<super::TrustedProxy>().is_err(), "{text:?}");
        }
    }
}
