//! Under which values a predicate is filed.

use super::group::GroupKey;
use super::key;
use crate::literal::Constant;
use crate::node::{Node, Operand};
use crate::predicate::Predicate;
use crate::syntax::{Comparison, Containment};
use crate::value::read::Reading;

/// Values of a disjunction that are filed one by one; with more of them the predicate is evaluated for every row.
const ACCESSES_MAX: usize = 4096;

/// A part of a predicate of which the value of one operand tells whether it can be true.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// The value is one of these.
    Points { group: GroupKey, keys: Vec<Box<[u8]>> },
    /// The value is in this range, its ends included; `None` for no end.
    Range { group: GroupKey, low: Option<Box<[u8]>>, high: Option<Box<[u8]>> },
}

/// Where a predicate is found: it is true only for rows that one of its accesses finds.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    Accesses(Vec<Access>),
    Everything,
}

impl Access {
    pub(super) const fn group(&self) -> &GroupKey {
        match self {
            Self::Points { group, .. } | Self::Range { group, .. } => group,
        }
    }

    /// The smaller, the fewer rows it is expected to find.
    fn cost(&self) -> usize {
        match self {
            Self::Points { keys, .. } => keys.len(),
            Self::Range { low: Some(_), high: Some(_), .. } => 1 << 20,
            Self::Range { .. } => 1 << 22,
        }
    }
}

impl Lookup {
    pub(super) fn of(predicate: &Predicate) -> Self {
        let columns: Vec<usize> = predicate.columns().collect();
        Finder { columns: &columns }.node(predicate.root())
    }

    fn cost(&self) -> usize {
        match self {
            Self::Accesses(accesses) => accesses.iter().map(Access::cost).fold(0, usize::saturating_add),
            Self::Everything => usize::MAX,
        }
    }
}

/// Translates the places of a predicate's columns to those of the relation.
struct Finder<'a> {
    columns: &'a [usize],
}

impl Finder<'_> {
    fn group(&self, operand: &Operand, reading: &Reading, elements: bool) -> Option<GroupKey> {
        let column = self.columns.get(operand.column).copied()?;
        Some(GroupKey {
            column,
            operand: Operand { column: 0, ..operand.clone() },
            reading: reading.clone(),
            elements,
        })
    }

    fn points<'c>(
        &self,
        operand: &Operand,
        reading: &Reading,
        elements: bool,
        values: impl IntoIterator<Item = &'c Constant>,
    ) -> Option<Access> {
        let keys = values.into_iter().map(key_of).collect::<Option<Vec<_>>>()?;
        if keys.is_empty() {
            return None;
        }
        Some(Access::Points { group: self.group(operand, reading, elements)?, keys })
    }

    fn range(
        &self,
        operand: &Operand,
        op: Comparison,
        right: &Constant,
        reading: &Reading,
    ) -> Option<Access> {
        if !key::is_sorted(reading) {
            return None;
        }
        let (group, bound) = (self.group(operand, reading, false)?, Some(key_of(right)?));
        match op {
            Comparison::Lt | Comparison::Le => Some(Access::Range { group, low: None, high: bound }),
            Comparison::Gt | Comparison::Ge => Some(Access::Range { group, low: bound, high: None }),
            Comparison::Eq | Comparison::Ne => None,
        }
    }

    fn access(&self, node: &Node) -> Option<Access> {
        match node {
            Node::Compare { left, op: Comparison::Eq, right, reading }
            | Node::Distinct { left, right, negated: true, reading } => {
                self.points(left, reading, false, [right])
            }
            Node::Compare { left, op, right, reading } => self.range(left, *op, right, reading),
            Node::In { of, values, negated: false, reading, .. } => self.points(of, reading, false, values),
            Node::Element { value: Some(value), op: Comparison::Eq, of, all: false, reading, .. } => {
                self.points(of, reading, true, [value])
            }
            // Any one of the elements will do: the row has all of them.
            Node::ArrayContainment {
                of,
                op: Containment::Contains,
                values,
                null: false,
                negated: false,
                reading,
                ..
            } => self.points(of, reading, true, [values.first()?]),
            Node::ArrayContainment {
                of, op: Containment::Overlaps, values, negated: false, reading, ..
            } => self.points(of, reading, true, values),
            _ => None,
        }
    }

    fn node(&self, node: &Node) -> Lookup {
        match node {
            Node::Constant(Some(false) | None) => Lookup::Accesses(Vec::new()),
            Node::Truth { of, value: Some(true), negated: false } => self.node(of),
            Node::And(parts) => self.conjunction(parts),
            Node::Or(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    match self.node(part) {
                        Lookup::Accesses(accesses) => all.extend(accesses),
                        Lookup::Everything => return Lookup::Everything,
                    }
                }
                let lookup = Lookup::Accesses(all);
                if lookup_size(&lookup) > ACCESSES_MAX { Lookup::Everything } else { lookup }
            }
            other => self.access(other).map_or(Lookup::Everything, |access| Lookup::Accesses(vec![access])),
        }
    }

    /// The best of its parts, after the two ends of a range were put together.
    fn conjunction(&self, parts: &[Node]) -> Lookup {
        let mut lookups = Vec::new();
        let mut ranges: Vec<Access> = Vec::new();
        for part in parts {
            let lookup = self.node(part);
            if let Lookup::Accesses(accesses) = &lookup
                && let [Access::Range { group, low, high }] = accesses.as_slice()
            {
                let known = ranges.iter_mut().find(|range| range.group() == group);
                if let Some(Access::Range { low: known_low, high: known_high, .. }) = known {
                    // Of two ends on one side either is right.
                    *known_low = known_low.take().or_else(|| low.clone());
                    *known_high = known_high.take().or_else(|| high.clone());
                } else {
                    ranges.extend(accesses.iter().cloned());
                }
                continue;
            }
            lookups.push(lookup);
        }
        lookups.extend(ranges.into_iter().map(|range| Lookup::Accesses(vec![range])));
        lookups.into_iter().min_by_key(Lookup::cost).unwrap_or(Lookup::Everything)
    }
}

fn lookup_size(lookup: &Lookup) -> usize {
    let size = |access: &Access| match access {
        Access::Points { keys, .. } => keys.len(),
        Access::Range { .. } => 1,
    };
    match lookup {
        Lookup::Accesses(accesses) => accesses.iter().map(size).sum(),
        Lookup::Everything => 0,
    }
}

fn key_of(constant: &Constant) -> Option<Box<[u8]>> {
    let mut out = Vec::new();
    key::write(constant.value.datum(), &mut out).then(|| out.into())
}
