//! What keeps the daemon from answering, as a client is told that does not wait for it.

use walcast_feed::{Cause, Outages, SourceState};
use walcast_history::NOT_WRITTEN;
use walcast_protocol::ErrorCode;

use crate::past::Away;
use crate::reading::NOT_READ;
use crate::refusal::Refusal;
use crate::session::World;

/// What a client can do about it.
const ASK_AGAIN: &str = "ask again after a few seconds, from the same cursor: nothing is lost; if that does not help, whoever runs \
                         walcast finds the cause in its log and in GET /readyz";

/// What does not work, with since when where that is known, and why.
struct Down {
    what: String,
    cause: String,
}

impl Down {
    fn of(outages: &Outages, effect: &str) -> Option<Self> {
        let (lasts, Cause { message, .. }) = outages.of(effect)?;
        Some(Self { what: format!("{effect}, for {} s now", lasts.as_secs()), cause: message })
    }
}

/// What is asked for needs a database that is away.
pub(crate) fn away(away: Away, outages: &Outages) -> Refusal {
    let Away { effect, cause } = away;
    let down = Down::of(outages, effect).unwrap_or(Down { what: effect.to_owned(), cause: cause.message });
    refusal("what is asked for cannot be had", vec![down])
}

/// What was asked for has not come in time, or does not come before the gate is open. `late`: what is said of it then.
pub(crate) fn late(late: &str, world: &World) -> Refusal {
    let (feed, is_open) = (&world.feed, world.gate.is_open());
    let source = match &*feed.source().borrow() {
        SourceState::Interrupted { reason, .. } => {
            Some(Down { what: "the source is not read".to_owned(), cause: reason.clone() })
        }
        SourceState::Starting | SourceState::Streaming => None,
    };
    let history = [NOT_READ, NOT_WRITTEN].into_iter().filter(|effect| !is_open || *effect == NOT_READ);
    let down =
        source.into_iter().chain(history.filter_map(|effect| Down::of(feed.outages(), effect))).collect();
    let starting =
        "the daemon is starting, and answers once everything that was committed before is in its history";
    refusal(if is_open { late } else { starting }, down)
}

fn refusal(what: &str, down: Vec<Down>) -> Refusal {
    let (mut message, mut causes) = (what.to_owned(), Vec::new());
    for (index, Down { what, cause }) in down.into_iter().enumerate() {
        message += if index == 0 { ": " } else { "; " };
        message += &what;
        if !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    let refusal = Refusal::new(ErrorCode::NotReady, message).hint(ASK_AGAIN);
    Refusal { cause: (!causes.is_empty()).then(|| causes.join("; ").into()), ..refusal }
}

#[cfg(test)]
mod tests {
    use walcast_feed::{Cause, Outages};

    use super::{NOT_READ, away};
    use crate::past::Away;

    #[test]
    fn everybody_is_told_what_is_away_and_why_only_who_may_know_everything() {
        let cause =
            Cause { message: "cannot reach Postgres at inner:5432".into(), hint: Some("inner".into()) };
        let (gone, outages) = (Away { effect: NOT_READ, cause: cause.clone() }, Outages::default());
        let what = "what is asked for cannot be had: history is not read";
        assert_eq!(away(gone.clone(), &outages).told(false).message, what);
        let mut outage = outages.part(NOT_READ);
        outage.begin(cause.message, cause.hint);
        let refusal = away(gone, &outages);
        let bounded = refusal.clone().told(false);
        assert_eq!(bounded.message, format!("{what}, for 0 s now"));
        assert!(!format!("{bounded:?}").replace("is_of_inside", "").contains("inner"), "{bounded:?}");
        let everything = refusal.told(true);
        assert_eq!(everything.message, format!("{what}, for 0 s now: cannot reach Postgres at inner:5432"));
        assert!(everything.hint.is_some_and(|hint| hint.contains("ask again after a few seconds")));
    }
}
