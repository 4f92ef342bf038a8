//! Arrays, and `ANY` and `ALL`.

use super::comparand::{Comparand, Place, check_collation, comparand, reading};
use super::conditions::{literal, membership, needs_literal, no_column};
use super::{Binder, Subject, type_error};
use crate::error::FilterError;
use crate::literal::{Constant, array_elements};
use crate::node::Node;
use crate::syntax::{Comparison, Containment, Literal, Term, TermKind, Word};
use crate::types::Type;
use crate::value::compare;

/// What a term says of an array: its elements, or that it is NULL.
enum ArrayTerm {
    Null,
    /// Each as if it stood alone in quotes, so that it has the type of the array beside it.
    Quoted(Vec<Literal>),
    /// `ARRAY[…]`, whose type comes from its elements.
    Built(Vec<Literal>),
}

fn array_term(term: &Term) -> Result<ArrayTerm, FilterError> {
    match &term.kind {
        TermKind::Array { items, quoted: true, .. } => Ok(ArrayTerm::Quoted(items.clone())),
        TermKind::Array { items, cast: None, .. } => Ok(ArrayTerm::Built(items.clone())),
        TermKind::Array { items, cast: Some(name), .. } => {
            let element = name.strip_suffix("[]").ok_or_else(|| {
                type_error(format!("an array is not cast to {name}"), "cast to an array type").at(term.at)
            })?;
            let cast = |item: &Literal| Literal { cast: Some(element.to_owned()), ..item.clone() };
            if items.iter().any(|item| item.cast.is_some()) {
                return Err(
                    type_error("a cast of casts", "cast the array or its elements, not both").at(term.at)
                );
            }
            Ok(ArrayTerm::Quoted(items.iter().map(cast).collect()))
        }
        TermKind::Literal(literal) => {
            let element = match literal.cast.as_deref() {
                None => None,
                Some(name) => Some(name.strip_suffix("[]").ok_or_else(|| {
                    type_error(format!("a value of type {name} is no array"), "write it as '{a,b}'")
                        .at(term.at)
                })?),
            };
            let text = match &literal.word {
                Word::Null => return Ok(ArrayTerm::Null),
                Word::Quoted(text) => text,
                _ => return Err(type_error("this is no array", "write it as '{1,2}'").at(term.at)),
            };
            let items = array_elements(text).map_err(|error| error.at(term.at))?;
            let item = |item: Option<String>| Literal {
                word: item.map_or(Word::Null, Word::Quoted),
                cast: element.map(str::to_owned),
                at: literal.at,
            };
            Ok(ArrayTerm::Quoted(items.into_iter().map(item).collect()))
        }
        TermKind::Column { .. } | TermKind::Claim(_) => Err(no_column(term)),
    }
}

/// The elements of an array column as a subject of their own.
fn elements(subject: &Subject) -> Option<Subject> {
    let Type::Array(element) = &subject.ty else { return None };
    Some(Subject {
        operand: subject.operand.clone(),
        ty: (**element).clone(),
        collation: subject.collation,
        utf8: subject.utf8,
    })
}

fn check_element(ty: &Type) -> Result<(), FilterError> {
    match ty {
        Type::Jsonb | Type::Json | Type::Array(_) => Err(type_error(
            "arrays of json and jsonb are not supported",
            "keep the values in one jsonb column",
        )),
        _ => Ok(()),
    }
}

