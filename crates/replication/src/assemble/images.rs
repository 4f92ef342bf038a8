//! The newest full row of each key, as far as it is known: what was assembled and is not stored yet, in front of what
//! history has.
//!
//! ```text
//!   change ──record──► unstored images ──stored──► dropped: history has them
//!   look-up: unstored? ─► its image    cleared, not stored yet? ─► none    otherwise ─► Step::NeedsImages ─► found
//! ```
//!
//! What history is asked is at least as new as what was dropped here, and nothing that came after it is missing here: so
//! the two together are exactly as of the change at hand.
//!
//! A transaction that may have rewritten a table may be in the stream before the catalog can be asked what it did. Until
//! then nothing is completed, and each change makes history forget its row; what has the storage as it was before is
//! good again if it turns out to be the same.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use walcast_model::last_image::{ImageEffect, ImageMark, StorageId, can_keep, key_of, may_have_image};
use walcast_model::{Cursor, Lsn, Oid, Relation, RelationDigest, RelationName};
use walcast_pgoutput::{Message, OldTuple, Tuple};

use super::relation::{Definition, Entry, Known};
use super::row::{Image, Values};
use super::types::relation_of;
use super::{AssembleError, Assembler, Step, StorageFacts, infallible};
use crate::metrics::{IMAGES_COMPLETED_TOTAL, IMAGES_UNSTORED};

/// Says for which tables last images are kept.
pub type IsChosen = Arc<dyn Fn(&RelationName) -> bool + Send + Sync>;

/// One row whose last image is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageQuestion {
    /// The table.
    pub relation: Oid,
    /// Its definition; images of another one are of no use.
    pub digest: RelationDigest,
    /// Its storage, likewise.
    pub storage: StorageId,
    /// The row's key, as JSON.
    pub key: Bytes,
}

/// How many images room is kept for while there are none.
const UNSTORED_MIN: usize = 1024;

/// What is known of a row.
pub(super) enum Sought {
    /// History may know.
    Unknown,
    /// There is no image.
    Nothing,
    /// The whole row.
    Whole(Bytes),
}

#[derive(Debug)]
struct Entries {
    /// That of the table now; `None` when no images are kept of it.
    definition: Option<Definition>,
    /// The change that removed all images of the table; `Cursor::MAX` for the next one. Set until that is stored.
    cleared_at: Option<Cursor>,
    rows: HashMap<Bytes, Row>,
}

#[derive(Debug)]
struct Row {
    image: Option<Bytes>,
    /// The change that made it; `None` when history said so.
    at: Option<Cursor>,
}

/// See the module. Made anew with each connection, when all that was assembled before is stored.
pub(crate) struct Images {
    is_chosen: IsChosen,
    tables: HashMap<Oid, Entries>,
    /// What is not stored yet, in order; without a key for a table that was cleared.
    unstored: VecDeque<(Cursor, Oid, Option<Bytes>)>,
    looked_up: Vec<(Oid, Bytes)>,
    /// Where history is at least: it has what was stored before this connection, and what was dropped since.
    history_at: Cursor,
    /// Bytes that were filled in since the last look.
    filled: usize,
    /// Changes that were completed and are not counted yet.
    completed: u64,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("unstored", &self.unstored.len()).finish_non_exhaustive()
    }
}

impl Images {
    /// For a connection before which everything up to `head` was stored.
    pub(crate) fn new(is_chosen: IsChosen, head: Cursor) -> Self {
        Self {
            is_chosen,
            tables: HashMap::new(),
            unstored: VecDeque::new(),
            looked_up: Vec::new(),
            history_at: head,
            filled: 0,
            completed: 0,
        }
    }

    pub(super) fn is_chosen(&self, name: &RelationName) -> bool {
        (self.is_chosen)(name)
    }

    /// What comes before it is not remembered: history is to have it when it is asked.
    pub(crate) const fn history_at(&self) -> Cursor {
        self.history_at
    }

    /// Drops what history has by now.
    pub(crate) fn mark_stored(&mut self, stored: Cursor) {
        while let Some((at, oid, key)) = self.unstored.pop_front_if(|(at, ..)| *at < stored) {
            self.history_at = self.history_at.max(Cursor::new(at.lsn(), at.seq().plus(1)));
            let Some(table) = self.tables.get_mut(&oid) else { continue };
            match key {
                Some(key) if table.rows.get(&key).is_some_and(|row| row.at == Some(at)) => {
                    table.rows.remove(&key);
                }
                None if table.cleared_at == Some(at) => table.cleared_at = None,
                _ => {}
            }
        }
        let count: usize = self.tables.values().map(|table| table.rows.len()).sum();
        metrics::gauge!(IMAGES_UNSTORED).set(count as f64);
        // What a large transaction took is not held for ever.
        if self.unstored.is_empty() {
            self.unstored.shrink_to(UNSTORED_MIN);
            for table in self.tables.values_mut() {
                table.rows.shrink_to(UNSTORED_MIN);
            }
        }
    }

