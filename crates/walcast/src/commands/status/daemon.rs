//! What the running daemon says of itself.

mod answer;
#[cfg(test)]
mod tests;

use serde::{Serialize, Serializer};
use serde_json::Value;
use walcast_model::FeedId;

use crate::output::{foreign, foreign_up_to};
use answer::Answer;

/// Reasons of a daemon that are shown.
const REASONS_MAX: usize = 10;
/// Characters of one: what happened, and at its end what to do.
pub(super) const REASON_CHARACTERS_MAX: usize = 600;

/// Who is at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Listener {
    /// Nobody listens there.
    #[default]
    Nobody,
    /// Somebody who does not answer.
    Silent,
    /// Another program.
    Stranger,
    /// A walcast.
    Walcast,
}

/// The walcast that listens at an address, as `GET /readyz` tells.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub(crate) struct Daemon {
    /// Where it was looked for.
    pub(crate) address: String,
    /// Who is there; for programs, whether it is a walcast.
    #[serde(rename = "reachable", serialize_with = "is_walcast")]
    pub(crate) listener: Listener,
    /// Whether it is ready: the initial poll is done.
    pub(crate) ready: bool,
    /// Whether it serves the feed that was asked about; absent where one of the two is not known.
    pub(crate) same_feed: Option<bool>,
    /// What it said, as it said it. Strangers are told whether it is ready and nothing else.
    pub(crate) report: Option<Value>,
    /// Why it could not be asked, or what it waits for.
    pub(crate) problem: Option<String>,
}

fn is_walcast<S: Serializer>(listener: &Listener, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(*listener == Listener::Walcast)
}

impl Daemon {
    /// Asks whoever listens at `listen`, in HTTP or HTTPS; an address that stands for all interfaces is asked on the
    /// loopback one. A URL is good for its host and port.
    pub(crate) async fn ask(listen: &str) -> Self {
        let place =
            listen.split_once("://").map_or(listen, |(_, rest)| rest.split('/').next().unwrap_or(rest));
        let address = place.replacen("0.0.0.0:", "127.0.0.1:", 1).replacen("[::]:", "[::1]:", 1);
        let answer = Answer::of(&address).await;
        let asked = Self { address, ..Self::default() };
        match answer {
            Answer::Said(bytes) => asked.told(&bytes),
            Answer::Silence(why) => Self { listener: Listener::Silent, problem: Some(why), ..asked },
            Answer::Nobody(why) => Self { problem: Some(why), ..asked },
        }
    }

    /// With what was answered.
    fn told(self, answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let stranger = |what: &str| Self {
            listener: Listener::Stranger,
            problem: Some(format!("another program answers{what}")),
            ..self.clone()
        };
        if !text.starts_with("HTTP/") {
            return stranger(", which does not speak HTTP");
        }
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let is_ok = head.split_whitespace().nth(1) == Some("200");
        let said: Value = serde_json::from_str(body).unwrap_or_default();
        if said["ready"].is_boolean() {
            return Self { listener: Listener::Walcast, ready: is_ok, report: Some(said), ..self };
        }
        // So answers one whose feed is not set up yet.
        if said["code"] == "not_ready" {
            let words = [&said["message"], &said["hint"]].into_iter().filter_map(Value::as_str).map(foreign);
            let problem = words.collect::<Vec<_>>().join("; ");
            return Self { listener: Listener::Walcast, problem: Some(problem), ..self };
        }
        stranger("")
    }

    /// Something it said, by its place: `/feed/id`.
    pub(super) fn said(&self, place: &str) -> Option<&Value> {
        self.report.as_ref()?.pointer(place)
    }

    /// The id of the feed that it serves, where it tells.
    pub(crate) fn feed(&self) -> Option<FeedId> {
        self.said("/feed/id")?.as_str()?.parse().ok()
    }

    /// Whether it lets nobody in any more; `None` where it does not tell whether it has done so before.
    pub(super) fn is_stopping(&self) -> Option<bool> {
        let gate = self.said("/gate").and_then(Value::as_str);
        // What is not set up yet has no report.
        if self.report.is_some() { gate.map(|gate| gate == "open" && !self.ready) } else { Some(false) }
    }

    /// What is wrong, or waited for, in its own words.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> {
        let reasons = self.said("/reasons").and_then(Value::as_array).into_iter().flatten();
        let texts = reasons.filter_map(Value::as_str).take(REASONS_MAX);
        texts.map(|reason| foreign_up_to(reason, REASON_CHARACTERS_MAX))
    }

    /// Whether it has lost its source, or could not come by it.
    pub(super) fn is_interrupted(&self) -> bool {
        self.said("/source/state").and_then(Value::as_str) == Some("interrupted")
    }

    /// Whether what it names as reasons is wrong: one that comes or goes names that it does.
    pub(super) fn complains(&self) -> bool {
        self.ready || self.is_interrupted()
    }

    /// Where it says more than whether it is ready, to those who were not told.
    pub(super) fn elsewhere(&self) -> &'static str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let is_own = self.address.starts_with("unix:") || ["127.0.0.1", "[::1]", "localhost"].contains(&host);
        // One without a listener for operators answers its own machine.
        if is_own {
            "it says more where its setting admin_listen says: name that address with --daemon"
        } else {
            "it says more where its setting admin_listen says (name that address with --daemon), or without one on its own \
             machine"
        }
    }

    /// Who listens there, for those who wanted to listen there themselves.
    pub(crate) fn who(&self) -> String {
        let problem = self.problem.as_deref().unwrap_or_default();
        match (self.listener, self.feed()) {
            (Listener::Walcast, Some(feed)) => format!("another walcast listens there, with feed {feed}"),
            (Listener::Walcast, None) if self.report.is_some() => "another walcast listens there".to_owned(),
            (Listener::Walcast, None) => {
                format!("another walcast listens there, which is not set up: {problem}")
            }
            (Listener::Silent | Listener::Stranger, _) => {
                format!("what listens there does not answer as a walcast ({problem})")
            }
            (Listener::Nobody, _) => format!("it is taken, though nobody listens there ({problem})"),
        }
    }
}
