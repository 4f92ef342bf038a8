//! Who waits for which row, and whom to ask the daemon for. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use walcast_model::{Cursor, FeedId, Op, RelationName};
use walcast_protocol::{Change, ErrorCode, SubscriptionId};

use crate::error::Error;
use crate::event::Event;
use crate::key::{Columns, Key, columns, values_of};
use crate::rows::{Rows, body};

/// How long a row is waited for by the stream alone, and the pause before it is asked for again.
pub(crate) const ASK_AFTER: Duration = Duration::from_secs(5);
/// Keys in one request (`rows_keys_max`).
const KEYS_MAX: usize = 1000;
/// Of a request's largest size, what is left for what is not a key.
const HEAD_BYTES: usize = 1024;

/// A row that was waited for.
#[derive(Clone, Debug)]
pub struct Found {
    /// The row, as the server wrote it.
    pub row: Box<RawValue>,
    /// How it was found.
    pub by: FoundBy,
}

/// How a row was found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FoundBy {
    /// A subscription brought it, and the caller has handled it.
    Stream(SubscriptionId),
    /// The daemon was asked. A subscription to the table brings it, or has brought it, before `reached` of `feed`.
    Rows {
        /// Of which feed the cursor is.
        feed: FeedId,
        /// Everything that the row contains is before it.
        reached: Cursor,
    },
}

/// What a waiter gets.
pub(crate) type Answer = oneshot::Sender<Result<Found, Error>>;
/// Which rows are good enough.
pub(crate) type Predicate = Box<dyn Fn(&RawValue) -> bool + Send>;

struct Waiter {
    table: RelationName,
    key: Key,
    predicate: Predicate,
    answer: Answer,
    /// When the daemon is asked.
    due: Instant,
}

/// Waiters of a table by the values of their keys, one for each set of columns that keys have: usually one.
#[derive(Default)]
struct Keyed(HashMap<Vec<String>, HashMap<Vec<String>, BTreeSet<u64>>>);

/// All who wait for rows.
#[derive(Default)]
pub(crate) struct Waits {
    waiters: HashMap<u64, Waiter>,
    tables: HashMap<RelationName, Keyed>,
    dues: BTreeSet<(Instant, u64)>,
    /// Found in what the caller has been given and has not handled yet.
    ripe: Vec<(u64, Found)>,
}

/// Keys of one table to ask for in one request.
#[derive(Debug)]
pub(crate) struct Batch {
    table: RelationName,
    keys: Vec<Key>,
}

impl Batch {
    pub(crate) fn body(&self) -> String {
        body(&self.table, None, self.keys.iter())
    }
}

impl Waits {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// Adds a waiter under a number that no other one has.
    pub(crate) fn add(
        &mut self,
        id: u64,
        table: RelationName,
        key: Key,
        due: Instant,
        predicate: Predicate,
        answer: Answer,
    ) {
        let keyed = self.tables.entry(table.clone()).or_default();
        let by_values = keyed.0.entry(key.columns().to_vec()).or_default();
        by_values.entry(key.values().to_vec()).or_default().insert(id);
        self.dues.insert((due, id));
        self.waiters.insert(id, Waiter { table, key, predicate, answer, due });
    }

    /// Takes a waiter away, and everything that is kept for it.
    fn take(&mut self, id: u64) -> Option<Waiter> {
        let waiter = self.waiters.remove(&id)?;
        self.dues.remove(&(waiter.due, id));
        if let Some(keyed) = self.tables.get_mut(&waiter.table) {
            keyed.remove(&waiter.key, id);
            if keyed.0.is_empty() {
                self.tables.remove(&waiter.table);
            }
        }
        Some(waiter)
    }

