//! Conditions on single values.

use super::comparand::{Comparand, Place, check_collation, comparand, reading};
use super::{Binder, Subject, type_error};
use crate::error::{FilterError, Refusal};
use crate::literal::{Constant, input};
use crate::node::Node;
use crate::pattern::Pattern;
use crate::syntax::{Comparison, Expression, Literal, Term, TermKind, Word};
use crate::types::Type;
use crate::value::number::Number;
use crate::value::read::Reading;
use crate::value::{Value, compare};

const NO_COLUMN: &str = "compare a column with a literal";

pub(super) fn literal(term: &Term) -> Option<&Literal> {
    match &term.kind {
        TermKind::Literal(literal) => Some(literal),
        _ => None,
    }
}

pub(super) fn needs_literal(term: &Term) -> FilterError {
    FilterError::new(Refusal::Unsupported, "no literal stands here", NO_COLUMN).at(term.at)
}

/// A comparison with what is known; NULL makes it NULL for every row.
fn compared(subject: &Subject, op: Comparison, (reading, value): Comparand) -> Node {
    match value {
        None => Node::Constant(None),
        Some(right) => Node::Compare { left: subject.operand.clone(), op, right, reading },
    }
}

impl Binder<'_> {
    pub(super) fn condition(&self, expression: &Expression) -> Result<Node, FilterError> {
        match expression {
            Expression::Compare { left, op, right } => self.compare(left, *op, right),
            Expression::Distinct { left, right, negated } => self.distinct(left, right, *negated),
            Expression::In { left, list, negated } => {
                let subject = self.subject(left)?.ok_or_else(|| no_column(left))?;
                let node = any_of(&subject, list)?;
                Ok(if *negated { node.negated() } else { node })
            }
            Expression::Like { left, pattern, escape, insensitive, negated } => {
                let node = self.like(left, pattern, *escape, *insensitive)?;
                Ok(if *negated { node.negated() } else { node })
            }
            Expression::Null { of, negated } => self.null(of, *negated),
            Expression::Containment { left, op, right } => self.containment(left, *op, right),
            Expression::Quantified { left, op, right, all } => self.quantified(left, *op, right, *all),
            Expression::Term(term) => self.bare(term),
            Expression::And(_) | Expression::Or(_) | Expression::Not(_) | Expression::Truth { .. } => {
                // Taken apart before it gets here.
                Err(FilterError::new(Refusal::Unsupported, "this condition is not supported", NO_COLUMN))
            }
        }
    }

    fn compare(&self, left: &Term, op: Comparison, right: &Term) -> Result<Node, FilterError> {
        match (self.subject(left)?, self.subject(right)?) {
            (Some(left), Some(other)) => columns(left, op, other).map_err(|error| error.at(right.at)),
            (Some(subject), None) => {
                let literal = literal(right).ok_or_else(|| array_term(right))?;
                Ok(compared(&subject, op, comparand(&subject, op, literal, Place::Operator)?))
            }
            (None, Some(subject)) => {
                let (op, literal) = (op.flipped(), literal(left).ok_or_else(|| array_term(left))?);
                Ok(compared(&subject, op, comparand(&subject, op, literal, Place::Operator)?))
            }
            (None, None) => constants(left, op, right),
        }
    }

    fn distinct(&self, left: &Term, right: &Term, negated: bool) -> Result<Node, FilterError> {
        let (subject, other) = match (self.subject(left)?, self.subject(right)?) {
            (Some(subject), None) => (subject, right),
            (None, Some(subject)) => (subject, left),
            (None, None) => return Err(no_column(left)),
            (Some(_), Some(_)) => {
                let hint = "compare the columns by =, and ask for NULL by IS NULL";
                return Err(
                    type_error("IS DISTINCT FROM between columns is not supported", hint).at(right.at)
                );
            }
        };
        let literal = literal(other).ok_or_else(|| needs_literal(other))?;
        let (reading, value) = comparand(&subject, Comparison::Eq, literal, Place::Operator)?;
        Ok(match value {
            // Distinct from NULL is what is not NULL.
            None => Node::Null { of: subject.operand, negated: !negated },
            Some(right) => Node::Distinct { left: subject.operand, right, negated, reading },
        })
    }

    fn like(
        &self,
        left: &Term,
        pattern: &Term,
        escape: Option<char>,
        insensitive: bool,
    ) -> Result<Node, FilterError> {
        let subject = self.subject(left)?.ok_or_else(|| no_column(left))?;
        if !subject.ty.is_collatable() {
            let hint = "LIKE takes columns of text, varchar, char(n) and name";
            return Err(type_error("LIKE of a column that is no string", hint).at(left.at));
        }
        check_collation(&subject, Comparison::Eq).map_err(|error| error.at(left.at))?;
        if !subject.utf8 {
            let hint = "compare by = or IN";
            let message = "LIKE depends on the database's encoding, which is not UTF8";
            return Err(FilterError::new(Refusal::Collation, message, hint).at(left.at));
        }
        let literal = literal(pattern).ok_or_else(|| needs_literal(pattern))?;
        let text = match &literal.word {
            Word::Null if is_type(literal, &Type::Text) => return Ok(Node::Constant(None)),
            Word::Quoted(text) if is_type(literal, &Type::Text) => text,
            _ => {
                let hint = "write the pattern as '…'";
                return Err(type_error("this pattern is not a string", hint).at(literal.at));
            }
        };
        input(&Type::Text, text).map_err(|error| error.at(literal.at))?;
        let pattern = Pattern::parse(text, escape, insensitive).map_err(|error| error.at(literal.at))?;
        pattern.check_case(subject.collation).map_err(|error| error.at(literal.at))?;
        Ok(Node::Like { of: subject.operand, pattern, negated: false })
    }

    fn null(&self, of: &Term, negated: bool) -> Result<Node, FilterError> {
        let Some(subject) = self.subject(of)? else {
            return match literal(of) {
                Some(literal) => Ok(Node::Constant(Some((literal.word == Word::Null) != negated))),
                None => Err(no_column(of)),
            };
        };
        if subject.ty == Type::Composite {
            let hint =
                "a composite value is NULL for Postgres when all its fields are; filter by another column";
            return Err(type_error("IS NULL of a composite column is not supported", hint).at(of.at));
        }
        Ok(Node::Null { of: subject.operand, negated })
    }

    /// A term that stands for a condition.
    fn bare(&self, term: &Term) -> Result<Node, FilterError> {
        if let Some(subject) = self.subject(term)? {
            if subject.ty != Type::Bool {
                let message = format!("column {:?} is not boolean", subject.operand.name);
                return Err(type_error(message, "compare it with a literal").at(term.at));
            }
            let right = Constant::new(Value::Bool(true), &Type::Bool);
            return Ok(Node::Compare {
                left: subject.operand,
                op: Comparison::Eq,
                right,
                reading: Reading::Bool,
            });
        }
        let found =
            literal(term).filter(|literal| is_type(literal, &Type::Bool)).map(|literal| &literal.word);
        match found {
            Some(Word::Bool(value)) => Ok(Node::Constant(Some(*value))),
            Some(Word::Null) => Ok(Node::Constant(None)),
            Some(Word::Quoted(text)) => match input(&Type::Bool, text) {
                Ok(Value::Bool(value)) => Ok(Node::Constant(Some(value))),
                _ => Err(no_condition(term)),
            },
            _ => Err(no_condition(term)),
        }
    }
}