    /// Forgets what history was asked, as changes are stored from here on.
    pub(crate) fn forget_found(&mut self) {
        if self.completed > 0 {
            metrics::counter!(IMAGES_COMPLETED_TOTAL).increment(std::mem::take(&mut self.completed));
        }
        for (oid, key) in self.looked_up.drain(..) {
            if let Some(table) = self.tables.get_mut(&oid)
                && table.rows.get(&key).is_some_and(|row| row.at.is_none())
            {
                table.rows.remove(&key);
            }
        }
    }

    /// Takes what history said.
    pub(crate) fn found(&mut self, question: ImageQuestion, image: Option<Bytes>) {
        let definition = Some((question.digest, question.storage));
        let Some(table) = self.tables.get_mut(&question.relation) else { return };
        if table.definition == definition
            && table.cleared_at.is_none()
            && !table.rows.contains_key(&question.key)
        {
            table.rows.insert(question.key.clone(), Row { image, at: None });
            self.looked_up.push((question.relation, question.key));
        }
    }

    /// The table is defined anew, from its next change on.
    pub(super) fn define(&mut self, oid: Oid, definition: Option<Definition>) {
        match self.tables.get_mut(&oid) {
            Some(table) if table.definition == definition => {}
            Some(table) => {
                table.definition = definition;
                table.cleared_at = Some(Cursor::MAX);
                table.rows.clear();
            }
            None => {
                self.tables.insert(oid, Entries { definition, cleared_at: None, rows: HashMap::new() });
            }
        }
    }

    fn sought(&self, oid: Oid, key: &[u8]) -> Sought {
        let Some(table) = self.tables.get(&oid) else { return Sought::Nothing };
        match table.rows.get(key) {
            Some(Row { image: Some(image), .. }) => Sought::Whole(image.clone()),
            Some(Row { image: None, .. }) => Sought::Nothing,
            None if table.cleared_at.is_some() => Sought::Nothing,
            None => Sought::Unknown,
        }
    }

    /// The table has no images after the change at `at`.
    pub(super) fn clear(&mut self, oid: Oid, at: Cursor) {
        let unknown = || Entries { definition: None, cleared_at: None, rows: HashMap::new() };
        let table = self.tables.entry(oid).or_insert_with(unknown);
        table.rows.clear();
        table.cleared_at = Some(at);
        self.unstored.push_back((at, oid, None));
    }

    /// The change at `at` made this of the key.
    pub(super) fn record(&mut self, oid: Oid, key: Bytes, image: Option<Bytes>, at: Cursor) {
        let Some(table) = self.tables.get_mut(&oid) else { return };
        if table.cleared_at == Some(Cursor::MAX) {
            table.cleared_at = Some(at);
            self.unstored.push_back((at, oid, None));
        }
        table.rows.insert(key.clone(), Row { image, at: Some(at) });
        self.unstored.push_back((at, oid, Some(key)));
    }

    /// A change has this many bytes of an image.
    pub(super) const fn filled(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes);
        self.completed += (bytes > 0) as u64;
    }
}

/// The mark of a change, and what it makes of the keys before and after.
pub(super) fn mark(known: &Known, start: Lsn, effect: ImageEffect) -> Option<ImageMark> {
    let storage = known.storage.as_ref()?;
    // What was read of the storage later than the change may not have been so then.
    let is_certain = storage.since <= start && known.unseen.is_none();
    let effect = match effect {
        ImageEffect::Keep if !is_certain => ImageEffect::Forget,
        effect => effect,
    };
    Some(ImageMark { storage: Arc::clone(storage), effect })
}

/// What a row that was written does: kept when it is whole and fits.
pub(super) fn effect_of(relation: &Relation, row: &[u8], is_whole: bool) -> ImageEffect {
    match key_of(relation, row) {
        Some(key) if is_whole && can_keep(&key, row) => ImageEffect::Keep,
        _ => ImageEffect::Forget,
    }
}

/// Notes a change that is finished. `row` is the row after it, `before` the key before it.
pub(super) fn note(
    images: &mut Images,
    relation: &Relation,
    mark: Option<&ImageMark>,
    before: Option<Bytes>,
    row: Option<&[u8]>,
    at: Cursor,
) {
    let oid = relation.oid();
    let Some(mark) = mark else { return };
    if mark.effect == ImageEffect::Clear {
        return images.clear(oid, at);
    }
    let after = row.and_then(|row| key_of(relation, row)).map(Bytes::from);
    if let Some(before) = before
        && after.as_ref() != Some(&before)
    {
        images.record(oid, before, None, at);
    }
    if let Some(after) = after {
        let kept = row.filter(|_| mark.effect == ImageEffect::Keep);
        images.record(oid, after, kept.map(Bytes::copy_from_slice), at);
    }
}

