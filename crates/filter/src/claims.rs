//! Policies: filters that compare columns with what a token says of its bearer.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::error::{FilterError, Refusal};
use crate::filter::Filter;
use crate::limits::LIST_ITEMS_MAX;
use crate::syntax::{self, Containment, Expression, Literal, Place, Term, TermKind, Word};

/// The claims of a token: a JSON object, numbers with all their digits. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Claims(BTreeMap<String, Box<RawValue>>);

/// What a claim is.
enum Claim {
    /// Not there, or `null`.
    Absent,
    /// A string, or a number or boolean in its digits and letters.
    Scalar(String),
    /// The elements; `None` for `null`.
    List(Vec<Option<String>>),
    /// An object, as JSON.
    Object(String),
}

fn claim_error(message: String, hint: &str) -> FilterError {
    FilterError::new(Refusal::Claim, message, hint)
}

impl Claims {
    /// Reads claims from the payload of a token. Of equal keys the last one counts.
    ///
    /// # Errors
    /// When the text is not a JSON object.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        serde_json::from_str(json).map(Self).map_err(|_| {
            claim_error("the claims are not a JSON object".into(), "send a token with an object")
        })
    }

    /// A claim as texts: one, or those of a list; numbers and booleans in their digits and letters. `None` where it is missing
    /// or has another form.
    #[must_use]
    pub fn texts(&self, path: &[String]) -> Option<Vec<String>> {
        match self.find(path).ok()? {
            Claim::Scalar(text) => Some(vec![text]),
            Claim::List(items) => Some(items.into_iter().flatten().collect()),
            Claim::Absent | Claim::Object(_) => None,
        }
    }

    fn find(&self, path: &[String]) -> Result<Claim, FilterError> {
        let Some((first, rest)) = path.split_first() else { return Ok(Claim::Absent) };
        let mut members: Vec<BTreeMap<String, Box<RawValue>>> = Vec::new();
        let mut found = self.0.get(first).cloned();
        for key in rest {
            let Some(value) = found else { return Ok(Claim::Absent) };
            // What is not an object has no members.
            let Ok(object) = serde_json::from_str(value.get()) else { return Ok(Claim::Absent) };
            members.push(object);
            found = members.last().and_then(|object| object.get(key)).cloned();
        }
        let Some(value) = found else { return Ok(Claim::Absent) };
        read(value.get()).ok_or_else(|| {
            let message = format!("claim {} is not a value, or not a list of values", path.join("."));
            claim_error(
                message,
                "a claim is a string, a number, a boolean, a list of these, or an object for jsonb",
            )
        })
    }
}

fn scalar(json: &str) -> Option<Option<String>> {
    match json.as_bytes().first()? {
        b'n' => Some(None),
        b'"' => serde_json::from_str(json).ok().map(Some),
        b'{' | b'[' => None,
        _ => Some(Some(json.to_owned())),
    }
}

fn read(json: &str) -> Option<Claim> {
    match json.as_bytes().first()? {
        b'{' => Some(Claim::Object(json.to_owned())),
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(json).ok()?;
            let items: Option<Vec<_>> = items.iter().map(|item| scalar(item.get())).collect();
            items.filter(|items| items.len() <= LIST_ITEMS_MAX).map(Claim::List)
        }
        _ => Some(scalar(json)?.map_or(Claim::Absent, Claim::Scalar)),
    }
}

/// A row predicate of the configuration, in which `claims.name` and `claims.a.b` stand for what a token says. The names
/// are compared with those in the token as they are written, upper and lower case included.
///
/// A claim is a value, never text of the predicate: it is typed by the column that it is compared with, as a literal in
/// quotes is. Beside an array and in `ANY` and `ALL` it is a list, a single value one of one; beside `@>` and `<@` of jsonb it is
/// an object. One that is missing or `null` is NULL, so that what is compared with it is not true. One that cannot be a
/// value of the column's type makes [`Filter::bind`] fail; deny access then.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    pub(crate) expression: Expression,
}

impl Policy {
    /// Reads the text of a policy.
    ///
    /// # Errors
    /// As [`Filter::parse`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { expression: syntax::parse(text, true)? })
    }

    /// The filter for the bearer of these claims.
    ///
    /// # Errors
    /// When a claim has a form that its place cannot take, such as a list beside `=`.
    pub fn bind_claims(&self, claims: &Claims) -> Result<Filter, FilterError> {
        Ok(Filter::from(expression(&self.expression, claims)?))
    }
}

fn boxed(of: &Expression, claims: &Claims) -> Result<Box<Expression>, FilterError> {
    expression(of, claims).map(Box::new)
}

