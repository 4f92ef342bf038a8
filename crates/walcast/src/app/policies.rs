//! The policies in force: read at the start, and again on SIGHUP and when their file changes.
//!
//! The file is looked at every few seconds by its content, so that it does not matter how it is replaced: written in
//! place, renamed over, or by moving a symbolic link somewhere above it, as Kubernetes does. A new text counts when it
//! was the same twice: one that is being written may be right as far as it goes, and give more than the whole of it.
//!
//! A file that cannot be used changes nothing: the policies that were in force stay so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Outage, Outages};
use walcast_policy::{Mistake, Policies};

use crate::policy_file::{self, Unusable};

/// Counter: how often other policies came into force.
const RELOADS_TOTAL: &str = "walcast_policies_reloads_total";
/// Counter: how often the file could not be used, and the policies before it stayed in force.
const RELOAD_FAILURES_TOTAL: &str = "walcast_policies_reload_failures_total";
/// Gauge: 1 while other policies are in force than the file has, because it cannot be used; otherwise 0.
const STALE: &str = "walcast_policies_stale";

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Mistakes that are logged; the doctor shows all of them.
const LOGGED_MISTAKES_MAX: usize = 20;
/// What is told while other policies are in force than the file has.
const EFFECT: &str = "the file of policies cannot be used, and those before it stay in force";

/// Describes the metrics of this module to the recorder that is installed.
pub(crate) fn describe() {
    describe_counter!(RELOADS_TOTAL, "Times that other policies came into force");
    describe_counter!(RELOAD_FAILURES_TOTAL, "Times that the policies could not be used after a change");
    describe_gauge!(STALE, "1 while the policies in force are not those of the file");
}

/// The file of the policies and what is in force of it.
#[derive(Debug)]
pub(crate) struct PolicyFile {
    path: PathBuf,
    look_interval: Duration,
    in_force: watch::Sender<Arc<Policies>>,
}

/// What is known of the file: its text, or why it could not be read.
type Seen = Result<String, String>;

impl PolicyFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be used: with all mistakes.
    pub(crate) fn open(path: PathBuf) -> Result<Self, Unusable> {
        let policies = policy_file::read(&path)?;
        if policies.is_empty() {
            tracing::warn!(path = %path.display(), "there are no policies: nobody may have anything");
        }
        let (in_force, _) = watch::channel(Arc::new(policies));
        Ok(Self { path, look_interval: LOOK_INTERVAL, in_force })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is in force, now and later.
    pub(crate) fn in_force(&self) -> watch::Receiver<Arc<Policies>> {
        self.in_force.subscribe()
    }

    /// Follows the file until `stop`; `reload` says that it changed. `outages` is told while it cannot be used.
    pub(crate) async fn follow(
        self: Arc<Self>,
        mut reload: watch::Receiver<()>,
        stop: CancellationToken,
        outages: Outages,
    ) {
        let mut outage = outages.part(EFFECT);
        let mut looks = tokio::time::interval(self.look_interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut settled): (Option<Seen>, Option<Seen>) = (None, None);
        loop {
            // All are cancel-safe: what is not received now is received by the next call.
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = reload.changed() => true,
                _ = looks.tick() => false,
            };
            let seen = self.look().await;
            if asked || (last.as_ref() == Some(&seen) && settled.as_ref() != Some(&seen)) {
                self.apply(&seen, asked, &mut outage);
                settled = Some(seen.clone());
            }
            last = Some(seen);
        }
    }

    async fn look(&self) -> Seen {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || policy_file::text(&path)).await;
        // It only panics together with the process.
        read.map_err(io::Error::other).flatten().map_err(|error| error.to_string())
    }

    fn apply(&self, seen: &Seen, asked: bool, outage: &mut Outage) {
        let text = seen.as_deref().map_err(|error| io::Error::other(error.clone()));
        let path = self.path.display();
        match policy_file::policies(&self.path, text) {
            Ok(policies) => {
                gauge!(STALE).set(0.0);
                let count = policies.len();
                let changed = self.in_force.send_if_modified(|in_force| {
                    let changed = **in_force != policies;
                    if changed {
                        *in_force = Arc::new(policies);
                    }
                    changed
                });
                let stale_for = outage.end();
                let again =
                    stale_for.map(|stale_for| format!("; the file can be used again, after {stale_for:.1?}"));
                let again = again.unwrap_or_default();
                if changed {
                    counter!(RELOADS_TOTAL).increment(1);
                    tracing::info!(%path, count, "other policies are in force{again}");
                } else if asked || stale_for.is_some() {
                    tracing::info!(%path, count, "the policies are as they were{again}");
                }
            }
            Err(error) => {
                gauge!(STALE).set(1.0);
                counter!(RELOAD_FAILURES_TOTAL).increment(1);
                log(&error);
                let hint = "mend the file: walcast doctor shows every mistake";
                outage.begin(error.summary(), Some(hint.to_owned()));
            }
        }
    }
}

