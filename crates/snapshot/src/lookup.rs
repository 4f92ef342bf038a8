//! Rows by key, as they are now.
//!
//! ```text
//! primary, table readable, lock_timeout       as for an initial sync
//! BEGIN REPEATABLE READ READ ONLY
//! LOCK TABLE … ACCESS SHARE                   before the snapshot, as for an initial sync
//! SELECT pg_current_snapshot()                what the rows contain
//! set_config('walcast.keys', $1)              the keys, bound as one value: no part of them is ever SQL
//! json_to_recordset(…)                        by the input functions of the key's types
//! COPY (SELECT … JOIN … ON key) TO STDOUT     values as the feed writes them
//! COMMIT
//! ```

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use walcast_model::{Relation, Snapshot};
use walcast_postgres::{PooledSession, Session, quote_identifier};

use crate::access;
use crate::attempt::{Task, begin, current_snapshot};
use crate::error::Error;
use crate::event::SnapshotTable;
use crate::limits::SnapshotLimits;
use crate::published::{self, RowFilters};
use crate::rows::Chunks;

/// A key: the value of each of its columns, as JSON.
pub type Key = BTreeMap<String, Box<RawValue>>;

/// What was found.
#[derive(Clone, Debug)]
pub struct FoundRows {
    /// The table, as the stream has it.
    pub relation: Arc<Relation>,
    /// For each key its row, as a JSON object in the form of `row` in a change; `None` where there is none.
    pub rows: Vec<Option<Bytes>>,
    /// What the rows contain: the effect of the transactions that it sees.
    pub snapshot: Snapshot,
}

/// A session on loan that ends, with whatever it is at, unless it is given back.
pub(crate) struct Lent(Option<PooledSession>);

impl Lent {
    pub(crate) const fn new(session: PooledSession) -> Self {
        Self(Some(session))
    }

    pub(crate) fn session(&self) -> Result<&Session, Error> {
        self.0.as_deref().ok_or_else(|| Error::Unexpected("no session".to_owned()))
    }

    pub(crate) fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.discard();
        }
    }
}

/// Reads the rows of `table` with these keys.
pub(crate) async fn read(
    session: &Session,
    publications: &[String],
    table: &SnapshotTable,
    keys: &[Key],
    limits: &SnapshotLimits,
) -> Result<FoundRows, Error> {
    let (lock_wait, most) =
        (limits.lock_wait_max.as_millis().max(1), limits.rows_time_max.as_millis().max(1));
    let timeouts = format!("SET lock_timeout = '{lock_wait}ms'; SET statement_timeout = '{most}ms'");
    session.batch_execute(&timeouts).await?;
    let tables = std::slice::from_ref(table);
    access::require_primary(session).await?;
    access::require_readable(session, publications, tables).await?;
    begin(session, tables).await?;
    let snapshot = current_snapshot(session).await?;
    let names = std::slice::from_ref(&table.name);
    let published = published::read(session, publications, Some(names), RowFilters::Read).await?;
    let found = published.iter().find(|found| found.name == table.name).ok_or_else(|| {
        let publications = publications.join(", ");
        Error::NotPublished { table: table.name.clone(), publications }
    })?;
    let task = Task::prepare(session, found, table).await?;
    let relation = Arc::clone(&task.relation);
    let columns = KeyColumns::of(session, &relation).await?;
    columns.bind(session, &relation, keys).await?;
    let (expressions, writers) = task.expressions();
    let statement = columns.statement(&task, &expressions);
    let mut chunks = Chunks::new(Arc::clone(&relation), writers, limits);
    let mut rows: Vec<Option<Bytes>> = vec![None; keys.len()];
    let mut left = limits.rows_bytes_max;
    let copied = session.copy_out(&statement).await;
    let mut lines = pin!(copied.map_err(|error| columns.not_comparable(&relation, error.into()))?);
    while let Some(line) = lines.try_next().await? {
        // The first cell is the place of the key.
        let (place, cells) = split(&line);
        chunks.push(cells)?;
        let Some(row) = chunks.take_row() else { continue };
        left = left
            .checked_sub(row.len())
            .ok_or(Error::TooLarge { table: table.name.clone(), bytes_max: limits.rows_bytes_max })?;
        if let Some(slot) = place.and_then(|place| rows.get_mut(place)) {
            slot.get_or_insert(row);
        }
    }
    session.batch_execute("COMMIT").await?;
    Ok(FoundRows { relation, rows, snapshot })
}

