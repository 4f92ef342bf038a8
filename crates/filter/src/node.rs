//! The bound form of a filter: a tree in one shape for all that mean the same.

use crate::literal::Constant;
use crate::pattern::Pattern;
use crate::syntax::{Comparison, Containment};
use crate::value::json::PathStep;
use crate::value::read::Reading;

/// A column, or what a jsonb path finds in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Operand {
    /// The column's place in the predicate's list of columns.
    pub(crate) column: usize,
    pub(crate) name: String,
    pub(crate) path: Vec<PathStep>,
    /// The last step of the path is `->>`.
    pub(crate) text: bool,
    /// The column may be NULL.
    pub(crate) nullable: bool,
    pub(crate) jsonb: bool,
}

impl Operand {
    /// Whether a `null` in the row can be NULL and can be jsonb's `null` for this operand.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.jsonb && self.nullable && !self.text && self.path.iter().all(PathStep::keeps_scalars)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Node {
    /// The same for every row; `None` is NULL.
    Constant(Option<bool>),
    And(Vec<Node>),
    Or(Vec<Node>),
    /// `IS [NOT] TRUE`, `FALSE`, or (without a value) `UNKNOWN`.
    Truth {
        of: Box<Node>,
        value: Option<bool>,
        negated: bool,
    },
    Null {
        of: Operand,
        negated: bool,
    },
    Compare {
        left: Operand,
        op: Comparison,
        right: Constant,
        reading: Reading,
    },
    CompareColumns {
        left: Operand,
        op: Comparison,
        right: Operand,
        reading: Reading,
    },
    /// `IS [NOT] DISTINCT FROM` what is not NULL; `negated` for `NOT`.
    Distinct {
        left: Operand,
        right: Constant,
        negated: bool,
        reading: Reading,
    },
    In {
        of: Operand,
        /// In the order in which they compare, each once; at least one.
        values: Vec<Constant>,
        /// NULL is among them.
        null: bool,
        negated: bool,
        reading: Reading,
    },
    Like {
        of: Operand,
        pattern: Pattern,
        negated: bool,
    },
    /// An array and a list of elements.
    ArrayContainment {
        of: Operand,
        op: Containment,
        /// In their order, each once.
        values: Vec<Constant>,
        /// NULL is among them.
        null: bool,
        negated: bool,
        reading: Reading,
        /// The array type as SQL.
        ty: String,
    },
    /// `value op ANY (column)`, or `ALL`; a value of `None` is NULL.
    Element {
        value: Option<Constant>,
        op: Comparison,
        of: Operand,
        all: bool,
        reading: Reading,
        /// The element type as SQL.
        ty: String,
    },
    JsonContainment {
        of: Operand,
        op: Containment,
        /// A jsonb document, or the key for `?`.
        value: Constant,
        negated: bool,
    },
}

impl Node {
    /// NOT, moved to the leaves. There it is the opposite operator, because all of them are NULL for NULL and have a
    /// total order.
    pub(crate) fn negated(self) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(value.map(|value| !value)),
            Self::And(parts) => Self::Or(parts.into_iter().map(Self::negated).collect()),
            Self::Or(parts) => Self::And(parts.into_iter().map(Self::negated).collect()),
            Self::Truth { of, value, negated } => Self::Truth { of, value, negated: !negated },
            Self::Null { of, negated } => Self::Null { of, negated: !negated },
            Self::Compare { left, op, right, reading } => {
                Self::Compare { left, op: op.negated(), right, reading }
            }
            Self::CompareColumns { left, op, right, reading } => {
                Self::CompareColumns { left, op: op.negated(), right, reading }
            }
            Self::Distinct { left, right, negated, reading } => {
                Self::Distinct { left, right, negated: !negated, reading }
            }
            Self::In { of, values, null, negated, reading } => {
                Self::In { of, values, null, negated: !negated, reading }
            }
            Self::Like { of, pattern, negated } => Self::Like { of, pattern, negated: !negated },
            Self::ArrayContainment { of, op, values, null, negated, reading, ty } => {
                Self::ArrayContainment { of, op, values, null, negated: !negated, reading, ty }
            }
            Self::Element { value, op, of, all, reading, ty } => {
                Self::Element { value, op: op.negated(), of, all: !all, reading, ty }
            }
            Self::JsonContainment { of, op, value, negated } => {
                Self::JsonContainment { of, op, value, negated: !negated }
            }
        }
    }

    /// Calls `each` with every operand.
    pub(crate) fn operands_mut(&mut self, each: &mut impl FnMut(&mut Operand)) {
        match self {
            Self::Constant(_) => {}
            Self::And(parts) | Self::Or(parts) => {
                for part in parts {
                    part.operands_mut(each);
                }
            }
            Self::Truth { of, .. } => of.operands_mut(each),
            Self::Null { of, .. }
            | Self::In { of, .. }
            | Self::Like { of, .. }
            | Self::ArrayContainment { of, .. }
            | Self::Element { of, .. }
            | Self::JsonContainment { of, .. } => each(of),
            Self::Compare { left, .. } | Self::Distinct { left, .. } => each(left),
            Self::CompareColumns { left, right, .. } => {
                each(left);
                each(right);
            }
        }
    }

    /// One shape for what means the same: joints are flat and have no order, `flag` is `flag = true`, constants are
    /// gone where they decide nothing.
    pub(crate) fn normalized(self) -> Self {
        match self {
            Self::And(parts) => join(parts, true),
            Self::Or(parts) => join(parts, false),
            Self::Truth { of, value, negated } => match of.normalized() {
                Self::Constant(found) => Self::Constant(Some((found == value) != negated)),
                of => Self::Truth { of: Box::new(of), value, negated },
            },
            Self::Compare { left, op: Comparison::Ne, right, reading: Reading::Bool } => {
                let opposite = match right.value {
                    crate::value::Value::Bool(value) => crate::value::Value::Bool(!value),
                    other => other,
                };
                let right = Constant { value: opposite, ..right };
                Self::Compare { left, op: Comparison::Eq, right, reading: Reading::Bool }
            }
            Self::In { of, values, null: false, negated, reading } if values.len() == 1 => {
                let op = if negated { Comparison::Ne } else { Comparison::Eq };
                match values.into_iter().next() {
                    Some(right) => Self::Compare { left: of, op, right, reading }.normalized(),
                    None => Self::Constant(Some(negated)),
                }
            }
            other => other,
        }
    }
}

fn join(parts: Vec<Node>, all: bool) -> Node {
    let mut flat = Vec::new();
    for part in parts {
        match (part.normalized(), all) {
            (Node::And(inner), true) | (Node::Or(inner), false) => flat.extend(inner),
            // FALSE decides AND, TRUE decides OR; the other one adds nothing.
            (Node::Constant(Some(value)), _) if value != all => return Node::Constant(Some(value)),
            (Node::Constant(Some(_)), _) => {}
            (other, _) => flat.push(other),
        }
    }
    flat.sort_by_cached_key(crate::sql::node_sql);
    flat.dedup();
    match flat.len() {
        0 => Node::Constant(Some(all)),
        1 => flat.swap_remove(0),
        _ if all => Node::And(flat),
        _ => Node::Or(flat),
    }
}
