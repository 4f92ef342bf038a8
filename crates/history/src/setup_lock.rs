//! One setup of a history at a time: two would take each other's slot for a left-over.

use walcast_postgres::Session;

use crate::Error;
use crate::column::get;
use crate::error::Doing;

/// Waits for other setups to end, and keeps further ones waiting until the session ends.
///
/// # Errors
/// When the history's Postgres fails.
pub async fn take(session: &Session) -> Result<(), Error> {
    let sql = "SELECT pg_advisory_lock(hashtext('walcast'), hashtext('setup'))";
    session.execute(sql, &[]).await.doing("be locked for a setup")?;
    Ok(())
}

/// Whether some session sets a feed up now. A feed that is started over has no slot for as long.
///
/// # Errors
/// When the history's Postgres fails.
pub async fn is_taken(session: &Session) -> Result<bool, Error> {
    // Two keys are shown as documented for pg_locks: in classid and objid, with objsubid 2.
    let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
               AND classid = hashtext('walcast')::oid AND objid = hashtext('setup')::oid)";
    let row = session.query_one(sql, &[]).await.doing("be asked for setups")?;
    get(&row, 0)
}
