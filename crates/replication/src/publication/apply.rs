//! One step of the plan, as one short transaction.

use walcast_model::RelationName;
use walcast_postgres::{Session, quote_literal};

use super::PublicationSettings;
use super::pickup::{self, Outcome};
use super::plan::{Action, Pickup, PlanStep, TableStep, quoted};
use crate::error::Error;

/// What a step did besides its statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows that were there before and are carried into the feed.
    pub rows: u64,
    /// Tables that were picked up without their rows, and why.
    pub without_rows: Vec<(RelationName, String)>,
}

/// Takes one step. `secret` is the running feed's: tables that are new to it are locked against writers
/// (`SHARE`, so that no open transaction has rows of which the publication knows nothing), and their rows are carried
/// into it. `None` while there is no slot: its creation waits for all open transactions by itself, and clients begin
/// with a sync.
///
/// # Errors
/// SQLSTATE 55P03 when a lock was not had within `lock_timeout`: try again later. After an error the session has no
/// open transaction, or is closed. When dropped before it is done, the session must not be used again.
pub async fn apply(
    session: &Session,
    step: &PlanStep,
    settings: &PublicationSettings,
    secret: Option<&str>,
) -> Result<Applied, Error> {
    let applied = transaction(session, step, settings, secret).await;
    if applied.is_err() {
        // What the step failed with says more than what a closed session adds to it.
        let _ = session.batch_execute("ROLLBACK").await;
    }
    applied
}

async fn transaction(
    session: &Session,
    step: &PlanStep,
    settings: &PublicationSettings,
    secret: Option<&str>,
) -> Result<Applied, Error> {
    // `local`: a missing synchronous standby must not keep the lock for ever. `row_security = off`: a policy that
    // hides rows from the table's owner is an error instead of a loss.
    let lock_timeout = settings.lock_timeout.as_millis().max(1);
    session
        .batch_execute(&format!(
            "BEGIN; SET LOCAL lock_timeout = {lock_timeout}; SET LOCAL synchronous_commit = local; \
             SET LOCAL row_security = off"
        ))
        .await?;
    let mut applied = Applied::default();
    match (&step.action, secret) {
        (Action::Table(table), Some(secret)) if table.pickup != Pickup::None => {
            applied = pick_up(session, table, settings, secret).await?;
        }
        (action, _) => session.batch_execute(&action.statements().join("\n")).await?,
    }
    session.batch_execute("COMMIT").await?;
    Ok(applied)
}

async fn pick_up(
    session: &Session,
    step: &TableStep,
    settings: &PublicationSettings,
    secret: &str,
) -> Result<Applied, Error> {
    // Of a partitioned table the partitions are locked with it: rows are written there.
    let only = if step.partitioned { "" } else { "ONLY " };
    let name = quoted(&step.name);
    session.batch_execute(&format!("LOCK TABLE {only}{name} IN SHARE MODE")).await?;
    let same = format!("SELECT {}::regclass::oid", quote_literal(&name));
    let oid: u32 = session.query_one(&same, &[]).await?.get(0);
    if oid != step.oid.get() {
        // Another table took the name: the next reconciliation sees it as it is.
        return Ok(Applied::default());
    }
    let holders = pickup::holders(session, step, &settings.names()).await?;
    session.batch_execute(&step.statements().join("\n")).await?;
    let mut applied = Applied::default();
    for holder in holders {
        match pickup::carry(session, holder, step.pickup, settings.pickup_bytes_max, secret).await? {
            Some((_, Outcome::Rows(rows))) => applied.rows += rows,
            Some((name, Outcome::Without(reason))) => applied.without_rows.push((name, reason)),
            None => {}
        }
    }
    Ok(applied)
}