fn split(line: &[u8]) -> (Option<usize>, &[u8]) {
    let end = memchr::memchr(b'\t', line).unwrap_or(line.len());
    let place =
        line.get(..end).and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
    (place, line.get(end + 1..).unwrap_or_default())
}

/// The types of the key's columns as values are read for them, and whether that would run the checks of a domain. These are
/// functions of whoever made the domain, and would be run by walcast's role, on what a client has sent. So a domain is read
/// as what it is over: nothing that is not in the domain is found all the same. Inside other types it cannot be left out.
const KEY_TYPES: &str = "
    WITH RECURSIVE column_type (place, oid, typtype) AS (
        SELECT c.place, t.oid, t.typtype FROM unnest($1::oid[]) WITH ORDINALITY AS c (oid, place)
            JOIN pg_catalog.pg_type t ON t.oid = c.oid
        UNION ALL
        SELECT c.place, t.oid, t.typtype FROM column_type c
            JOIN pg_catalog.pg_type d ON d.oid = c.oid AND d.typtype = 'd'
            JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype),
    inside (place, oid) AS (
        SELECT place, oid FROM column_type WHERE typtype <> 'd'
        UNION
        SELECT i.place, part.oid FROM inside i JOIN pg_catalog.pg_type t ON t.oid = i.oid
            CROSS JOIN LATERAL (
                SELECT t.typelem WHERE t.typelem <> 0
                UNION ALL
                SELECT a.atttypid FROM pg_catalog.pg_attribute a
                    WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
                UNION ALL
                SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
            ) AS part (oid))
    SELECT pg_catalog.format_type(c.oid, -1),
           EXISTS (SELECT FROM inside i JOIN pg_catalog.pg_type t ON t.oid = i.oid
                   WHERE i.place = c.place AND t.typtype = 'd')
    FROM column_type c WHERE c.typtype <> 'd' ORDER BY c.place";

/// Characters of a key's columns that are named to whoever sent them.
const GIVEN_CHARACTERS_MAX: usize = 100;

/// The columns that a key has, for people.
fn given(key: &Key) -> String {
    let names: Vec<&str> = key.keys().map(String::as_str).collect();
    let text = names.join(", ");
    match text.chars().count() {
        0 => "no column".to_owned(),
        count if count <= GIVEN_CHARACTERS_MAX => text,
        _ => text.chars().take(GIVEN_CHARACTERS_MAX).chain(['…']).collect(),
    }
}

/// The columns by which a row is found: each by its name, and its type as SQL, a domain's base type, without a length, which would cut or round.
struct KeyColumns(Vec<(String, String)>);

impl KeyColumns {
    async fn of(session: &Session, relation: &Relation) -> Result<Self, Error> {
        let columns: Vec<_> = relation.columns().iter().filter(|column| column.key).collect();
        if columns.is_empty() {
            let problem = "it has no key; give it a primary key".to_owned();
            return Err(Error::Key { table: relation.name().clone(), problem });
        }
        let oids: Vec<u32> = columns.iter().map(|column| column.type_oid.get()).collect();
        let types = session.query(KEY_TYPES, &[&oids]).await?;
        if types.len() != columns.len() {
            return Err(Error::Unexpected(format!(
                "the types of the key of {} are not there",
                relation.name()
            )));
        }
        let mut named = Vec::with_capacity(columns.len());
        for (column, row) in columns.iter().zip(types) {
            let type_name: String = row.try_get(0)?;
            if row.try_get(1)? {
                let name = &column.name;
                let problem = format!("its column {name} has a domain inside its type ({type_name})");
                return Err(Error::Key { table: relation.name().clone(), problem });
            }
            named.push((column.name.clone(), type_name));
        }
        Ok(Self(named))
    }

