//! Schema `walcast`: the numbered files of `sql/`, applied in order and recorded.

use std::fmt::Write as _;

use tokio_postgres::{GenericClient, IsolationLevel};
use walcast_postgres::Session;

use crate::Error;
use crate::error::Doing;

/// The files of `sql/`; the first is version 1.
const FILES: &[(&str, &str)] = &[
    // Relative to this file, so that the text is part of the program.
    ("0001_change_history.sql", include_str!("../../../sql/0001_change_history.sql")),
    ("0002_lineage.sql", include_str!("../../../sql/0002_lineage.sql")),
    ("0003_retention.sql", include_str!("../../../sql/0003_retention.sql")),
    ("0004_claim.sql", include_str!("../../../sql/0004_claim.sql")),
    ("0005_last_image.sql", include_str!("../../../sql/0005_last_image.sql")),
    ("0006_client.sql", include_str!("../../../sql/0006_client.sql")),
    ("0007_cut.sql", include_str!("../../../sql/0007_cut.sql")),
    ("0008_whole.sql", include_str!("../../../sql/0008_whole.sql")),
    ("0009_meta.sql", include_str!("../../../sql/0009_meta.sql")),
    ("0010_publish.sql", include_str!("../../../sql/0010_publish.sql")),
    ("0011_rights.sql", include_str!("../../../sql/0011_rights.sql")),
    ("0012_hole.sql", include_str!("../../../sql/0012_hole.sql")),
];

/// Held while the schema is applied or removed: two daemons that start together do it one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('walcast.schema', 0))";

/// The version that [`apply`] leads to.
pub const LATEST: u32 = FILES.len() as u32;

/// The version of the schema that is there; `None` when there is none.
///
/// # Errors
/// When the history's Postgres fails, or the schema is there and may not be read.
pub async fn version(session: &Session) -> Result<Option<u32>, Error> {
    recorded(&**session).await.doing("read its schema's version")
}

/// Reads the catalog's tables and not `to_regclass`, which may answer from a cache that is older than the lock this
/// transaction has just waited for.
async fn recorded(client: &impl GenericClient) -> Result<Option<u32>, tokio_postgres::Error> {
    let sql = "SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
               WHERE n.nspname = 'walcast' AND c.relname = 'schema_version'";
    if client.query_opt(sql, &[]).await?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT max(version) FROM walcast.schema_version";
    let version: Option<i32> = client.query_one(sql, &[]).await?.try_get(0)?;
    Ok(version.and_then(|version| u32::try_from(version).ok()))
}

/// Whether this program can work with the schema that is there.
///
/// # Errors
/// When there is none, or it is older or newer than this program's, or the history's Postgres fails.
pub async fn check(session: &Session) -> Result<(), Error> {
    match version(session).await? {
        None => Err(Error::SchemaMissing),
        Some(found) if found < LATEST => Err(Error::SchemaOlder { found, needed: LATEST }),
        Some(found) if found > LATEST => Err(Error::SchemaNewer { found, known: LATEST }),
        Some(_) => Ok(()),
    }
}

/// Applies what is missing, in one transaction. Returns the versions that were applied: none when the schema was
/// up to date. Safe to call from several processes at once, and to be cancelled.
///
/// # Errors
/// When the schema is newer than this program, the role may not create it, or the history's Postgres fails;
/// nothing was changed then.
pub async fn apply(session: &mut Session) -> Result<Vec<u32>, Error> {
    const DOING: &str = "apply its schema";
    // The common case needs no lock, and no privilege to create anything.
    if version(session).await? == Some(LATEST) {
        return Ok(Vec::new());
    }
    let builder = session.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
    let transaction = builder.start().await.doing(DOING)?;
    transaction.batch_execute(LOCK).await.doing(DOING)?;
    let found = recorded(&transaction).await.doing(DOING)?.unwrap_or(0);
    if found > LATEST {
        return Err(Error::SchemaNewer { found, known: LATEST });
    }
    let mut applied = Vec::new();
    for (version, (_, sql)) in (1..).zip(FILES).filter(|(version, _)| *version > found) {
        transaction.batch_execute(sql).await.doing(DOING)?;
        transaction.batch_execute(&record(version)).await.doing(DOING)?;
        applied.push(version);
    }
    transaction.commit().await.doing(DOING)?;
    Ok(applied)
}

fn record(version: u32) -> String {
    format!("INSERT INTO walcast.schema_version (version) VALUES ({version})")
}

/// The SQL that [`apply`] runs in a database without the schema, for an administrator to run with `psql`.
#[must_use]
pub fn print() -> String {
    let mut text = String::from("BEGIN;\n");
    for (version, (name, sql)) in (1..).zip(FILES) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n-- sql/{name}\n\n{sql}\n{};\n", record(version));
    }
    text.push_str("\nCOMMIT;\n");
    text
}

/// Drops schema `walcast` with everything in it: the history is gone. Changes nothing when there is none.
///
/// # Errors
/// When the role does not own it, somebody reads it for longer than 10 s, or the history's Postgres fails.
pub async fn remove(session: &mut Session) -> Result<(), Error> {
    const DOING: &str = "remove its schema";
    let builder = session.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
    let transaction = builder.start().await.doing(DOING)?;
    transaction.batch_execute(LOCK).await.doing(DOING)?;
    let sql = "SET LOCAL lock_timeout = '10s'; SET LOCAL client_min_messages = warning; \
               DROP SCHEMA IF EXISTS walcast CASCADE";
    transaction.batch_execute(sql).await.doing(DOING)?;
    transaction.commit().await.doing(DOING)
}

#[cfg(test)]
mod tests {
    use super::{FILES, LATEST, print};

    #[test]
    fn files_are_numbered_without_a_gap_and_printed_whole() {
        for (index, (name, sql)) in FILES.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
            assert!(print().contains(sql));
            // A database of another encoding than UTF8 must take it, its comments too.
            assert!(sql.is_ascii(), "{name} has characters outside ASCII");
        }
        assert!(print().contains(&format!("VALUES ({LATEST})")));
    }
}
