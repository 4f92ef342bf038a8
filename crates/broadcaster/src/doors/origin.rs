//! Which web pages may connect: a browser opens a WebSocket for any page, and says for which (RFC 6455 section 10.2).

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use walcast_protocol::ErrorCode;

use super::health;
use super::peer::{Arrival, Proxies};
use crate::metrics as names;

/// The pages that may connect beside those of walcast's own host.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins {
    /// In lower case; `*` for all.
    allowed: Vec<String>,
}

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().map(|origin| origin.to_ascii_lowercase()).collect() }
    }

    /// Whether the request may go on: it is from no page, from one that is allowed, or from one of the same host.
    ///
    /// `anybody` is let in without a token: then the same host only counts under a name that nobody else can have. A page of
    /// `evil.example` could be told that `evil.example` is this machine, and would be of the same host.
    pub(super) fn allow(
        &self,
        headers: &HeaderMap,
        arrival: &Arrival,
        proxies: &Proxies,
        anybody: bool,
    ) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let origin = match (origins.next(), origins.next()) {
            (None, _) => return true,
            (Some(origin), None) => origin.to_str().unwrap_or_default().to_ascii_lowercase(),
            (Some(_), Some(_)) => return false,
        };
        if self.allowed.iter().any(|allowed| allowed == "*" || *allowed == origin) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let Some(host) = proxies.host(arrival, headers).map(str::to_ascii_lowercase) else { return false };
        let is_secure = match scheme {
            "https" => true,
            // A page that anybody on the way could have changed.
            "http" => !proxies.is_secure(arrival, headers),
            _ => false,
        };
        let port = if scheme == "https" { ":443" } else { ":80" };
        let same = authority.trim_end_matches(port) == host.trim_end_matches(port);
        is_secure && same && (!anybody || is_own_name(authority))
    }
}

impl Origins {
    /// Whether a request without `Origin` may be from somebody who is no page. A browser sends none with a `GET` of a page's
    /// own host, and a page of `evil.example` could be told that `evil.example` is this machine. So where `anybody` is let
    /// in, a host that the internet has names for has to be one of those that are allowed.
    pub(super) fn allow_host(
        &self,
        headers: &HeaderMap,
        arrival: &Arrival,
        proxies: &Proxies,
        anybody: bool,
    ) -> bool {
        if !anybody || headers.contains_key(header::ORIGIN) {
            return true;
        }
        let Some(host) = proxies.host(arrival, headers).map(str::to_ascii_lowercase) else { return true };
        let allows = |allowed: &String| {
            allowed == "*" || allowed.split_once("://").is_some_and(|(_, authority)| authority == host)
        };
        is_own_name(&host) || is_private_name(&host) || self.allowed.iter().any(allows)
    }
}

/// Whether no public name server has the name: one without a dot, or under a domain that is for private networks.
fn is_private_name(authority: &str) -> bool {
    let host = authority.split(':').next().unwrap_or_default();
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.rsplit_once('.') {
        None => true,
        Some((_, domain)) => {
            ["localhost", "local", "internal", "lan", "home", "svc", "test"].contains(&domain)
        }
    }
}

/// The answer to a page that may not connect.
pub(super) fn refused() -> Response {
    metrics::counter!(names::UNAUTHORIZED, "reason" => "origin").increment(1);
    let hint = "add its origin to allowed_origins; behind a proxy, pass the header Host on";
    health::refused(
        StatusCode::FORBIDDEN,
        &ErrorCode::Forbidden,
        "pages of this origin may not connect",
        Some(hint),
    )
}

/// Whether the host is an address, or a name of this machine alone.
fn is_own_name(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::Origins;
    use crate::doors::peer::{Arrival, Peer, Proxies};

    fn allow(allowed: &[&str], is_secure: bool, anybody: bool, lines: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        let arrival = Arrival { peer: Peer::Local, is_secure, is_admin: false };
        let proxies = Proxies::new(vec!["unix".parse().unwrap()]);
        Origins::new(&allowed).allow(&headers, &arrival, &proxies, anybody)
    }

    #[test]
    fn a_page_of_another_host_is_refused_unless_it_is_allowed() {
        let plain = |lines: &[(&'static str, &str)]| allow(&["https://app.example"], false, false, lines);
        assert!(plain(&[("host", "a.example")]));
        assert!(plain(&[("host", "a.example"), ("origin", "http://a.example")]));
        assert!(plain(&[("host", "a.example:80"), ("origin", "http://A.example")]));
        assert!(plain(&[("host", "a.example"), ("origin", "https://app.example")]));
        for origin in [
            "http://b.example",
            "http://a.example:81",
            "null",
            "",
            "ftp://a.example",
            "https://app.example.evil",
        ] {
            assert!(!plain(&[("host", "a.example"), ("origin", origin)]), "{origin:?}");
        }
        assert!(!plain(&[("host", "a.example"), ("origin", "http://a.example"), ("origin", "http://evil")]));
        assert!(!plain(&[("origin", "http://a.example")]));
        assert!(allow(&["*"], false, true, &[("host", "a"), ("origin", "null")]));
    }

    #[test]
    fn behind_tls_a_page_without_it_is_another_one() {
        let lines = [("host", "a.example"), ("origin", "http://a.example")];
        assert!(!allow(&[], true, false, &lines));
        assert!(!allow(&[], false, false, &[lines[0], lines[1], ("x-forwarded-proto", "https")]));
        assert!(allow(&[], true, false, &[lines[0], ("origin", "https://a.example:443")]));
        let behind =
            [("host", "upstream"), ("origin", "https://a.example"), ("x-forwarded-host", "a.example")];
        assert!(allow(&[], false, false, &behind));
    }

    #[test]
    fn without_tokens_a_name_that_may_lead_here_is_not_enough() {
        assert!(!allow(&[], false, true, &[("host", "evil:4700"), ("origin", "http://evil:4700")]));
        for host in ["localhost:4700", "127.0.0.1:4700", "[::1]:4700"] {
            assert!(
                allow(&[], false, true, &[("host", host), ("origin", &format!("http://{host}"))]),
                "{host}"
            );
        }
    }
}