/// Whether it has no cast, or one to this type.
fn is_type(literal: &Literal, ty: &Type) -> bool {
    literal.cast.as_deref().is_none_or(|cast| Type::named(cast).as_ref() == Some(ty))
}

fn no_condition(term: &Term) -> FilterError {
    type_error("this is not a condition", "compare a column with a literal").at(term.at)
}

pub(super) fn no_column(term: &Term) -> FilterError {
    if matches!(term.kind, TermKind::Claim(_)) {
        let hint = "bind the claims of a policy before its columns";
        return FilterError::new(Refusal::Claim, "a claim without a value", hint).at(term.at);
    }
    FilterError::new(Refusal::Unsupported, "no column stands here", "write the column on the left")
        .at(term.at)
}

fn array_term(term: &Term) -> FilterError {
    match &term.kind {
        TermKind::Array { .. } => {
            type_error("arrays are compared by @>, <@, && and ANY alone", "write column @> '{a,b}'")
                .at(term.at)
        }
        _ => no_column(term),
    }
}

/// Two literals, at least one of which was a claim: a condition that is the same for every row.
fn constants(left: &Term, op: Comparison, right: &Term) -> Result<Node, FilterError> {
    let (Some(one), Some(other)) = (literal(left), literal(right)) else {
        return Err(array_term(if literal(left).is_none() { left } else { right }));
    };
    if one.at.is_somewhere() && other.at.is_somewhere() {
        return Err(no_column(left));
    }
    if !op.is_equality() && !matches!((&one.word, &other.word), (Word::Number(_), _) | (_, Word::Number(_))) {
        return Err(type_error("claims are compared by = and <> alone, unless with a number", NO_COLUMN));
    }
    let ordering = match (&one.word, &other.word) {
        (Word::Null, _) | (_, Word::Null) => return Ok(Node::Constant(None)),
        (Word::Number(number), Word::Number(text) | Word::Quoted(text))
        | (Word::Quoted(text), Word::Number(number)) => {
            let parse = |text: &str| {
                Number::parse(text)
                    .map_err(|_| type_error("a claim is not the number it is compared with", NO_COLUMN))
            };
            let (number, text) = (parse(number)?, parse(text)?);
            let ordering = number.as_ref().compare(text.as_ref());
            if matches!(one.word, Word::Number(_)) { ordering } else { ordering.reverse() }
        }
        (Word::Quoted(one), Word::Quoted(other)) => one.cmp(other),
        (Word::Bool(value), Word::Bool(other)) => value.cmp(other),
        (Word::Bool(value), Word::Quoted(text)) | (Word::Quoted(text), Word::Bool(value)) => {
            let Value::Bool(other) = input(&Type::Bool, text)? else { return Ok(Node::Constant(None)) };
            value.cmp(&other)
        }
        _ => return Err(type_error("these are not compared", NO_COLUMN)),
    };
    Ok(Node::Constant(Some(op.holds(ordering))))
}

