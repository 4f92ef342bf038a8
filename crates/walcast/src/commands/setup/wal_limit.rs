//! Whether the server bounds what walcast's slot can keep while no walcast runs.

use walcast_postgres::Session;

use super::{Note, SetupError, Target};
use crate::commands::doctor::Platform;

/// What is to be said about it; nothing when it is bounded, or cannot be asked.
///
/// # Errors
/// When the source cannot be asked.
pub(crate) async fn wal_limit_note(target: &Target) -> Result<Option<Note>, SetupError> {
    let session = Session::connect(&target.source, "walcast setup").await?;
    let sql = "SELECT setting::int8 < 0 FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'";
    let Some(row) = session.query_opt(sql, &[]).await? else { return Ok(None) };
    if !row.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    let message = "max_slot_wal_keep_size is not limited: while walcast is away, WAL can fill the disk (wal_budget is \
                   watched only while it runs)";
    let mut note = Note::unchanged("server", message);
    note.fix = Some(Platform::detect(&session).await?.set("max_slot_wal_keep_size", "50GB").to_string());
    Ok(Some(note))
}