    /// Hands the keys to the transaction, and has them read by their types.
    async fn bind(&self, session: &Session, relation: &Relation, keys: &[Key]) -> Result<(), Error> {
        let mut text = String::from("[");
        for (place, key) in keys.iter().enumerate() {
            if key.len() != self.0.len() || !self.0.iter().all(|(name, _)| key.contains_key(name)) {
                let columns = self.0.iter().map(|(name, _)| name.clone()).collect();
                let (table, place) = (relation.name().clone(), place + 1);
                return Err(Error::KeyColumns { table, place, given: given(key), columns });
            }
            text.push_str(if place == 0 { "" } else { "," });
            text.push_str(&format!("{{\"place\":{place}"));
            for (index, (name, _)) in self.0.iter().enumerate() {
                let value = key.get(name).map_or("null", |value| value.get());
                text.push_str(&format!(",\"k{index}\":{value}"));
            }
            text.push('}');
        }
        text.push(']');
        session.query("SELECT pg_catalog.set_config('walcast.keys', $1::text, true)", &[&text]).await?;
        // By itself, so that what the server says of a value is said of one that the client sent, and of no row.
        let tried =
            session.batch_execute(&format!("SELECT pg_catalog.count(*) FROM {}", self.wanted())).await;
        tried.map_err(|error| {
            let error = walcast_postgres::Error::from(error);
            match error.server_error() {
                Some(server) if server.sqlstate.starts_with("22") || server.sqlstate.starts_with("23") => {
                    Error::KeyValue { table: relation.name().clone(), problem: server.message.clone() }
                }
                _ => Error::Source(error),
            }
        })
    }

    fn wanted(&self) -> String {
        let columns: Vec<String> = self
            .0
            .iter()
            .enumerate()
            .map(|(index, (_, type_name))| format!("k{index} {type_name}"))
            .collect();
        format!(
            "pg_catalog.json_to_recordset(pg_catalog.current_setting('walcast.keys')::pg_catalog.json) \
             AS wanted (place pg_catalog.int4, {})",
            columns.join(", ")
        )
    }

    fn statement(&self, task: &Task<'_>, expressions: &[String]) -> String {
        let cells: Vec<String> =
            expressions.iter().enumerate().map(|(index, cell)| format!("{cell} AS c{index}")).collect();
        let keys = self
            .0
            .iter()
            .enumerate()
            .map(|(index, (name, _))| format!("{} AS q{index}", quote_identifier(name)));
        let inner: Vec<String> = cells.into_iter().chain(keys).collect();
        let outer: Vec<String> = (0..expressions.len()).map(|index| format!(", found.c{index}")).collect();
        let equal: Vec<String> =
            (0..self.0.len()).map(|index| format!("found.q{index} = wanted.k{index}")).collect();
        format!(
            "COPY (SELECT wanted.place{} FROM {} JOIN (SELECT {}{}) AS found ON {}) TO STDOUT",
            outer.concat(),
            self.wanted(),
            inner.join(", "),
            task.source(),
            equal.join(" AND ")
        )
    }

    /// A type may have no `=` that is found without its schema.
    fn not_comparable(&self, relation: &Relation, error: walcast_postgres::Error) -> Error {
        if error.sqlstate() != Some("42883") {
            return Error::Source(error);
        }
        let types: Vec<&str> = self.0.iter().map(|(_, type_name)| type_name.as_str()).collect();
        let problem = format!("keys of type {} cannot be looked up", types.join(", "));
        Error::Key { table: relation.name().clone(), problem }
    }
}