/// A line of the log for each mistake, as far as somebody reads them.
fn log(error: &Unusable) {
    let hint = "mend the file: it is read again when it changes; walcast doctor shows every mistake";
    tracing::error!(error = error.summary(), hint, "the policies that were in force stay so");
    for Mistake { place, message, hint } in error.mistakes().iter().take(LOGGED_MISTAKES_MAX) {
        tracing::error!(hint, "a mistake in the policies: {place}: {message}");
    }
    let more = error.mistakes().len().saturating_sub(LOGGED_MISTAKES_MAX);
    if more > 0 {
        tracing::error!(more, "there are more mistakes in the policies");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio_util::sync::{CancellationToken, DropGuard};
    use walcast_feed::Outages;
    use walcast_policy::Policies;

    use super::{EFFECT, PolicyFile};

    fn text(role: &str) -> String {
        format!("[[policy]]\nrole = {role:?}\ntable = '*'\n")
    }

    fn follow(path: &Path) -> (watch::Receiver<Arc<Policies>>, DropGuard) {
        let mut file = PolicyFile::open(path.to_owned()).unwrap_or_else(|error| panic!("{error}"));
        file.look_interval = Duration::from_millis(5);
        let in_force = file.in_force();
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let (said, reload) = watch::channel(());
        tokio::spawn(async move {
            Arc::new(file).follow(reload, stop, Outages::default()).await;
            drop(said);
        });
        (in_force, guard)
    }

    /// Waits until the policies are those of `role`.
    async fn has(in_force: &mut watch::Receiver<Arc<Policies>>, role: &str) {
        let wanted = Policies::parse(&text(role)).unwrap();
        let found = in_force.wait_for(|policies| **policies == wanted);
        tokio::time::timeout(Duration::from_secs(30), found).await.expect(role).expect("the task runs");
    }

    #[tokio::test]
    async fn a_file_is_followed_through_writes_renames_and_links_that_move() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, role) in [("one", "a"), ("two", "b")] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("policies.toml"), text(role)).unwrap();
        }
        // As Kubernetes mounts a ConfigMap: policies.toml -> ..data/policies.toml, ..data -> a folder.
        std::os::unix::fs::symlink("one", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policies.toml", at("policies.toml")).unwrap();
        let (mut in_force, _stop) = follow(&at("policies.toml"));
        has(&mut in_force, "a").await;
        std::os::unix::fs::symlink("two", at("..new")).unwrap();
        std::fs::rename(at("..new"), at("..data")).unwrap();
        has(&mut in_force, "b").await;
        std::fs::write(at("two").join("policies.toml"), text("c")).unwrap();
        has(&mut in_force, "c").await;
        std::fs::write(at("fresh"), text("d")).unwrap();
        std::fs::rename(at("fresh"), at("two").join("policies.toml")).unwrap();
        has(&mut in_force, "d").await;
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_changes_nothing_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        std::fs::write(&path, text("a")).unwrap();
        let file = Arc::new(PolicyFile::open(path.clone()).unwrap());
        let mut in_force = file.in_force();
        let outages = Outages::default();
        let mut outage = outages.part(EFFECT);
        for wrong in [Ok("[[policy]]\nrole = 'a'\n".to_owned()), Err("gone".to_owned())] {
            file.apply(&wrong, true, &mut outage);
            let told = outages.now();
            let is_told = |text: &str| told.len() == 1 && told[0].1.message.contains(text);
            assert!(is_told("1 mistake in") || is_told("cannot be read: gone"), "{told:?}");
            assert!(!in_force.has_changed().unwrap(), "{wrong:?}");
            has(&mut in_force, "a").await;
        }
        file.apply(&Ok(text("b")), false, &mut outage);
        assert_eq!(outages.now(), []);
        has(&mut in_force, "b").await;
        // Nobody is woken when it says the same.
        in_force.mark_unchanged();
        file.apply(&Ok(text("b")), true, &mut outage);
        assert!(!in_force.has_changed().unwrap());
    }

    #[tokio::test]
    async fn it_is_read_at_once_when_somebody_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        std::fs::write(&path, text("a")).unwrap();
        let mut file = PolicyFile::open(path.clone()).unwrap();
        file.look_interval = Duration::from_secs(3600);
        let mut in_force = file.in_force();
        let stop = CancellationToken::new();
        let (said, reload) = watch::channel(());
        let following = tokio::spawn(Arc::new(file).follow(reload, stop.clone(), Outages::default()));
        std::fs::write(&path, text("b")).unwrap();
        said.send_replace(());
        has(&mut in_force, "b").await;
        stop.cancel();
        following.await.unwrap();
    }

    #[test]
    fn every_mistake_is_told_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        std::fs::write(&path, "[[policy]]\nrole = ''\n").unwrap();
        let told = PolicyFile::open(path).unwrap_err().to_string();
        assert!(
            told.starts_with("2 mistakes in ") && told.contains("\n  policy 1, line 2: role is empty"),
            "{told}"
        );
        let gone = PolicyFile::open(folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(gone.contains("nowhere cannot be read: "), "{gone}");
    }
}
