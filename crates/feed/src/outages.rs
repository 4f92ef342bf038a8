//! What parts of the daemon are kept from their work at the moment, beside the source: as told to operators.
//!
//! ```text
//!  Outage (one for each part) ──begin──► Outages ──► /readyz: all that are out now, each by its present cause
//!         └──end──► how long it was, for the log
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Why a part does not do its work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// What happened, for people.
    pub message: String,
    /// What a person can do about it, where something has to be done.
    pub hint: Option<String>,
}

/// Which parts are out, and why. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    // Held for short synchronous sections only: parts come and go, and whoever asks copies some lines.
    causes: Arc<Mutex<BTreeMap<&'static str, (Instant, Cause)>>>,
}

/// One part of the daemon, which says when it is kept from its work and when it works again. Dropped, it is not out.
#[derive(Debug)]
pub struct Outage {
    all: Outages,
    effect: &'static str,
    since: Option<Instant>,
}

impl Outages {
    /// The part of which `effect` is told when it is out: a sentence that a cause follows, as in "history is not written".
    /// There is one for an effect.
    #[must_use]
    pub fn part(&self, effect: &'static str) -> Outage {
        Outage { all: self.clone(), effect, since: None }
    }

    /// What is out now, in the order of the effects, each with its present cause.
    #[must_use]
    pub fn now(&self) -> Vec<(&'static str, Cause)> {
        self.causes().iter().map(|(effect, (_, cause))| (*effect, cause.clone())).collect()
    }

    /// For how long the part of this effect has been out, and its present cause; `None` when it is not.
    #[must_use]
    pub fn of(&self, effect: &str) -> Option<(Duration, Cause)> {
        self.causes().get(effect).map(|(since, cause)| (since.elapsed(), cause.clone()))
    }

    fn causes(&self) -> MutexGuard<'_, BTreeMap<&'static str, (Instant, Cause)>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outage {
    /// It is kept from its work by this. The cause that was told before counts no more. Whether it was not out before.
    pub fn begin(&mut self, message: String, hint: Option<String>) -> bool {
        let is_first = self.since.is_none();
        let since = *self.since.get_or_insert_with(Instant::now);
        self.all.causes().insert(self.effect, (since, Cause { message, hint }));
        is_first
    }

    /// It works. How long it did not; `None` when it was not out.
    pub fn end(&mut self) -> Option<Duration> {
        let since = self.since.take()?;
        self.all.causes().remove(self.effect);
        Some(since.elapsed())
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Outages;

    #[tokio::test(start_paused = true)]
    async fn what_is_out_is_told_by_its_present_cause_until_it_works_again() {
        let outages = Outages::default();
        let (mut history, mut barriers) = (outages.part("history"), outages.part("barriers"));
        assert_eq!(history.end(), None);
        history.begin("first".into(), None);
        tokio::time::advance(Duration::from_secs(3)).await;
        history.begin("second".into(), Some("do this".into()));
        let (lasts, cause) = outages.of("history").unwrap();
        assert_eq!((lasts, cause.message.as_str()), (Duration::from_secs(3), "second"));
        barriers.begin("standby".into(), None);
        let now = outages.now();
        let told: Vec<_> = now.iter().map(|(effect, cause)| (*effect, cause.message.as_str())).collect();
        assert_eq!(told, [("barriers", "standby"), ("history", "second")]);
        assert_eq!(now[1].1.hint.as_deref(), Some("do this"));
        assert_eq!(history.end(), Some(Duration::from_secs(3)));
        assert_eq!(outages.of("history"), None);
        assert_eq!((history.end(), outages.now().len()), (None, 1));
        drop(barriers);
        assert_eq!(outages.now(), []);
    }
}
