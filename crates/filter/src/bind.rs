//! From names and words to columns, types and values.

mod arrays;
mod comparand;
mod conditions;
mod documents;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{FilterError, Refusal};
use crate::node::{Node, Operand};
use crate::predicate::{ColumnUse, Predicate};
use crate::schema::{Collation, Schema};
use crate::syntax::{Expression, Step, Term, TermKind};
use crate::types::Type;
use crate::value::json::PathStep;

/// What stands on the left of an operator, with all that binding knows of it.
pub(crate) struct Subject {
    pub(crate) operand: Operand,
    pub(crate) ty: Type,
    pub(crate) collation: Collation,
    pub(crate) utf8: bool,
}

pub(crate) struct Binder<'a> {
    schema: &'a Schema,
}

pub(crate) fn type_error(message: impl Into<String>, hint: &str) -> FilterError {
    FilterError::new(Refusal::Type, message, hint)
}

/// Binds an expression to a table.
pub(crate) fn bind(expression: &Expression, schema: &Schema) -> Result<Predicate, FilterError> {
    let binder = Binder { schema };
    let mut root = binder.node(expression)?.normalized();
    check_null(&root, true)?;
    let mut used: Vec<usize> = Vec::new();
    root.operands_mut(&mut |operand| used.push(operand.column));
    used.sort_unstable();
    used.dedup();
    let places: HashMap<usize, usize> =
        used.iter().enumerate().map(|(place, index)| (*index, place)).collect();
    root.operands_mut(&mut |operand| operand.column = places.get(&operand.column).copied().unwrap_or(0));
    let columns = used.iter().map(|index| ColumnUse::new(schema.relation(), *index)).collect();
    Ok(Predicate::new(Arc::clone(schema.relation()), columns, root))
}

/// Refuses what depends on whether a `null` in the row is NULL or jsonb's `null`: the feed writes both alike.
///
/// For one of them a condition is NULL, for the other it is false or true. Between NULL and false nothing can tell the
/// difference as long as AND and OR are all that is above, or IS TRUE; everything else is refused.
fn check_null(node: &Node, plain: bool) -> Result<(), FilterError> {
    let check = |operand: &Operand, is_true_for_null: bool| {
        if !operand.is_ambiguous() || (plain && !is_true_for_null) {
            return Ok(());
        }
        let message = format!(
            "the filter depends on whether the jsonb column {:?} is NULL or holds null, which the feed writes alike",
            operand.name
        );
        let hint = "make the column NOT NULL, ask for a key of it (column ->> 'key'), or add nothing but positive conditions";
        Err(FilterError::new(Refusal::JsonNull, message, hint))
    };
    let for_null = |node: &Node| crate::evaluate::json_null(node);
    match node {
        Node::And(parts) | Node::Or(parts) => parts.iter().try_for_each(|part| check_null(part, plain)),
        Node::Truth { of, value, .. } => check_null(of, *value == Some(true)),
        Node::Null { of, .. } => check(of, true),
        Node::Distinct { left, .. } => check(left, true),
        Node::Compare { left, .. } => check(left, for_null(node)),
        Node::JsonContainment { of, .. } => check(of, for_null(node)),
        Node::Constant(_)
        | Node::CompareColumns { .. }
        | Node::In { .. }
        | Node::Like { .. }
        | Node::ArrayContainment { .. }
        | Node::Element { .. } => Ok(()),
    }
}

impl Binder<'_> {
    fn node(&self, expression: &Expression) -> Result<Node, FilterError> {
        match expression {
            Expression::And(parts) => {
                Ok(Node::And(parts.iter().map(|part| self.node(part)).collect::<Result<_, _>>()?))
            }
            Expression::Or(parts) => {
                Ok(Node::Or(parts.iter().map(|part| self.node(part)).collect::<Result<_, _>>()?))
            }
            Expression::Not(of) => Ok(self.node(of)?.negated()),
            Expression::Truth { of, value, negated } => {
                Ok(Node::Truth { of: Box::new(self.node(of)?), value: *value, negated: *negated })
            }
            other => self.condition(other),
        }
    }

    /// The column or path that a term names; `None` for anything else.
    pub(crate) fn subject(&self, term: &Term) -> Result<Option<Subject>, FilterError> {
        let TermKind::Column { name, steps, text } = &term.kind else { return Ok(None) };
        let index = self.schema.find(name).ok_or_else(|| {
            let relation = self.schema.relation();
            let visible = relation.columns().iter().filter(|column| self.schema.find(&column.name).is_some());
            let names: Vec<&str> = visible.map(|column| column.name.as_str()).take(20).collect();
            let message = format!("column {name:?} does not exist in {}", relation.name());
            let hint = format!("the columns are {}; capitals need double quotes", names.join(", "));
            FilterError::new(Refusal::UnknownColumn, message, hint).at(term.at)
        })?;
        let column = self.schema.relation().columns().get(index);
        let ty = self.schema.column_type(index);
        let operand = Operand {
            column: index,
            name: name.clone(),
            path: steps.iter().cloned().map(PathStep::new).collect(),
            text: *text,
            nullable: column.is_none_or(|column| column.nullable),
            jsonb: matches!(ty, Type::Jsonb | Type::Json),
        };
        let utf8 = self.schema.utf8();
        if steps.is_empty() {
            return Ok(Some(Subject { operand, ty, collation: self.schema.collation(index), utf8 }));
        }
        check_path(name, &ty, steps).map_err(|error| error.at(term.at))?;
        let ty = if *text { Type::Text } else { Type::Jsonb };
        Ok(Some(Subject { operand, ty, collation: self.schema.default_collation(), utf8 }))
    }
}

fn check_path(name: &str, ty: &Type, steps: &[Step]) -> Result<(), FilterError> {
    if steps.iter().any(|step| matches!(step, Step::Key(key) if key.contains('\u{FFFD}'))) {
        return Err(type_error("a jsonb key with U+FFFD is not looked up", "use another key"));
    }
    match ty {
        Type::Jsonb => Ok(()),
        Type::Json => Err(type_error(
            format!("column {name:?} is json, whose text in the table is not kept in the feed"),
            "make the column jsonb",
        )),
        _ => Err(type_error(format!("column {name:?} is not jsonb"), "-> and ->> take a jsonb column")),
    }
}