    /// Nobody waits for it any more. What is left of it is the caller's, and to be dropped outside of every lock.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<impl Sized + use<>> {
        let waiter = self.take(id)?;
        self.ripe.retain(|(ripe, _)| *ripe != id);
        Some(waiter)
    }

    /// The daemon is asked for it at `due`, and not when it was said before.
    pub(crate) fn set_due(&mut self, id: u64, due: Instant) {
        if let Some(waiter) = self.waiters.get_mut(&id) {
            self.dues.remove(&(waiter.due, id));
            waiter.due = due;
            self.dues.insert((due, id));
        }
    }

    /// When the daemon is to be asked next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.dues.first().map(|(due, _)| *due)
    }

    /// What is asked for now, in requests of at most `bytes_max`; again after [`ASK_AFTER`]. Equal keys are asked for once.
    pub(crate) fn take_due(&mut self, now: Instant, bytes_max: usize) -> Vec<Batch> {
        let due: Vec<u64> = self.dues.range(..=(now, u64::MAX)).map(|(_, id)| *id).collect();
        let mut groups: BTreeMap<(RelationName, Vec<String>), BTreeMap<Vec<String>, Key>> = BTreeMap::new();
        for id in due {
            self.set_due(id, now + ASK_AFTER);
            let Some(waiter) = self.waiters.get(&id) else { continue };
            let group = (waiter.table.clone(), waiter.key.columns().to_vec());
            let keys = groups.entry(group).or_default();
            keys.entry(waiter.key.values().to_vec()).or_insert_with(|| waiter.key.clone());
        }
        let bytes_max = bytes_max.saturating_sub(HEAD_BYTES);
        let mut batches = Vec::new();
        for ((table, _), keys) in groups {
            let mut batch = Batch { table: table.clone(), keys: Vec::new() };
            let mut bytes = 0;
            for key in keys.into_values() {
                bytes += key.json().len() + 1;
                if !batch.keys.is_empty() && (batch.keys.len() == KEYS_MAX || bytes > bytes_max) {
                    bytes = key.json().len() + 1;
                    batches.push(std::mem::replace(
                        &mut batch,
                        Batch { table: table.clone(), keys: Vec::new() },
                    ));
                }
                batch.keys.push(key);
            }
            batches.push(batch);
        }
        batches
    }

    /// Leaves out keys for which nobody waits any more. Whether there is one left.
    pub(crate) fn retain(&self, batch: &mut Batch) -> bool {
        let table = self.tables.get(&batch.table);
        batch.keys.retain(|key| table.is_some_and(|keyed| keyed.get(key).is_some()));
        !batch.keys.is_empty()
    }

    /// What the daemon has of a batch.
    pub(crate) fn answered(&mut self, batch: &Batch, rows: Rows) {
        for (key, row) in batch.keys.iter().zip(rows.rows) {
            let Some(row) = row else { continue };
            for id in self.waiting_for(&batch.table, key) {
                if self.waiters.get(&id).is_some_and(|waiter| (waiter.predicate)(&row)) {
                    let by = FoundBy::Rows { feed: rows.feed.clone(), reached: rows.reached };
                    self.resolve(id, Ok(Found { row: row.clone(), by }));
                }
            }
        }
    }

    /// The daemon will not answer a batch. What is wrong may be one key among many: then smaller ones are to be asked for
    /// in its place; else those who wait are told.
    pub(crate) fn refused(&mut self, mut batch: Batch, error: &Error) -> Vec<Batch> {
        let code = error.answer().map(|answer| &answer.code);
        let of_a_key = matches!(code, Some(ErrorCode::BadMessage | ErrorCode::LimitExceeded));
        if of_a_key && batch.keys.len() > 1 {
            let second = batch.keys.split_off(batch.keys.len() / 2);
            let second = Batch { table: batch.table.clone(), keys: second };
            return vec![batch, second];
        }
        for key in &batch.keys {
            for id in self.waiting_for(&batch.table, key) {
                self.resolve(id, Err(error.repeat()));
            }
        }
        Vec::new()
    }

    fn waiting_for(&self, table: &RelationName, key: &Key) -> Vec<u64> {
        let ids = self.tables.get(table).and_then(|keyed| keyed.get(key));
        ids.map(|ids| ids.iter().copied().collect()).unwrap_or_default()
    }

    fn resolve(&mut self, id: u64, outcome: Result<Found, Error>) {
        if let Some(waiter) = self.take(id) {
            // Who does not listen has cancelled.
            let _ = waiter.answer.send(outcome);
        }
    }

    /// Looks for rows in what the caller is given. Whether the daemon is to be asked at once: a change came that does not
    /// say all of its row.
    pub(crate) fn look_at(&mut self, event: &Event, now: Instant) -> bool {
        if self.waiters.is_empty() {
            return false;
        }
        match event {
            Event::Transaction(transaction) => {
                let mut ask = false;
                for change in &transaction.changes {
                    ask |= self.look_at_change(&transaction.id, change, now);
                }
                ask
            }
            Event::Snapshot(snapshot) => {
                for row in &snapshot.rows {
                    self.look_at_row(&snapshot.id, &snapshot.table, row);
                }
                false
            }
            _ => false,
        }
    }

    fn look_at_change(&mut self, id: &SubscriptionId, change: &Change, now: Instant) -> bool {
        if !matches!(change.op, Op::Insert | Op::Update) {
            return false;
        }
        let missed = match &change.row {
            Some(row) => {
                let missed = self.look_at_row(id, &change.table, row);
                if change.unchanged.is_empty() { Vec::new() } else { missed }
            }
            None => {
                let key = change.new_key.as_ref().or(change.key.as_ref()).and_then(|key| columns(key));
                key.map(|key| self.with_values_of(&change.table, &key)).unwrap_or_default()
            }
        };
        for id in &missed {
            self.set_due(*id, now);
        }
        !missed.is_empty()
    }

    /// Those who wait for this row and for whom it is not good enough.
    fn look_at_row(&mut self, id: &SubscriptionId, table: &RelationName, row: &RawValue) -> Vec<u64> {
        if !self.tables.contains_key(table) {
            return Vec::new();
        }
        let Some(read) = columns(row) else { return Vec::new() };
        let (good, missed): (Vec<u64>, Vec<u64>) = self
            .with_values_of(table, &read)
            .into_iter()
            .partition(|id| self.waiters.get(id).is_some_and(|waiter| (waiter.predicate)(row)));
        let found = || Found { row: row.to_owned(), by: FoundBy::Stream(id.clone()) };
        self.ripe.extend(good.into_iter().map(|id| (id, found())));
        missed
    }

    fn with_values_of(&self, table: &RelationName, row: &Columns<'_>) -> Vec<u64> {
        let Some(keyed) = self.tables.get(table) else { return Vec::new() };
        let mut all = Vec::new();
        for (columns, by_values) in &keyed.0 {
            let ids = values_of(row, columns).and_then(|values| by_values.get(&values));
            all.extend(ids.into_iter().flatten());
        }
        all
    }

    /// The caller has handled what it was given.
    pub(crate) fn handled(&mut self) {
        for (id, found) in std::mem::take(&mut self.ripe) {
            self.resolve(id, Ok(found));
        }
    }

    /// Nothing will be found any more.
    pub(crate) fn end(&mut self, error: &Error) {
        let all = std::mem::take(self);
        for waiter in all.waiters.into_values() {
            let _ = waiter.answer.send(Err(error.repeat()));
        }
    }
}

impl Keyed {
    fn get(&self, key: &Key) -> Option<&BTreeSet<u64>> {
        self.0.get(key.columns())?.get(key.values())
    }

    fn remove(&mut self, key: &Key, id: u64) {
        let Some(by_values) = self.0.get_mut(key.columns()) else { return };
        if let Some(ids) = by_values.get_mut(key.values()) {
            ids.remove(&id);
            if ids.is_empty() {
                by_values.remove(key.values());
            }
        }
        if by_values.is_empty() {
            self.0.remove(key.columns());
        }
    }
}
