//! One attempt at an initial sync: what is asked of the source, in which order, and why in that order.
//!
//! ```text
//! not a standby, tables readable          outside the transaction: answers with names and statements
//! BEGIN REPEATABLE READ READ ONLY
//! LOCK TABLE … ACCESS SHARE               before the snapshot: TRUNCATE and ALTER TABLE that rewrite a table
//!                                         leave nothing in it for older snapshots, so none may come between
//! SELECT pg_current_snapshot()            fixes what is seen
//! publication, columns, types, estimate   as of the snapshot, and held by the locks
//! COPY (SELECT …) TO STDOUT               each table; the socket is the back-pressure
//! COMMIT
//! pg_logical_emit_message(barrier)        same session, flushed: everything that was seen is now before it
//! ```

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio_postgres::SimpleQueryMessage;
use tracing::warn;
use walcast_model::{Relation, Snapshot};
use walcast_pgoutput::json::{Types, ValueWriter};
use walcast_postgres::{Session, quote_identifier, quote_literal};

use crate::access;
use crate::consumer::Consumer;
use crate::error::Error;
use crate::event::{SnapshotEvent, SnapshotTable};
use crate::facts::facts;
use crate::limits::SnapshotLimits;
use crate::metrics;
use crate::published::{self, PublishedTable, RowFilters, sql_name};
use crate::relation::define;
use crate::rows::Chunks;
use crate::snapshots::Stop;

/// Sends the rows of `tables` as of one snapshot, which it returns; its transaction is over then.
pub(crate) async fn read(
    session: &mut Session,
    publications: &[String],
    tables: &[SnapshotTable],
    limits: &SnapshotLimits,
    consumer: &mut Consumer,
) -> Result<Snapshot, Stop> {
    // For the questions about tables as well: some of them wait for whoever has the table locked.
    let lock_wait = limits.lock_wait_max.as_millis().max(1);
    session.batch_execute(&format!("SET lock_timeout = '{lock_wait}ms'")).await?;
    access::require_primary(session).await?;
    access::require_readable(session, publications, tables).await?;
    begin(session, tables).await?;
    let snapshot = current_snapshot(session).await?;
    let names: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
    let published = published::read(session, publications, Some(&names), RowFilters::Read).await?;
    let mut plan = Vec::with_capacity(tables.len());
    let mut progress = Progress::default();
    for table in tables {
        let Some(found) = published.iter().find(|found| found.name == table.name) else {
            // It was published a moment ago: as if it had been taken out before.
            let publications = publications.join(", ");
            return Err(Error::NotPublished { table: table.name.clone(), publications }.into());
        };
        let task = Task::prepare(session, found, table).await?;
        progress.estimate += task.estimate(session).await?;
        plan.push(task);
    }
    for task in plan {
        task.copy(session, limits, &mut progress, consumer).await?;
    }
    session.batch_execute("COMMIT").await?;
    Ok(snapshot)
}

/// Writes the barrier in a transaction of its own, durable when this returns.
pub(crate) async fn write_barrier(session: &Session, id: &str) -> Result<(), Error> {
    // `local`: a missing synchronous standby must not hold it up. The server flushes for `local` as for `on`.
    let id = quote_literal(id);
    let statements = format!(
        "BEGIN; SET LOCAL synchronous_commit = local; \
         SELECT pg_catalog.pg_logical_emit_message(true, 'walcast.barrier', {id}::text); COMMIT"
    );
    Ok(session.batch_execute(&statements).await?)
}

pub(crate) async fn begin(session: &Session, tables: &[SnapshotTable]) -> Result<(), Error> {
    // Row security is an error instead of rows that are silently missing.
    session
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL row_security = off")
        .await?;
    // Always in one order, so that two of us never wait for each other crosswise.
    let mut names: Vec<_> = tables.iter().map(|table| &table.name).collect();
    names.sort();
    names.dedup();
    let list: Vec<String> = names.into_iter().map(sql_name).collect();
    if list.is_empty() {
        // A wildcard that nothing matches yet: an empty copy, with its snapshot and its barrier.
        return Ok(());
    }
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", list.join(", "));
    session.batch_execute(&lock).await.map_err(|error| {
        let error = walcast_postgres::Error::from(error);
        // "out of shared memory": the lock table is full, and will be as full next time.
        if error.sqlstate() == Some("53200") {
            return Error::TooManyTables { tables: list.len() };
        }
        Error::Source(error)
    })
}

pub(crate) async fn current_snapshot(session: &Session) -> Result<Snapshot, Error> {
    let row = session.query_one("SELECT pg_catalog.pg_current_snapshot()::text", &[]).await?;
    let text: String = row.try_get(0)?;
    text.parse().map_err(|_| Error::Unexpected(format!("{text:?} as a snapshot")))
}

#[derive(Default)]
struct Progress {
    done: u64,
    estimate: u64,
}

