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

/// Looks, until `stop`.
pub(super) async fn watch_policies(file: Arc<PolicyFile>, target: Target, stop: CancellationToken) {
    let watch = async {
        let mut in_force = file.in_force();
        loop {
            let policies = Arc::clone(&in_force.borrow_and_update());
            match look(&target, &policies).await {
                Ok(misfits) => {
                    say(&file, &misfits);
                    if in_force.changed().await.is_err() {
                        // Nobody is left who could change them.
                        std::future::pending::<()>().await;
                    }
                }
                // The source is away, which others say.
                Err(error) => {
                    tracing::debug!(
                        error,
                        "whether the policies fit cannot be asked; trying again in {RETRY:?}"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        () = watch => {}
        () = stop.cancelled() => {}
    }
}

async fn look(target: &Target, policies: &Policies) -> Result<Vec<Misfit>, String> {
    let session = Session::connect(&target.source, "walcast policies").await;
    let session = session.map_err(|error| error.to_string())?;
    misfits(&session, &target.publication, policies).await.map_err(|error| error.to_string())
}

fn say(file: &PolicyFile, misfits: &[Misfit]) {
    for Misfit { place, problem, fix, .. } in misfits {
        tracing::warn!(fix = fix.to_string(), "{place} of {} {problem}", file.path().display());
    }
}
