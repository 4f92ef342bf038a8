//! A change: from its tuples to its JSON, and what it does to last images.

use walcast_model::last_image::ImageEffect;
use walcast_model::{Cursor, Oid, Op};
use walcast_pgoutput::json::ValueError;
use walcast_pgoutput::{OldTuple, Tuple};

use super::images::{self, Images};
use super::relation::{Entry, Known};
use super::row::{Image, Values};
use super::transaction::Open;
use super::{AssembleError, Assembler, infallible};
use crate::metrics::VALUE_FALLBACKS_TOTAL;

/// What there is to render a change with.
struct Kept<'a> {
    known: &'a Known,
    /// With room in its part for the change.
    open: &'a mut Open,
    values: Values<'a>,
    failed: &'a mut Vec<(usize, ValueError)>,
    images: Option<&'a mut Images>,
    /// The change's position.
    at: Cursor,
}

impl Assembler {
    /// Renders a change of what the WAL says of the row before and after it, each where it has one.
    pub(super) fn render(
        &mut self,
        relation: Oid,
        op: Op,
        old: Option<&OldTuple>,
        new: Option<&Tuple>,
    ) -> Result<(), AssembleError> {
        let Some(Kept { known, open, values, failed, images, at }) = self.keep(relation)? else {
            return Ok(());
        };
        for tuple in old.map(OldTuple::tuple).into_iter().chain(new) {
            known.check(tuple)?;
        }
        // An update without an old tuple did not change the key.
        let before = old.map(OldTuple::tuple).or(new);
        // Nobody has the row before an insert.
        let looked_up = before.filter(|_| images.is_some() && op != Op::Insert);
        let key_before = looked_up.and_then(|before| images::key_before(known, values, before));
        let last = images::image_before(images.as_deref(), known, key_before.as_ref());

        let mut change = open.builder.change(op, &known.relation);
        let mut image = Image::new(known, values, failed);
        // Servers before 14.2 send no old key for a key that is stored out of line: the key is then not known.
        let keyed = before.filter(|before| image.key_is_known(before));
        if let Some(keyed) = keyed.filter(|_| known.has_key) {
            infallible(change.key(|out| image.key(keyed, out)));
        }
        if let Some(new) = new {
            // Also an insert may lack large values: an update that brought its row into the publication's row filter.
            infallible(change.row(|out| image.merged(new, old, last.as_deref(), out)));
        }
        match (old, &last) {
            (Some(OldTuple::Full(old)), _) => infallible(change.old(|out| image.all(old, out))),
            (_, Some(last)) if !known.is_alterable() => infallible(change.old(|out| {
                out.extend_from_slice(last);
                Ok(())
            })),
            _ => {}
        }
        change.unchanged(image.unchanged().map(|index| known.relation.columns()[index].name.as_str()));
        let filled = image.filled() + last.as_ref().map_or(0, bytes::Bytes::len);
        let mark = images.as_ref().and_then(|_| {
            let effect = match (keyed, new) {
                (None, _) => ImageEffect::Clear,
                (Some(_), None) => ImageEffect::Forget,
                (Some(_), Some(_)) => {
                    let is_whole = image.unchanged().next().is_none();
                    images::effect_of(&known.relation, change.row_json(), is_whole)
                }
            };
            images::mark(known, at.lsn(), effect)
        });
        if let Some(mark) = &mark {
            change.image(mark.clone());
        }
        finish(change.finish(), known, failed)?;
        if let Some(images) = images {
            images.filled(filled);
            let row = open.builder.last_row().filter(|_| new.is_some());
            images::note(images, &known.relation, mark.as_ref(), key_before, row, at);
        }
        Ok(())
    }

    /// Counts a change of this table; `None` for one that is not to be rendered.
    fn keep(&mut self, oid: Oid) -> Result<Option<Kept<'_>>, AssembleError> {
        let open = self.transaction.as_mut().ok_or(AssembleError::Misplaced { message: "a change" })?;
        let known = match self.relations.get(&oid).ok_or(AssembleError::UnknownRelation { oid })? {
            Entry::Own => return Ok(None),
            Entry::Known(known) => known,
        };
        let wanted = open.next_change(self.settings.part_bytes_max, &mut self.output.parts);
        let values = Values { at: self.at, conversions: &self.conversions, any_bytes: self.any_bytes };
        let at = Cursor::new(open.builder.transaction().start.lsn(), open.builder.next_seq());
        let (failed, images) = (&mut self.failed, self.images.as_mut());
        Ok(wanted.then_some(Kept { known, open, values, failed, images, at }))
    }
}

/// Ends a change, and says which of its values are not what `to_jsonb` prints.
fn finish<E>(
    finished: Result<(), E>,
    known: &Known,
    failed: &mut Vec<(usize, ValueError)>,
) -> Result<(), AssembleError> {
    for (index, error) in failed.drain(..) {
        metrics::counter!(VALUE_FALLBACKS_TOTAL).increment(1);
        known.warn_once(index, &error);
    }
    finished.map_err(|_| AssembleError::TooLarge { relation: known.relation.name().to_string() })
}