/// Two columns of one type.
fn columns(left: Subject, op: Comparison, right: Subject) -> Result<Node, FilterError> {
    let integers = left.ty.is_integer() && right.ty.is_integer();
    let same = left.ty == right.ty || integers;
    // Strings: Postgres fails where the collations of the two conflict, and only it knows which ones do.
    if !same || left.ty.is_collatable() || matches!(left.ty, Type::Jsonb | Type::Char) {
        let hint = "compare columns of one type that is no string and no jsonb, or a column with a literal";
        return Err(type_error("these two columns are not compared", hint));
    }
    let reading = reading(&left.ty, op)?;
    Ok(Node::CompareColumns { left: left.operand, op, right: right.operand, reading })
}

/// `subject IN (list)`, or `= ANY` of literals.
pub(super) fn any_of(subject: &Subject, list: &[Literal]) -> Result<Node, FilterError> {
    let place = if list.len() > 1 { Place::List } else { Place::Operator };
    let items = list.iter().map(|literal| comparand(subject, Comparison::Eq, literal, place));
    let items = items.collect::<Result<Vec<Comparand>, _>>()?;
    membership(subject, items)
}

/// Equal to one of these.
pub(super) fn membership(subject: &Subject, items: Vec<Comparand>) -> Result<Node, FilterError> {
    let of = subject.operand.clone();
    let null = items.iter().any(|(_, value)| value.is_none());
    let has = |wanted: &Reading| items.iter().any(|(reading, value)| value.is_some() && reading == wanted);
    if has(&Reading::IntegerAsFloat) && items.iter().filter(|(_, value)| value.is_some()).count() > 1 {
        return Err(type_error("a list mixes floats with an integer column", "write the values in quotes"));
    }
    let as_number = has(&Reading::Number) && has(&Reading::Integer);
    let mut reading = None;
    let mut values = Vec::new();
    for (item_reading, value) in items {
        let Some(value) = value else { continue };
        let (item_reading, value) = match value.value {
            Value::Int(number) if as_number => {
                (Reading::Number, Constant::new(Value::Number(Number::from_int(number)), &Type::Numeric))
            }
            _ => (item_reading, value),
        };
        reading = Some(item_reading);
        values.push(value);
    }
    let Some(reading) = reading else {
        return Ok(Node::Constant(if null { None } else { Some(false) }));
    };
    if reading == Reading::Json {
        let equal =
            |right| Node::Compare { left: of.clone(), op: Comparison::Eq, right, reading: Reading::Json };
        let mut parts: Vec<Node> = values.into_iter().map(equal).collect();
        parts.extend(null.then_some(Node::Constant(None)));
        return Ok(Node::Or(parts));
    }
    let by_value = |one: &Constant, other: &Constant| {
        compare(one.value.datum(), other.value.datum()).unwrap_or(std::cmp::Ordering::Equal)
    };
    values.sort_by(by_value);
    values.dedup_by(|one, other| by_value(one, other).is_eq());
    Ok(Node::In { of, values, null, negated: false, reading })
}