impl Assembler {
    /// Keeps last images, and completes changes by them.
    pub(crate) fn keep_images(&mut self, is_chosen: IsChosen) {
        self.images = (!self.any_bytes).then(|| Images::new(is_chosen, self.position));
    }

    pub(crate) const fn images_mut(&mut self) -> Option<&mut Images> {
        self.images.as_mut()
    }

    /// Where the history is at least, with which changes are completed.
    pub(crate) fn history_at(&self) -> Cursor {
        self.images.as_ref().map_or(Cursor::ZERO, Images::history_at)
    }

    /// Bytes that were filled in since it was asked last.
    pub(crate) fn take_filled(&mut self) -> usize {
        self.images.as_mut().map_or(0, |images| std::mem::take(&mut images.filled))
    }

    /// Where the next change will be.
    pub(crate) fn next_change(&self) -> Cursor {
        self.transaction.as_ref().map_or(self.position, |open| {
            Cursor::new(open.builder.transaction().start.lsn(), open.builder.next_seq())
        })
    }

    /// Whether the storage of this change's table is to be looked at again: once in each transaction.
    pub(super) fn storage_question(&self, message: &Message) -> Option<Step> {
        let open = self.transaction.as_ref().filter(|open| open.wants_next())?;
        let relation = relation_of(message)?;
        let Some(Entry::Known(known)) = self.relations.get(&relation) else { return None };
        let asked_at = known.unseen?;
        (asked_at != open.builder.transaction().xid).then_some(Step::NeedsStorage(relation))
    }

    /// Answers [`Step::NeedsStorage`], and goes on with the change.
    ///
    /// # Errors
    /// As [`Assembler::message`].
    pub fn storage_read(&mut self, relation: Oid, facts: StorageFacts) -> Result<Step, AssembleError> {
        let at = self.transaction.as_ref().map(|open| open.builder.transaction().xid);
        if let Some(Entry::Known(known)) = self.relations.get_mut(&relation) {
            known.keep_storage(facts, at);
            let definition = known.definition();
            if let Some(images) = &mut self.images {
                images.define(relation, definition);
            }
        }
        self.resume()
    }

    /// The image that has to be looked up before this change can be rendered.
    pub(super) fn image_question(&self, message: &Message) -> Option<Step> {
        self.transaction.as_ref().filter(|open| open.wants_next())?;
        self.wanted_image(self.at, message).map(|question| Step::NeedsImages(vec![question]))
    }

    /// The image that a change will want, if it is not known here.
    pub(crate) fn wanted_image(&self, start: Lsn, message: &Message) -> Option<ImageQuestion> {
        let images = self.images.as_ref()?;
        let (oid, before) = match message {
            Message::Update(update) => {
                (update.relation, update.old.as_ref().map_or(&update.new, OldTuple::tuple))
            }
            Message::Delete(delete) => (delete.relation, delete.old.tuple()),
            _ => return None,
        };
        let Some(Entry::Known(known)) = self.relations.get(&oid) else { return None };
        let storage = known.storage.as_ref().filter(|_| known.unseen.is_none())?;
        let values = Values { at: start, conversions: &self.conversions, any_bytes: false };
        let key = key_before(known, values, before)?;
        matches!(images.sought(oid, &key), Sought::Unknown).then(|| ImageQuestion {
            relation: oid,
            digest: known.relation.digest(),
            storage: storage.id,
            key,
        })
    }
}

/// The key of this tuple, when there may be an image of it.
pub(super) fn key_before(known: &Known, values: Values<'_>, before: &Tuple) -> Option<Bytes> {
    if known.storage.is_none() || before.len() != known.columns.len() {
        return None;
    }
    let (mut failed, mut key) = (Vec::new(), Vec::new());
    let mut image = Image::new(known, values, &mut failed);
    if !image.key_is_known(before) {
        return None;
    }
    infallible(image.key(before, &mut key));
    may_have_image(&key).then(|| key.into())
}

/// The image of the row before a change, if there is one.
pub(super) fn image_before(images: Option<&Images>, known: &Known, key: Option<&Bytes>) -> Option<Bytes> {
    if known.unseen.is_some() {
        return None;
    }
    match images?.sought(known.relation.oid(), key?) {
        Sought::Whole(image) => Some(image),
        Sought::Nothing | Sought::Unknown => None,
    }
}

#[cfg(test)]
mod tests;