/// One table of an initial sync, as it stands behind the locks.
pub(crate) struct Task<'a> {
    table: &'a PublishedTable,
    pub(crate) relation: Arc<Relation>,
    types: Types,
    /// The indices of the columns that the rows shall have.
    picked: Vec<usize>,
    /// What rows have to meet, as SQL.
    condition: Option<String>,
}

impl<'a> Task<'a> {
    pub(crate) async fn prepare(
        session: &Session,
        table: &'a PublishedTable,
        wanted: &SnapshotTable,
    ) -> Result<Self, Error> {
        let (relation, types) = define(session, table).await?;
        let picked = pick(&relation, wanted.columns.as_deref())?;
        let condition = match &wanted.rows {
            None => None,
            Some(filter) => {
                let schema = facts(session, table.oid).await?.schema(Arc::clone(&relation));
                let bound = filter.bind(&schema);
                let bound = bound.map_err(|error| Error::Filter { table: table.name.clone(), error })?;
                Some(bound.to_sql())
            }
        };
        Ok(Self { table, relation, types, picked, condition })
    }

    /// How many rows the planner expects: the table's present size, the filters and all partitions considered.
    async fn estimate(&self, session: &Session) -> Result<u64, Error> {
        let statement = self.table.estimate_statement(self.condition.as_deref());
        let messages = session.simple_query(&statement).await?;
        let plan: String = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap_or_default();
        // An estimate that cannot be read is no reason to fail.
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_f64).unwrap_or_default() as u64)
    }

    /// What is selected for the rows, and how the cells are written.
    pub(crate) fn expressions(&self) -> (Vec<String>, Vec<(usize, ValueWriter)>) {
        let mut writers = Vec::with_capacity(self.picked.len());
        let mut expressions = Vec::with_capacity(self.picked.len());
        for index in self.picked.iter().copied() {
            let column = &self.relation.columns()[index];
            let (name, writer) = (quote_identifier(&column.name), self.types.writer(column.type_oid));
            // What only the server can convert it converts here, as long as that runs no function of whoever made the
            // type.
            if writer.is_converted() && !writer.is_untrusted() {
                expressions.push(format!("pg_catalog.to_jsonb({name})::text"));
                writers.push((index, ValueWriter::jsonb()));
            } else {
                expressions.push(name);
                writers.push((index, writer));
            }
        }
        (expressions, writers)
    }

    /// From where, and which rows, as SQL.
    pub(crate) fn source(&self) -> String {
        self.table.source(self.condition.as_deref())
    }

    async fn copy(
        self,
        session: &Session,
        limits: &SnapshotLimits,
        progress: &mut Progress,
        consumer: &mut Consumer,
    ) -> Result<(), Stop> {
        let (expressions, writers) = self.expressions();
        let Self { table, relation, condition, .. } = self;
        consumer.send(SnapshotEvent::Relation(Arc::clone(&relation))).await?;
        let mut chunks = Chunks::new(Arc::clone(&relation), writers, limits);
        let statement = table.copy_statement(&expressions, condition.as_deref());
        let mut lines = pin!(session.copy_out(&statement).await?);
        while let Some(line) = lines.try_next().await? {
            chunks.push(&line)?;
            if chunks.is_full() {
                send_rows(&relation, chunks.take(), progress, consumer).await?;
            }
        }
        if chunks.odd_values() > 0 {
            let (table, count) = (relation.name(), chunks.odd_values());
            warn!(%table, count, "values are not what their types promise: sent as strings");
        }
        send_rows(&relation, chunks.take(), progress, consumer).await
    }
}

async fn send_rows(
    relation: &Arc<Relation>,
    chunk: Option<(Bytes, usize)>,
    progress: &mut Progress,
    consumer: &mut Consumer,
) -> Result<(), Stop> {
    let Some((json, count)) = chunk else { return Ok(()) };
    ::metrics::counter!(metrics::ROWS).increment(count as u64);
    ::metrics::counter!(metrics::BYTES).increment(json.len() as u64);
    progress.done += count as u64;
    progress.estimate = progress.estimate.max(progress.done);
    let Progress { done, estimate } = *progress;
    consumer.send(SnapshotEvent::Progress { done, estimate }).await?;
    consumer.send(SnapshotEvent::Rows { relation: Arc::clone(relation), json, count }).await
}

fn pick(relation: &Relation, columns: Option<&[String]>) -> Result<Vec<usize>, Error> {
    let Some(wanted) = columns else { return Ok((0..relation.columns().len()).collect()) };
    let unknown = wanted.iter().find(|name| !relation.columns().iter().any(|column| column.name == **name));
    if let Some(column) = unknown {
        return Err(Error::UnknownColumn { table: relation.name().clone(), column: column.clone() });
    }
    let named = |index: &usize| wanted.contains(&relation.columns()[*index].name);
    Ok((0..relation.columns().len()).filter(named).collect())
}
