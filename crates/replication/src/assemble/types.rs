//! What has to be asked about the values of a change before it can be rendered.
//!
//! The WAL has the text of a value and the id of its type. What the type is stands in the catalog only, as it is now: it
//! must never be older than the change, and where it is newer, the writers know since when (`walcast_pgoutput::json`).

use walcast_model::{Lsn, Oid, Xid};
use walcast_pgoutput::json::Conversion;
use walcast_pgoutput::{Message, OldTuple, Tuple, TupleColumn, TypeDefinition};

use super::relation::{Entry, Known};
use super::{AssembleError, Assembler, Step, Waiting};

/// Types that may have been altered since they were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypesQuestion {
    /// The types: those of a table's columns and all that they are made of, as far as is known.
    pub types: Vec<Oid>,
    /// The transaction that the next change belongs to. It may have altered them itself, and the stream may be ahead of
    /// the moment from which others see it (reference 1.8).
    pub transaction: Xid,
}

impl Assembler {
    /// Answers [`Step::NeedsTypes`]: the types in [`Assembler::types_mut`] are now as of a reading that saw everything
    /// that was committed before `position`. Goes on with the change.
    ///
    /// # Errors
    /// As [`Assembler::message`].
    pub fn types_read(&mut self, position: Lsn) -> Result<Step, AssembleError> {
        let commit = self.transaction.as_ref().map(|open| open.builder.transaction().start.lsn());
        if let Some(Waiting::Change(message)) = &self.waiting
            && let Some(oid) = relation_of(message)
            && let Some(Entry::Known(known)) = self.relations.get_mut(&oid)
        {
            // The reading came after the change, whatever it says; the question must not come again.
            let after_commit = Lsn::new(commit.unwrap_or_default().get().saturating_add(1));
            known.refresh(&self.types, position.max(after_commit));
        }
        self.resume()
    }

    /// Goes on with the change that waited for an answer. Does nothing when none does.
    ///
    /// # Errors
    /// As [`Assembler::message`].
    pub fn resume(&mut self) -> Result<Step, AssembleError> {
        match self.waiting.take() {
            Some(Waiting::Change(message)) => self.change(message),
            waiting => {
                self.waiting = waiting;
                Ok(Step::Next)
            }
        }
    }

    /// Adds to `wanted` the values of a change yet to come that only the server can convert, as far as its table is known
    /// already: so that many can be asked for at once.
    pub fn look_ahead(&self, start: Lsn, message: &Message, wanted: &mut Vec<Conversion>) {
        if let Some(known) = relation_of(message).and_then(|oid| self.known(oid)) {
            self.collect(known, start, message, wanted);
        }
    }

    /// The types that users can alter, of all tables that came so far; in no order. Reading them into
    /// [`Assembler::types_mut`] from time to time makes it certain of more changes which attributes they have.
    #[must_use]
    pub fn alterable_types(&self) -> Vec<Oid> {
        let tables = self.relations.values().filter_map(|entry| match entry {
            Entry::Known(known) if known.is_alterable() => Some(known),
            _ => None,
        });
        self.types.alterable(tables.flat_map(Known::type_oids))
    }

    /// What has to be asked before this change can be rendered.
    pub(super) fn question(&self, message: &Message) -> Option<Step> {
        let open = self.transaction.as_ref().filter(|open| open.wants_next())?;
        let known = self.known(relation_of(message)?).filter(|known| known.is_alterable())?;
        let transaction = open.builder.transaction();
        if known.read_at <= transaction.start.lsn() {
            let types = self.types.alterable(known.type_oids());
            return Some(Step::NeedsTypes(TypesQuestion { types, transaction: transaction.xid }));
        }
        let mut wanted = Vec::new();
        self.collect(known, self.at, message, &mut wanted);
        (!wanted.is_empty()).then_some(Step::NeedsConversions(wanted))
    }

    /// Domains over built-in types: the WAL says what the catalog may not know any more. Of all other types the catalog
    /// says more.
    pub(super) fn type_definition(&mut self, definition: &TypeDefinition) {
        if definition.schema.as_bytes().is_empty() {
            self.domain_bases.insert(definition.oid, definition.name.to_string());
        }
    }

    fn known(&self, oid: Oid) -> Option<&Known> {
        match self.relations.get(&oid)? {
            Entry::Known(known) => Some(known),
            Entry::Own => None,
        }
    }

    fn collect(&self, known: &Known, at: Lsn, message: &Message, wanted: &mut Vec<Conversion>) {
        if !known.is_converted {
            return;
        }
        let (new, old) = match message {
            Message::Insert(insert) => (Some(&insert.new), None),
            Message::Update(update) => (Some(&update.new), update.old.as_ref().map(OldTuple::tuple)),
            Message::Delete(delete) => (None, Some(delete.old.tuple())),
            _ => (None, None),
        };
        let cells =
            [new, old].into_iter().flatten().flat_map(|tuple: &Tuple| tuple.iter().zip(&known.columns));
        for (cell, column) in cells {
            if let TupleColumn::Text(text) = cell {
                column.writer.collect(text, at, &self.conversions, wanted);
            }
        }
    }
}

pub(super) fn relation_of(message: &Message) -> Option<Oid> {
    match message {
        Message::Insert(insert) => Some(insert.relation),
        Message::Update(update) => Some(update.relation),
        Message::Delete(delete) => Some(delete.relation),
        _ => None,
    }
}
