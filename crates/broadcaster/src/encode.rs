//! The hot path: from a part of a transaction to the frames of a shape.
//!
//! Values are JSON already. What is left is to choose changes and columns and to put a head before them, into one
//! buffer. The head that names the subscription is the session's; everything after it is the same for all sessions
//! of a shape and shared by them.
//!
//! A part is one frame, unless a table changes its definition inside it: then a new frame begins with the first
//! change of the new definition, so that the `relation` message can stand before it.

mod crossing;
mod frame;
mod projection;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use walcast_model::{
    Change, CommitStart, Cursor, Meta, Oid, Op, Part, Relation, RelationName, Snapshot, Transaction,
};
use walcast_protocol::encode as protocol;

use crate::wanted::{Choice, Wanted};
pub(crate) use crossing::write_key;
pub(crate) use frame::{Frame, Heads, Piece, Says, relation};
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
    /// The only changes, by their index in the part, that can concern the shape; `None` when that is not known.
    pub(crate) only: Option<&'a [u32]>,
    /// Whether changes of definitions that what is granted does not fit are left out: the client was never told of the
    /// table.
    pub(crate) skips_unfit: bool,
}

impl View<'_> {
    /// Leaves nothing out.
    pub(crate) const fn whole() -> Self {
        // Before any change, also one with a negative seq.
        Self {
            from: Cursor::new(walcast_model::Lsn::ZERO, walcast_model::Seq::new(i64::MIN)),
            synced: None,
            is_compacted: false,
            only: None,
            skips_unfit: false,
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
    /// What the transaction says about itself; its origin is not sent to those who are it.
    pub(crate) meta: Option<Arc<Meta>>,
    /// Why it is not the whole part; then it is for nobody to deliver or keep.
    pub(crate) gap: Option<Gap>,
}

/// A change of which it is not known whether it concerns the shape.
#[derive(Clone, Debug)]
pub(crate) enum Gap {
    /// A filter is not bound to this definition of its table.
    Unbound(Arc<Relation>),
    /// What is granted of the table does not fit this definition.
    Unfit(Arc<Relation>),
    /// The row lacks what the filter needs.
    Undecided {
        /// The definition that the filter is bound to.
        relation: Arc<Relation>,
        /// The column that would decide, as an index of the relation's.
        column: usize,
    },
}

impl Encoded {
    /// Whether it says that it comes from there.
    pub(crate) fn is_from(&self, origin: &str) -> bool {
        self.meta.as_ref().and_then(|meta| meta.origin()) == Some(origin)
    }

    /// Memory that it holds, in bytes, near enough to budget by.
    pub(crate) fn bytes(&self) -> usize {
        let meta = self.meta.as_ref().map_or(0, |meta| meta.json().len());
        size_of::<Self>()
            + meta
            + self.runs.iter().map(|run| size_of::<Run>() + run.tail.len()).sum::<usize>()
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
    pub(crate) piece: Piece,
}

/// The frames of `part` for whoever wants this of it.
pub(crate) fn part(part: &Part, wanted: &Wanted, view: View<'_>) -> Encoded {
    let Planned { plans, gap } = plan(part, wanted, view);
    let count = plans.len();
    let mut runs = Vec::with_capacity(count);
    let mut following: Vec<Cursor> = plans.iter().skip(1).map(|plan| plan.from).collect();
    following.push(part.next_cursor());
    for (index, (plan, next)) in plans.into_iter().zip(following).enumerate() {
        let more = part.end().is_none() || index + 1 < count;
        let cursor = (view.synced.is_none() && !(view.is_compacted && more)).then_some(next);
        let mut tail = tail(part, &plan, cursor, more, view.is_compacted);
        if view.is_compacted {
            let mut text = Vec::from(tail);
            protocol::compacted(&mut text);
            tail = text.into();
        }
        let relations = plan.relations.into_iter().map(|chosen| chosen.relation).collect();
        runs.push(Run { relations, next, tail, piece: Piece { cursor, more } });
    }
    let (start, ends) = (part.transaction().start, part.end().is_some());
    Encoded { start, ends, next: part.next_cursor(), runs, meta: part.meta().cloned(), gap }
}

/// The frame, from behind its head on, that ends a transaction of which parts were delivered and whose last part has
/// nothing for the shape.
pub(crate) fn ending(part: &Part, with_cursor: bool) -> Bytes {
    let mut out = Vec::with_capacity(TAIL_FIXED_BYTES);
    let cursor = with_cursor.then(|| part.next_cursor());
    protocol::transaction_tail(&mut out, cursor, part.transaction(), None, |_| {}, false);
    out.into()
}

/// As [`ending`], of the net effect of many transactions; without a cursor it leads nowhere and comes again.
pub(crate) fn compacted_ending(transaction: &Transaction, cursor: Option<Cursor>) -> Bytes {
    let mut out = Vec::with_capacity(TAIL_FIXED_BYTES);
    protocol::transaction_tail(&mut out, cursor, transaction, None, |_| {}, false);
    protocol::compacted(&mut out);
    out.into()
}

/// A table's definition in a run, and what is taken of its rows.
struct Chosen {
    relation: Arc<Relation>,
    projection: Option<Projection>,
    /// Whether what a transaction with its changes says about itself is given.
    meta: bool,
}

/// One change as the shape is told it.
struct Delivery {
    /// Its index in the part.
    change: u32,
    /// The index of its table in the run's relations.
    place: u32,
    /// What it is for the shape: an update may bring a row into a filter, or take it out.
    op: Op,
}

/// The changes of one run.
struct Plan {
    from: Cursor,
    changes: Vec<Delivery>,
    relations: Vec<Chosen>,
    json_bytes: usize,
}

struct Planned {
    plans: Vec<Plan>,
    gap: Option<Gap>,
}

/// What is taken of the table that the change before was about, and where it is in the run: most changes are about the
/// same table as the one before.
struct Current<'a> {
    relation: &'a Arc<Relation>,
    choice: Choice,
    place: Option<u32>,
}

/// Chooses the changes.
fn plan(part: &Part, wanted: &Wanted, view: View<'_>) -> Planned {
    let lsn = part.transaction().start.lsn();
    let seen = view.synced.filter(|synced| synced.snapshot.sees(part.transaction().xid));
    let mut plans: Vec<Plan> = Vec::new();
    let mut current: Option<Current<'_>> = None;
    let all = 0..u32::try_from(part.changes().len()).unwrap_or(u32::MAX);
    let indexes: &mut dyn Iterator<Item = u32> = match view.only {
        Some(only) => &mut only.iter().copied(),
        None => &mut { all },
    };
    for index in indexes {
        let Some(change) = part.changes().get(index as usize) else { break };
        let cursor = Cursor::new(lsn, part.first().plus(index as usize));
        if cursor < view.from {
            continue;
        }
        let current = match &mut current {
            Some(current) if Arc::ptr_eq(current.relation, &change.relation) => current,
            other => {
                let relation = &change.relation;
                let is_synced = seen.is_some_and(|synced| synced.contains(relation));
                let choice = if is_synced { Some(Choice::Nothing) } else { wanted.choice(relation) };
                // Asked here and nowhere before: others who have the shape may take a binding back.
                let Some(choice) = choice else {
                    return Planned { plans, gap: Some(Gap::Unbound(Arc::clone(relation))) };
                };
                other.insert(Current { relation, choice, place: None })
            }
        };
        let op = match &current.choice {
            Choice::Nothing | Choice::Withheld => continue,
            Choice::Unfit if view.skips_unfit => continue,
            Choice::Unfit => {
                return Planned { plans, gap: Some(Gap::Unfit(Arc::clone(&change.relation))) };
            }
            Choice::Everything => change.op,
            Choice::Rows(predicate) => match predicate.decide(part, change) {
                Ok(Some(op)) => op,
                Ok(None) => continue,
                Err(undecided) => {
                    let (relation, column) = (Arc::clone(&change.relation), undecided.column);
                    return Planned { plans, gap: Some(Gap::Undecided { relation, column }) };
                }
            },
        };
        let place = current.place.or_else(|| place(&mut plans, cursor, change, wanted));
        let (Some(place), Some(plan)) = (place, plans.last_mut()) else { continue };
        current.place = Some(place);
        plan.changes.push(Delivery { change: index, place, op });
        plan.json_bytes += part.change_json(change).len() + 1;
    }
    Planned { plans, gap: None }
}

/// Where the change's table is in the run that is being collected, after beginning another one if its definition
/// is a new one; `None` when the table is not wanted.
fn place(plans: &mut Vec<Plan>, cursor: Cursor, change: &Change, wanted: &Wanted) -> Option<u32> {
    let relation = &change.relation;
    let selection = wanted.of(relation.name())?;
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
    let projection = Projection::new(relation, selection);
    plan.relations.push(Chosen { relation: Arc::clone(relation), projection, meta: selection.meta });
    u32::try_from(plan.relations.len() - 1).ok()
}

fn tail(part: &Part, plan: &Plan, cursor: Option<Cursor>, more: bool, is_compacted: bool) -> Bytes {
    let mut out = Vec::with_capacity(plan.json_bytes + TAIL_FIXED_BYTES);
    let is_as_it_was = |delivery: &Delivery| {
        part.changes().get(delivery.change as usize).is_some_and(|change| change.op == delivery.op)
    };
    let whole = plan.changes.len() == part.changes().len()
        && plan.relations.iter().all(|chosen| chosen.projection.is_none())
        && plan.changes.iter().all(is_as_it_was);
    let changes = |out: &mut Vec<u8>| {
        if whole {
            out.extend_from_slice(part.json());
            return;
        }
        for (position, delivery) in plan.changes.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            let Some(change) = part.changes().get(delivery.change as usize) else { continue };
            let chosen = plan.relations.get(delivery.place as usize);
            let projection = chosen.and_then(|chosen| chosen.projection.as_ref());
            match (delivery.op, projection) {
                (op, None) if op == change.op => out.extend_from_slice(part.change_json(change)),
                (op, Some(projection)) if op == change.op => projection.write_change(out, part, change),
                (Op::Delete, projection) => crossing::write_leaving(out, part, change, projection),
                (_, projection) => crossing::write_entering(out, part, change, projection),
            }
        }
    };
    let meta = part.meta().filter(|_| !is_compacted && plan.relations.iter().any(|chosen| chosen.meta));
    protocol::transaction_tail(&mut out, cursor, part.transaction(), meta.map(|meta| &**meta), changes, more);
    // A few of many columns take much less than the room for all, and what is kept is counted by its length.
    if out.capacity() > 2 * out.len() {
        out.shrink_to_fit();
    }
    out.into()
}

#[cfg(test)]
mod tests;
