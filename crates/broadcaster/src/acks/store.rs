//! Where what clients acknowledge is kept.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use walcast_history::{Acknowledged, ClientKey, Clients, KnownClient};

use super::BATCH_MAX;
use crate::metrics as names;
use crate::past::{Away, Unanswered, of_history};
use crate::refusal::Refusal;

/// Where what clients acknowledge is kept: [`Clients`]. What fails with [`Unanswered::Later`] is tried again.
pub trait ClientPositions: fmt::Debug + Send + Sync + 'static {
    /// Stores all of these in one commit: the places of those that are refused because of a limit. [`Unanswered::Never`]
    /// when one of them can never be stored.
    fn store<'a>(&'a self, batch: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>>;

    /// What a client has acknowledged: 0/0 when that was taken back, `None` when it is not known.
    fn position<'a>(&'a self, key: &'a ClientKey) -> BoxFuture<'a, Result<Option<KnownClient>, Unanswered>>;

    /// The clients of a user.
    fn of_user<'a>(
        &'a self,
        user: &'a str,
        count_max: usize,
    ) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>>;

    /// Notes that these are there, and forgets those that have expired.
    fn upkeep<'a>(&'a self, present: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>>;

    /// After how long without having been seen a client expires.
    fn expiry(&self) -> Duration;
}

impl ClientPositions for Clients {
    fn store<'a>(&'a self, batch: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>> {
        Box::pin(async move {
            Self::store(self, batch).await.map_err(|error| match error.sqlstate() {
                // data_exception and program_limit_exceeded: a character that its encoding lacks.
                Some(state) if state.starts_with("22") || state.starts_with("54") => {
                    let message = "the history cannot hold the name of this client or subscription";
                    Unanswered::Never(Refusal::bad(message).hint("use ASCII for client_id and id"))
                }
                _ => Unanswered::Later(Away::history(&error)),
            })
        })
    }

    fn position<'a>(&'a self, key: &'a ClientKey) -> BoxFuture<'a, Result<Option<KnownClient>, Unanswered>> {
        Box::pin(async move { Self::position(self, key).await.map_err(|error| of_history(&error)) })
    }

    fn of_user<'a>(
        &'a self,
        user: &'a str,
        count_max: usize,
    ) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>> {
        Box::pin(
            async move { Self::of_user(self, user, count_max).await.map_err(|error| of_history(&error)) },
        )
    }

    fn upkeep<'a>(&'a self, present: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>> {
        Box::pin(async move {
            let later = |error: walcast_history::Error| Unanswered::Later(Away::history(&error));
            for some in present.chunks(BATCH_MAX) {
                self.seen(some).await.map_err(later)?;
            }
            let forgotten = self.expire().await.map_err(later)?;
            if forgotten > 0 {
                metrics::counter!(names::CLIENTS_EXPIRED).increment(forgotten);
                tracing::info!(forgotten, "clients that were not seen for client_expiry are forgotten");
            }
            Ok(())
        })
    }

    fn expiry(&self) -> Duration {
        self.limits().client_expiry
    }
}
