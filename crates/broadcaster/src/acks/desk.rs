//! What is to be stored, and who has which name.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use walcast_history::{Acknowledged, ClientKey};
use walcast_model::Cursor;

use crate::refusal::Refusal;

/// What became of what a client acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Nothing was stored yet.
    Nothing,
    /// This is durable; 0/0: that nothing is acknowledged.
    Durable(Cursor),
    /// The last was not stored, and will not be.
    Refused(Refusal),
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) holders: HashMap<ClientKey, Holder>,
    pub(super) holders_ever: u64,
    /// To be stored. At most `acks_waiting_max` beside those that are being stored.
    pub(super) due: HashMap<ClientKey, Due>,
    /// Being stored. Left over where that was cancelled.
    pub(super) storing: HashMap<ClientKey, Due>,
}

#[derive(Debug)]
pub(super) struct Holder {
    pub(super) number: u64,
    pub(super) outcome: Arc<watch::Sender<Outcome>>,
}

#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) cursor: Cursor,
    pub(super) tables: Arc<str>,
    /// Whether it was acknowledged, and is confirmed; otherwise it corrects what was acknowledged before, if anything was.
    pub(super) is_acknowledged: bool,
    /// A name for what policies gave the client when it acknowledged.
    pub(super) rights: Option<Arc<str>>,
    pub(super) outcome: Arc<watch::Sender<Outcome>>,
}

impl Due {
    /// Comes in place of what is not stored yet. Who only corrects it has acknowledged nothing under other rights.
    pub(super) fn instead_of(mut self, former: &Self) -> Self {
        if !self.is_acknowledged && self.rights.is_none() {
            self.rights.clone_from(&former.rights);
        }
        self
    }
}

impl Desk {
    /// Takes back what was not stored, unless something newer is there.
    pub(super) fn put_back(&mut self) {
        for (key, due) in self.storing.drain() {
            self.due.entry(key).or_insert(due);
        }
    }

    pub(super) fn take(&mut self, count_max: usize) -> Vec<Acknowledged> {
        self.put_back();
        let keys: Vec<ClientKey> = self.due.keys().take(count_max).cloned().collect();
        let mut batch = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(due) = self.due.remove(&key) else { continue };
            batch.push(Acknowledged {
                key: key.clone(),
                cursor: due.cursor,
                tables: due.tables.as_ref().to_owned(),
                adds: due.is_acknowledged,
                rights: due.rights.clone(),
            });
            self.storing.insert(key, due);
        }
        batch
    }

    pub(super) fn settle(&mut self, acknowledged: &Acknowledged, outcome: Outcome) {
        let Some(stored) = self.storing.remove(&acknowledged.key) else { return };
        // What is due since is not refused with it.
        let is_last = !self.due.contains_key(&acknowledged.key);
        if (stored.is_acknowledged || stored.cursor == Cursor::ZERO)
            && (is_last || !matches!(outcome, Outcome::Refused(_)))
        {
            stored.outcome.send_replace(outcome);
        }
    }
}
