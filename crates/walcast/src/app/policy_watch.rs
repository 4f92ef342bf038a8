//! Says what of the policies in force does not fit the tables: at the start, and whenever other ones come into force.
//! Clients are refused or get less than somebody meant, and only the operator can know.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use walcast_policy::Policies;
use walcast_postgres::Session;

use super::policies::PolicyFile;
use crate::commands::setup::Target;
use crate::policy_fit::{Misfit, misfits};

/// The pause before a source that could not be asked is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// Misfits that are logged, each in a line; of more their number is said.
const LOGGED_MISFITS_MAX: usize = 20;

/// Looks, until `stop`.
pub(super) async fn watch_policies(file: Arc<PolicyFile>, target: Target, stop: CancellationToken) {
    let watch = async {
        let mut in_force = file.in_force();
        let mut was_told = false;
        loop {
            let policies = Arc::clone(&in_force.borrow_and_update());
            match look(&target, &policies).await {
                Ok(Some(misfits)) => {
                    was_told = false;
                    say(&file, &misfits);
                    if in_force.changed().await.is_err() {
                        // Nobody is left who could change them.
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                // Tables may come.
                Ok(None) => {}
                // The source is away, which others say.
                Err(Unanswered::Away(error)) => {
                    tracing::debug!(
                        error,
                        "whether the policies fit cannot be asked; trying again in {RETRY:?}"
                    );
                }
                Err(Unanswered::Failed(error)) if !std::mem::replace(&mut was_told, true) => {
                    let hint = error.hint();
                    tracing::warn!(%error, hint, "whether the policies fit the tables cannot be told; trying again in {RETRY:?}");
                }
                Err(Unanswered::Failed(_)) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = stop.cancelled() => {}
    }
}

enum Unanswered {
    /// There is no connection.
    Away(String),
    Failed(walcast_snapshot::Error),
}

/// `None` while nothing is published.
async fn look(target: &Target, policies: &Policies) -> Result<Option<Vec<Misfit>>, Unanswered> {
    let session = Session::connect(&target.source, "walcast policies").await;
    let session = session.map_err(|error| Unanswered::Away(error.to_string()))?;
    misfits(&session, &target.publication, policies).await.map_err(Unanswered::Failed)
}

fn say(file: &PolicyFile, misfits: &[Misfit]) {
    let path = file.path().display();
    for Misfit { place, problem, fix, .. } in misfits.iter().take(LOGGED_MISFITS_MAX) {
        tracing::warn!(fix = fix.to_string(), "{place} of {path} {problem}");
    }
    if let Some(more @ 1..) = misfits.len().checked_sub(LOGGED_MISFITS_MAX) {
        tracing::warn!(more, "policies of {path} do not fit more tables; `walcast doctor` names them all");
    }
}
