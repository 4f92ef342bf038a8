//! The hot path: from a part of a transaction to the frames of a shape.
//!
//! Values are JSON already. What is left is to choose changes and columns and to put a head before them, into one
//! buffer. The head that names the subscription is the session's; everything after it is the same for all sessions
//! of a shape and shared by them.
//!
//! A part is one frame, unless a table changes its definition inside it: then a new frame begins with the first
//! change of the new definition, so that the `relation` message can stand before it.

mod frame;
mod projection;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use walcast_model::{Change, CommitStart, Cursor, Oid, Part, Relation, RelationName, Snapshot, Transaction};
use walcast_protocol::encode as protocol;

use crate::request::{Selection, Wanted};
pub(crate) use frame::{Frame, Heads, relation};
pub(crate) use projection::{Projection, project_rows};

/// Room for what stands around the changes of a frame, in bytes.
const TAIL_FIXED_BYTES: usize = 192;

/// What a session leaves out of a part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// Changes before it were delivered already.
    pub(crate) from: Cursor,
    /// What an initial sync has delivered already.
    pub(crate) synced: Option<&'a Synced>,
    /// The part is of the net effect of many transactions: only the cursor after its end means anything.
    pub(crate) is_compacted: bool,
}

impl View<'_> {
    /// Leaves nothing out.
    pub(crate) const fn whole() -> Self {
        // Before any change, also one with a negative seq.
        Self {
            from: Cursor::new(walcast_model::Lsn::ZERO, walcast_model::Seq::new(i64::MIN)),
            synced: None,
            is_compacted: false,
        }
    }
}

/// What the rows of an initial sync contain: the transactions that its snapshot sees, as far as they are about its
/// tables.
#[derive(Clone, Debug)]
pub(crate) struct Synced {
    pub(crate) snapshot: Snapshot,
    /// The tables whose rows were sent. A change of one of them is in those rows whatever the table was called when
    /// the change was made. What is in none of the two sets was published later, and is all still to be delivered.
    pub(crate) oids: HashSet<Oid>,
    /// What they were called. A change under one of these names, of a table that is not among `oids`, is of one that
    /// lost the name before the snapshot was taken: the rows that were sent under it took its place.
    pub(crate) names: HashSet<RelationName>,
}

impl Synced {
    fn contains(&self, relation: &Relation) -> bool {
        self.oids.contains(&relation.oid()) || self.names.contains(relation.name())
    }
}

/// The frames of one part for one shape.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The transaction.
    pub(crate) start: CommitStart,
    /// Whether it is the transaction's last part.
    pub(crate) ends: bool,
    /// The cursor after the part.
    pub(crate) next: Cursor,
    /// In order; none when nothing of the part concerns the shape.
    pub(crate) runs: Vec<Run>,
}

impl Encoded {
    /// Memory that it holds, in bytes, near enough to budget by.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.runs.iter().map(|run| size_of::<Run>() + run.tail.len()).sum::<usize>()
    }
}

/// Changes that go into one frame.
#[derive(Debug)]
pub(crate) struct Run {
    /// The definitions of its tables, one for each, in the order of their first change.
    pub(crate) relations: Vec<Arc<Relation>>,
    /// The cursor after it.
    pub(crate) next: Cursor,
    /// The frame from behind its head on.
    pub(crate) tail: Bytes,
}

/// The frames of `part` for whoever wants this of it.
pub(crate) fn part(part: &Part, wanted: &Wanted, view: View<'_>) -> Encoded {
    let plans = plan(part, wanted, view);
    let count = plans.len();
    let mut runs = Vec::with_capacity(count);
    let mut following: Vec<Cursor> = plans.iter().skip(1).map(|plan| plan.from).collect();
    following.push(part.next_cursor());
    for (index, (plan, next)) in plans.into_iter().zip(following).enumerate() {
        let more = part.end().is_none() || index + 1 < count;
        let cursor = (view.synced.is_none() && !(view.is_compacted && more)).then_some(next);
        let mut tail = tail(part, &plan, cursor, more);
        if view.is_compacted {
            let mut text = Vec::from(tail);
            protocol::compacted(&mut text);
            tail = text.into();
        }
        let relations = plan.relations.into_iter().map(|chosen| chosen.relation).collect();
        runs.push(Run { relations, next, tail });
    }
    Encoded { start: part.transaction().start, ends: part.end().is_some(), next: part.next_cursor(), runs }
}

/// The frame, from behind its head on, that ends a transaction of which parts were delivered and whose last part has
/// nothing for the shape.
pub(crate) fn ending(part: &Part, with_cursor: bool) -> Bytes {
    let mut out = Vec::with_capacity(TAIL_FIXED_BYTES);
    let cursor = with_cursor.then(|| part.next_cursor());
    protocol::transaction_tail(&mut out, cursor, part.transaction(), |_| {}, false);
    out.into()
}