impl Binder<'_> {
    pub(super) fn quantified(
        &self,
        left: &Term,
        op: Comparison,
        right: &Term,
        all: bool,
    ) -> Result<Node, FilterError> {
        if let Some(array) = self.subject(right)? {
            let Some(element) = elements(&array) else {
                let message = format!("column {:?} is no array", array.operand.name);
                return Err(type_error(message, "ANY and ALL take an array").at(right.at));
            };
            check_element(&element.ty).map_err(|error| error.at(right.at))?;
            let literal = literal(left).ok_or_else(|| needs_literal(left))?;
            // `v op ANY (column)` compares v with each element: the element is on the right.
            let flipped = op.flipped();
            let (reading, value) = comparand(&element, flipped, literal, Place::Operator)?;
            let ty = element.ty.to_string();
            return Ok(Node::Element { value, op, of: array.operand, all, reading, ty });
        }
        let array = array_term(right)?;
        let Some(subject) = self.subject(left)? else { return constants(left, op, &array, all) };
        let (items, built) = match array {
            ArrayTerm::Null => return Ok(Node::Constant(None)),
            ArrayTerm::Quoted(items) => (items, false),
            ArrayTerm::Built(items) => (items, true),
        };
        if built {
            check_built(&subject.ty, &items).map_err(|error| error.at(right.at))?;
        }
        check_element(&subject.ty).map_err(|error| error.at(right.at))?;
        let node = match (op, all) {
            (Comparison::Eq, false) | (Comparison::Ne, true) => {
                let values = items.iter().map(|item| comparand(&subject, op, item, Place::Operator));
                membership(&subject, values.collect::<Result<Vec<Comparand>, _>>()?)?
            }
            _ => {
                let compared = |item: &Literal| {
                    let (reading, value) = comparand(&subject, op, item, Place::Operator)?;
                    Ok(match value {
                        None => Node::Constant(None),
                        Some(right) => Node::Compare { left: subject.operand.clone(), op, right, reading },
                    })
                };
                let parts = items.iter().map(compared).collect::<Result<Vec<Node>, FilterError>>()?;
                return Ok(if all { Node::And(parts) } else { Node::Or(parts) });
            }
        };
        Ok(if all { node.negated() } else { node })
    }

    pub(super) fn containment(
        &self,
        left: &Term,
        op: Containment,
        right: &Term,
    ) -> Result<Node, FilterError> {
        let (subject, op, other) = match (self.subject(left)?, self.subject(right)?) {
            (Some(subject), None) => (subject, op, right),
            (None, Some(subject)) => {
                let op = match op {
                    Containment::Contains => Containment::ContainedBy,
                    Containment::ContainedBy => Containment::Contains,
                    Containment::Overlaps => op,
                    Containment::HasKey => {
                        return Err(type_error("? takes a jsonb column on its left", "write column ? 'key'")
                            .at(left.at));
                    }
                };
                (subject, op, left)
            }
            (Some(_), Some(_)) => {
                let hint = "give the other side as a literal";
                return Err(
                    type_error(format!("{} between columns is not supported", op.sql()), hint).at(right.at)
                );
            }
            (None, None) => return Err(no_column(left)),
        };
        if subject.ty == Type::Jsonb {
            return super::documents::containment(subject, op, other);
        }
        let Some(element) = elements(&subject).filter(|_| op != Containment::HasKey) else {
            let message = format!("{} is not supported for column {:?}", op.sql(), subject.operand.name);
            return Err(type_error(message, "@>, <@ and && take arrays, @>, <@ and ? jsonb").at(other.at));
        };
        check_element(&element.ty).map_err(|error| error.at(other.at))?;
        let place = |error: FilterError| error.at(other.at);
        check_collation(&element, Comparison::Eq).map_err(place)?;
        let items = match array_term(other)? {
            ArrayTerm::Null => return Ok(Node::Constant(None)),
            ArrayTerm::Quoted(items) => items,
            ArrayTerm::Built(items) => {
                check_same(&element.ty, &items).map_err(place)?;
                items
            }
        };
        let element_reading = reading(&element.ty, Comparison::Eq).map_err(place)?;
        let (mut values, mut null) = (Vec::new(), false);
        for item in &items {
            // As an element of an array of this type; not resolved by itself.
            let item_place = if element.ty == Type::Cidr { Place::List } else { Place::Operator };
            let (found, value) = comparand(&element, Comparison::Eq, item, item_place)?;
            if found != element_reading {
                return Err(place(type_error("the elements have another type", "write the array as '{…}'")));
            }
            match value {
                None => null = true,
                Some(value) => values.push(value),
            }
        }
        let by_value = |one: &Constant, other: &Constant| {
            compare(one.value.datum(), other.value.datum()).unwrap_or(std::cmp::Ordering::Equal)
        };
        values.sort_by(by_value);
        values.dedup_by(|one, other| by_value(one, other).is_eq());
        let ty = subject.ty.to_string();
        let of = subject.operand;
        Ok(Node::ArrayContainment { of, op, values, null, negated: false, reading: element_reading, ty })
    }
}

/// `ARRAY['a']` is an array of text, whatever stands beside it.
fn check_built(ty: &Type, items: &[Literal]) -> Result<(), FilterError> {
    let quoted = items.iter().any(|item| matches!((&item.word, &item.cast), (Word::Quoted(_), None)));
    let untyped = items.iter().all(|item| item.word == Word::Null && item.cast.is_none());
    if items.is_empty() || (quoted || untyped) && !ty.is_text() {
        let message = "ARRAY[…] of strings is an array of text, which is not compared with this column";
        return Err(type_error(message, "write it as '{a,b}': it then has the column's type"));
    }
    let casts = items.iter().any(|item| item.cast.is_some());
    if casts && items.len() > 1 {
        let hint = "cast the whole: ARRAY[1,2]::int8[], or write it as '{1,2}'";
        return Err(type_error("casts inside of ARRAY[…] are not supported", hint));
    }
    Ok(())
}

/// Operators between arrays take two of exactly one type.
fn check_same(element: &Type, items: &[Literal]) -> Result<(), FilterError> {
    let same = !items.is_empty()
        && items.iter().all(|item| match (&item.word, item.cast.as_deref()) {
            (Word::Quoted(_), None) => *element == Type::Text,
            (Word::Bool(_), None) => *element == Type::Bool,
            (Word::Number(digits), None) => *element == Type::Int4 && digits.parse::<i32>().is_ok(),
            (Word::Null, None) => true,
            _ => false,
        });
    let typed = items.iter().any(|item| item.word != Word::Null);
    if same && typed {
        return Ok(());
    }
    Err(type_error(
        "the array has another type than the column",
        "write it as '{1,2}' or cast it: ARRAY[1,2]::int8[]",
    ))
}

/// `claim = ANY (claim)`: the same for every row.
fn constants(left: &Term, op: Comparison, array: &ArrayTerm, all: bool) -> Result<Node, FilterError> {
    let one = literal(left).ok_or_else(|| needs_literal(left))?;
    let items = match array {
        ArrayTerm::Null => return Ok(Node::Constant(None)),
        ArrayTerm::Quoted(items) | ArrayTerm::Built(items) => items,
    };
    if !op.is_equality()
        || items.iter().all(|item| item.at.is_somewhere()) && one.at.is_somewhere() && !items.is_empty()
    {
        return Err(no_column(left));
    }
    let text = |literal: &Literal| match &literal.word {
        Word::Null => None,
        Word::Bool(value) => Some(value.to_string()),
        Word::Number(text) | Word::Quoted(text) => Some(text.clone()),
    };
    let wanted = text(one);
    let parts = items.iter().map(|item| match (&wanted, text(item)) {
        (Some(one), Some(other)) => Node::Constant(Some((*one == other) == (op == Comparison::Eq))),
        _ => Node::Constant(None),
    });
    let parts = parts.collect();
    Ok(if all { Node::And(parts) } else { Node::Or(parts) })
}
