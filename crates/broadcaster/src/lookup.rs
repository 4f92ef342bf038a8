//! Rows by key, as they are now, as far as a client may have them.
//!
//! # Which position goes with them
//!
//! No position describes what a snapshot sees (see `walcast_snapshot`), so there are two, each with one promise:
//!
//! - `reached`: everything that the rows contain is before it. It is where a barrier came back that was written after the
//!   rows were read, so the feed has it all.
//! - `cursor`: everything that the rows do not contain is at or after it. It is the first transaction in history that the
//!   snapshot does not see, or, when there is none, `reached` or how far history has come, whichever is first.
//!
//! A stream that is resumed at `cursor` misses nothing that is newer than the rows, and may bring what they contain once
//! more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use walcast_model::{Cursor, RelationName};
use walcast_policy::Rights;
use walcast_protocol::{ErrorCode, TablePattern};
use walcast_snapshot::{FoundRows, Key, SnapshotTable};

use crate::catalog::Freshness;
use crate::encode::{Projection, project_rows};
use crate::past::Unanswered;
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::session::{World, unknown_table};
use crate::subscription::Services;
use crate::turns::Applicant;
use crate::wanted::{ShapeKey, Unbindable, Wanted};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) table: RelationName,
    /// Beside those of the key; `None` for all.
    pub(crate) columns: Option<BTreeSet<String>>,
    pub(crate) keys: Vec<Key>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// For each key a row or `null`, as JSON, between commas.
    pub(crate) rows: Vec<u8>,
    /// Everything that the rows do not contain is at or after it.
    pub(crate) cursor: Cursor,
    /// Everything that they contain is before it.
    pub(crate) reached: Cursor,
}

impl Lookup {
    /// Looks them up. Cancel-safe: nothing goes on when it is dropped.
    pub(crate) async fn run(
        self,
        rights: &Rights,
        applicant: Applicant,
        world: &World,
        services: &Services,
    ) -> Result<Looked, Refusal> {
        let keys_max = world.limits.rows_keys_max;
        if self.keys.len() > keys_max {
            let message = format!("keys in one request (rows_keys_max): at most {keys_max}");
            return Err(
                Refusal::new(ErrorCode::LimitExceeded, message).hint("ask for the others in another one")
            );
        }
        let pattern = TablePattern::Table(self.table.clone());
        let asked = BTreeMap::from([(pattern, Asked { columns: self.columns.clone(), ..Asked::default() })]);
        let wanted = Wanted::new(Arc::new(ShapeKey::resolve(&asked, rights)?));
        if !world.gate.is_open() {
            return Err(not_ready(
                "the daemon has not yet read everything that was committed before it started",
            ));
        }
        let until = Instant::now() + world.limits.rows_answer_max;
        let looked = timeout_at(until, self.look(&wanted, applicant, world, services));
        looked.await.unwrap_or_else(|_| Err(too_slow(world.limits.rows_answer_max)))
    }

    async fn look(
        &self,
        wanted: &Wanted,
        applicant: Applicant,
        world: &World,
        services: &Services,
    ) -> Result<Looked, Refusal> {
        let mut turn = services.lookups.queue(applicant);
        let place = turn.come().await;
        let Some(selection) = wanted.of(&self.table) else { return Err(unknown_table(&self.table)) };
        self.bind(wanted, services).await?;
        let table = SnapshotTable { rows: selection.rows(), ..SnapshotTable::from(self.table.clone()) };
        let FoundRows { relation, rows, snapshot } =
            services.source.rows(&table, &self.keys).await.map_err(settled)?;
        drop(place);
        let projection = Projection::new(&relation, selection);
        let mut out = Vec::with_capacity(rows.iter().flatten().map(|row| row.len() + 1).sum());
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match (row, &projection) {
                (None, _) => out.extend_from_slice(b"null"),
                (Some(row), None) => out.extend_from_slice(row),
                (Some(row), Some(projection)) => project_rows(&mut out, projection, row),
            }
        }
        // `None`: the daemon goes down.
        let reached = services.barriers.pass().await.ok_or_else(|| not_ready("the daemon is going down"))?;
        let before = reached.min(world.feed.stored());
        let first = services.past.first_invisible(&snapshot, before).await.map_err(settled)?;
        Ok(Looked { rows: out, cursor: first.unwrap_or(before).min(before), reached })
    }

    /// Whether the table is there, and what is asked and granted of it fits.
    async fn bind(&self, wanted: &Wanted, services: &Services) -> Result<(), Refusal> {
        let mut freshness = Freshness::Lately;
        loop {
            let names = std::slice::from_ref(&self.table);
            let schemas = services.catalog.schemas(names, freshness).await.map_err(settled)?;
            let is_now = std::mem::replace(&mut freshness, Freshness::Now) == Freshness::Now;
            let Some(schema) = schemas.first() else {
                if is_now {
                    return Err(unknown_table(&self.table));
                }
                continue;
            };
            match wanted.bind(schema) {
                Ok(_) => {}
                Err(_) if !is_now => continue,
                // A row as it is now is told whole, whatever the WAL carries of old ones.
                Err(Unbindable::Identity { .. }) => {}
                Err(why) => return Err(why.into_refusal(&self.table)),
            }
            let columns = schema.relation().columns();
            let is_there = |name: &&String| columns.iter().any(|column| column.name == **name);
            return match self.columns.iter().flatten().find(|name| !is_there(name)) {
                None => Ok(()),
                Some(_) if !is_now => continue,
                Some(column) => {
                    Err(Refusal::bad(format!("{} has no published column {column:?}", self.table)))
                }
            };
        }
    }
}

fn settled(unanswered: Unanswered) -> Refusal {
    match unanswered {
        Unanswered::Never(refusal) => refusal,
        Unanswered::Later(reason) => not_ready(reason),
    }
}

fn not_ready(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::NotReady, message).hint("ask again after a while")
}

fn too_slow(limit: Duration) -> Refusal {
    not_ready(format!("the rows could not be had within {} s (rows_answer_max)", limit.as_secs()))
}
