//! The keys in use, and the one task that renews them.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::KeyError;
use crate::key_set::KeySet;
use crate::key_source::KeySource;
use crate::metrics as names;

/// How often keys are loaded again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Renewal {
    /// Anyway.
    pub interval: Duration,
    /// At most, because of tokens with unknown keys: anybody can send such a token.
    pub unknown_key_interval: Duration,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { interval: Duration::from_secs(300), unknown_key_interval: Duration::from_secs(10) }
    }
}

/// The keys in use.
///
/// They are renewed every so often, when somebody says that they changed ([`KeyRing::reload`]), and when a token names a key
/// that is not known, so that a rotated key works at once. When they cannot be loaded, the ones before stay in use,
/// and it is tried again: an authority that is away must not lock everybody out.
#[derive(Debug)]
pub struct KeyRing {
    source: KeySource,
    current: RwLock<Arc<KeySet>>,
    wanted: Notify,
    missed: Notify,
}

impl KeyRing {
    /// Loads the first keys.
    ///
    /// # Errors
    /// When there is none: nobody could come in.
    pub async fn load(source: KeySource) -> Result<Arc<Self>, KeyError> {
        let keys = source.load().await?;
        gauge!(names::KEYS).set(keys.len() as f64);
        let current = RwLock::new(Arc::new(keys));
        Ok(Arc::new(Self { source, current, wanted: Notify::new(), missed: Notify::new() }))
    }

    /// The keys in use now.
    pub fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is anything to load again: a secret in the settings is read at the start alone.
    #[must_use]
    pub const fn can_change(&self) -> bool {
        self.source.can_change()
    }

    /// The keys have changed at their source: load them again, soon, and say so. Does nothing while [`KeyRing::renew`]
    /// does not run, and when they [cannot change](KeyRing::can_change).
    pub fn reload(&self) {
        self.wanted.notify_one();
    }

    /// A token named a key that is not known: load them again, if that was not tried lately.
    pub(crate) fn missed(&self) {
        self.missed.notify_one();
    }

    /// Keeps the keys up to date until it is cancelled: every so often, and when it is asked to.
    pub async fn renew(&self, renewal: Renewal, cancel: CancellationToken) {
        if !self.source.can_change() {
            return cancel.cancelled().await;
        }
        let mut loaded = Instant::now();
        loop {
            // A tenth of jitter: daemons that were started together shall not ask together.
            let next = loaded + renewal.interval.mul_f64(0.9 + rand::random::<f64>() / 10.0);
            let is_wanted = tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep_until(next) => false,
                () = self.wanted.notified() => true,
                () = self.missed.notified() => tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep_until(loaded + renewal.unknown_key_interval) => false,
                    () = self.wanted.notified() => true,
                },
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                result = self.source.load() => self.take(result, is_wanted),
            }
            loaded = Instant::now();
        }
    }

    fn take(&self, result: Result<KeySet, KeyError>, is_wanted: bool) {
        match result {
            Ok(keys) => {
                gauge!(names::KEYS).set(keys.len() as f64);
                if is_wanted {
                    let (from, keys) = (self.source.place(), keys.len());
                    tracing::info!(from, keys, "the keys for tokens were read again");
                }
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) => {
                counter!(names::KEY_FAILURES).increment(1);
                let (from, then) =
                    (self.source.place(), if self.source.is_file() { ", then send SIGHUP" } else { "" });
                let hint = format!("{}{then}", error.hint());
                tracing::warn!(from, %error, hint, "the keys for tokens could not be loaded; the ones before stay in use");
            }
        }
    }
}