/// As [`ending`], of the net effect of many transactions; without a cursor it leads nowhere and comes again.
pub(crate) fn compacted_ending(transaction: &Transaction, cursor: Option<Cursor>) -> Bytes {
    let mut out = Vec::with_capacity(TAIL_FIXED_BYTES);
    protocol::transaction_tail(&mut out, cursor, transaction, |_| {}, false);
    protocol::compacted(&mut out);
    out.into()
}

/// A table's definition in a run, and what is taken of its rows.
struct Chosen {
    relation: Arc<Relation>,
    projection: Option<Projection>,
}

/// The changes of one run.
struct Plan {
    from: Cursor,
    /// Index of the change in the part, index of its table in `relations`.
    changes: Vec<(u32, u32)>,
    relations: Vec<Chosen>,
    json_bytes: usize,
}

/// Chooses the changes. Filters and policies (issue 4) will look at each change here.
fn plan(part: &Part, wanted: &Wanted, view: View<'_>) -> Vec<Plan> {
    let lsn = part.transaction().start.lsn();
    let seen = view.synced.filter(|synced| synced.snapshot.sees(part.transaction().xid));
    let mut plans: Vec<Plan> = Vec::new();
    // What is known about the table of the change before: most changes are about the same table.
    let mut last: Option<(&Arc<Relation>, Option<u32>)> = None;
    for (index, change) in part.changes().iter().enumerate() {
        let cursor = Cursor::new(lsn, part.first().plus(index));
        if cursor < view.from {
            continue;
        }
        let place = match last {
            Some((relation, place)) if Arc::ptr_eq(relation, &change.relation) => place,
            _ => place(&mut plans, cursor, change, wanted, seen),
        };
        last = Some((&change.relation, place));
        if let (Some(place), Some(plan)) = (place, plans.last_mut()) {
            plan.changes.push((u32::try_from(index).unwrap_or(u32::MAX), place));
            plan.json_bytes += part.change_json(change).len() + 1;
        }
    }
    plans
}

/// Where the change's table is in the run that is being collected, after beginning another one if its definition
/// is a new one; `None` when the change is not wanted.
fn place(
    plans: &mut Vec<Plan>,
    cursor: Cursor,
    change: &Change,
    wanted: &Wanted,
    seen: Option<&Synced>,
) -> Option<u32> {
    let relation = &change.relation;
    let selection = wanted.of(relation.name())?;
    if seen.is_some_and(|synced| synced.contains(relation)) {
        return None;
    }
    let same_table = |chosen: &Chosen| chosen.relation.name() == relation.name();
    let known = plans.last().and_then(|plan| plan.relations.iter().position(same_table));
    let plan = match (known, plans.last_mut()) {
        (Some(index), Some(plan)) if plan.relations[index].relation.digest() == relation.digest() => {
            return u32::try_from(index).ok();
        }
        (None, Some(plan)) => plan,
        _ => {
            plans.push(Plan { from: cursor, changes: Vec::new(), relations: Vec::new(), json_bytes: 0 });
            plans.last_mut()?
        }
    };
    plan.relations.push(chosen(relation, selection));
    u32::try_from(plan.relations.len() - 1).ok()
}

fn chosen(relation: &Arc<Relation>, selection: &Selection) -> Chosen {
    Chosen { relation: Arc::clone(relation), projection: Projection::new(relation, selection) }
}

fn tail(part: &Part, plan: &Plan, cursor: Option<Cursor>, more: bool) -> Bytes {
    let mut out = Vec::with_capacity(plan.json_bytes + TAIL_FIXED_BYTES);
    let whole = plan.changes.len() == part.changes().len()
        && plan.relations.iter().all(|chosen| chosen.projection.is_none());
    let changes = |out: &mut Vec<u8>| {
        if whole {
            out.extend_from_slice(part.json());
            return;
        }
        for (position, &(index, place)) in plan.changes.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let Some(change) = part.changes().get(index as usize) else { continue };
            match plan.relations.get(place as usize).and_then(|chosen| chosen.projection.as_ref()) {
                Some(projection) => projection.write_change(out, part, change),
                None => out.extend_from_slice(part.change_json(change)),
            }
        }
    };
    protocol::transaction_tail(&mut out, cursor, part.transaction(), changes, more);
    // A few of many columns take much less than the room for all, and what is kept is counted by its length.
    if out.capacity() > 2 * out.len() {
        out.shrink_to_fit();
    }
    out.into()
}

#[cfg(test)]
mod tests;