fn expression(from: &Expression, claims: &Claims) -> Result<Expression, FilterError> {
    let all = |parts: &[Expression]| -> Result<Vec<Expression>, FilterError> {
        parts.iter().map(|part| expression(part, claims)).collect()
    };
    let one = |term: &Term| single(term, claims);
    Ok(match from {
        Expression::Or(parts) => Expression::Or(all(parts)?),
        Expression::And(parts) => Expression::And(all(parts)?),
        Expression::Not(of) => Expression::Not(boxed(of, claims)?),
        Expression::Truth { of, value, negated } => {
            Expression::Truth { of: boxed(of, claims)?, value: *value, negated: *negated }
        }
        Expression::Compare { left, op, right } => {
            Expression::Compare { left: one(left)?, op: *op, right: one(right)? }
        }
        Expression::Distinct { left, right, negated } => {
            Expression::Distinct { left: one(left)?, right: one(right)?, negated: *negated }
        }
        Expression::In { left, list, negated } => {
            Expression::In { left: one(left)?, list: list.clone(), negated: *negated }
        }
        Expression::Quantified { left, op, right, all } => {
            Expression::Quantified { left: one(left)?, op: *op, right: list(right, claims)?, all: *all }
        }
        Expression::Like { left, pattern, escape, insensitive, negated } => {
            if matches!(pattern.kind, TermKind::Claim(_)) {
                let hint = "compare with it by =: its bearer could write % into it";
                return Err(claim_error("a claim is no pattern".into(), hint).at(pattern.at));
            }
            Expression::Like {
                left: one(left)?,
                pattern: pattern.clone(),
                escape: *escape,
                insensitive: *insensitive,
                negated: *negated,
            }
        }
        Expression::Null { of, negated } => Expression::Null { of: present(of, claims)?, negated: *negated },
        Expression::Containment { left, op, right } => Expression::Containment {
            left: contained(left, *op, claims)?,
            op: *op,
            right: contained(right, *op, claims)?,
        },
        Expression::Term(term) => Expression::Term(one(term)?),
    })
}

/// A claim's value as a literal.
fn literal(word: Word) -> Literal {
    Literal { word, cast: None, at: Place::NOWHERE }
}

fn term(word: Word, at: Place) -> Term {
    Term { kind: TermKind::Literal(literal(word)), at }
}

fn array(items: Vec<Option<String>>, at: Place) -> Term {
    let items = items.into_iter().map(|item| literal(item.map_or(Word::Null, Word::Quoted))).collect();
    Term { kind: TermKind::Array { items, cast: None, quoted: true }, at }
}

fn no_single(path: &[String], at: Place) -> FilterError {
    let message = format!("claim {} is not a single value", path.join("."));
    claim_error(message, "compare with a list by = ANY (claims.name)").at(at)
}

fn single(from: &Term, claims: &Claims) -> Result<Term, FilterError> {
    let TermKind::Claim(path) = &from.kind else { return Ok(from.clone()) };
    match claims.find(path).map_err(|error| error.at(from.at))? {
        Claim::Absent => Ok(term(Word::Null, from.at)),
        Claim::Scalar(text) => Ok(term(Word::Quoted(text), from.at)),
        Claim::List(_) | Claim::Object(_) => Err(no_single(path, from.at)),
    }
}

/// A list; a single value is a list of one.
fn list(from: &Term, claims: &Claims) -> Result<Term, FilterError> {
    let TermKind::Claim(path) = &from.kind else { return Ok(from.clone()) };
    match claims.find(path).map_err(|error| error.at(from.at))? {
        Claim::Absent => Ok(term(Word::Null, from.at)),
        Claim::Scalar(text) => Ok(array(vec![Some(text)], from.at)),
        Claim::List(items) => Ok(array(items, from.at)),
        Claim::Object(_) => Err(no_single(path, from.at)),
    }
}

/// A list beside an array, an object beside jsonb, a single value as a key. What a claim says is never read as an array or as a
/// document: whoever has a say in a text could write `{}` into it, which every array and every document contains.
fn contained(from: &Term, op: Containment, claims: &Claims) -> Result<Term, FilterError> {
    let TermKind::Claim(path) = &from.kind else { return Ok(from.clone()) };
    if op == Containment::HasKey {
        return single(from, claims);
    }
    match claims.find(path).map_err(|error| error.at(from.at))? {
        Claim::Object(json) => {
            // An array is none.
            let literal = Literal { cast: Some("jsonb".to_owned()), ..literal(Word::Quoted(json)) };
            Ok(Term { kind: TermKind::Literal(literal), at: from.at })
        }
        Claim::Absent | Claim::Scalar(_) | Claim::List(_) => list(from, claims),
    }
}

/// Only whether it is there.
fn present(from: &Term, claims: &Claims) -> Result<Term, FilterError> {
    let TermKind::Claim(path) = &from.kind else { return Ok(from.clone()) };
    match claims.find(path) {
        Ok(Claim::Absent) => Ok(term(Word::Null, from.at)),
        _ => Ok(term(Word::Bool(true), from.at)),
    }
}
