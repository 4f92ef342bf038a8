//! Three-valued logic on rows that may not be known whole.
//!
//! A condition gives the set of answers that it can have: one of true, false and NULL where everything is known; false or
//! NULL for a `null` of jsonb; all three for a column that the row does not have. AND and OR combine the sets, so that
//! what is decided by the known columns is decided.

use std::cmp::Ordering;

use crate::literal::Constant;
use crate::node::{Node, Operand};
use crate::syntax::{Comparison, Containment};
use crate::value::read::{Reading, Unreadable};
use crate::value::{Datum, Value, compare, json};

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const NULL: u8 = 4;

/// The answers that are possible, and the column for which there is more than one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answers {
    set: u8,
    missing: Option<usize>,
}

impl Answers {
    const fn one(value: Option<bool>) -> Self {
        let set = match value {
            Some(true) => TRUE,
            Some(false) => FALSE,
            None => NULL,
        };
        Self { set, missing: None }
    }

    const fn any(column: usize) -> Self {
        Self { set: TRUE | FALSE | NULL, missing: Some(column) }
    }

    const fn or_null(value: bool) -> Self {
        Self { set: NULL | if value { TRUE } else { FALSE }, missing: None }
    }

    const fn can_be(self, answers: u8) -> bool {
        self.set & answers != 0
    }

    /// The only answer, if there is one.
    pub(crate) const fn only(self) -> Option<Option<bool>> {
        match self.set {
            TRUE => Some(Some(true)),
            FALSE => Some(Some(false)),
            NULL => Some(None),
            _ => None,
        }
    }

    pub(crate) const fn can_be_true(self) -> bool {
        self.can_be(TRUE)
    }

    /// The column that would have to be known.
    pub(crate) const fn missing(self) -> Option<usize> {
        self.missing
    }

    /// AND: false if one is, else NULL if one is. OR is the same with the roles of true and false exchanged.
    fn join(self, other: Self, neutral: u8, decisive: u8) -> Self {
        let mut set = 0;
        if self.can_be(decisive) || other.can_be(decisive) {
            set |= decisive;
        }
        if self.can_be(neutral) && other.can_be(neutral) {
            set |= neutral;
        }
        if self.can_be(NULL) && other.can_be(NULL | neutral)
            || other.can_be(NULL) && self.can_be(NULL | neutral)
        {
            set |= NULL;
        }
        let missing = if set.count_ones() > 1 { self.missing.or(other.missing) } else { None };
        Self { set, missing }
    }

    fn is(self, value: Option<bool>, negated: bool) -> Self {
        let wanted = Self::one(value).set;
        let (yes, no) = if negated { (FALSE, TRUE) } else { (TRUE, FALSE) };
        let mut set = 0;
        if self.can_be(wanted) {
            set |= yes;
        }
        if self.can_be(!wanted) {
            set |= no;
        }
        Self { set, missing: if set.count_ones() > 1 { self.missing } else { None } }
    }
}

/// The values of the columns that a predicate needs, by their place in it; `None` for what the row does not have.
pub(crate) type Slots<'a, 's> = &'s [Option<&'a [u8]>];

/// What an operand finds in a row.
pub(crate) enum Found<'a> {
    Missing,
    Null,
    /// NULL or jsonb's `null`.
    NullOrJsonNull,
    Json(&'a [u8]),
    Text(Datum<'a>),
}

fn find<'a>(operand: &Operand, slots: Slots<'a, '_>) -> Found<'a> {
    find_in(operand, slots.get(operand.column).copied().flatten())
}

/// What an operand finds in the value of its column.
pub(crate) fn find_in<'a>(operand: &Operand, column: Option<&'a [u8]>) -> Found<'a> {
    let Some(mut json) = column else { return Found::Missing };
    if json == b"null" {
        if operand.is_ambiguous() {
            return Found::NullOrJsonNull;
        }
        if !operand.jsonb || operand.nullable {
            return Found::Null;
        }
    }
    for step in &operand.path {
        match step.follow(json) {
            Some(value) => json = value,
            None => return Found::Null,
        }
    }
    if operand.text {
        return json::as_text(json).map_or(Found::Null, |text| Found::Text(Datum::Text(text)));
    }
    Found::Json(json)
}

/// The datum of an operand, or the answer that there is without it.
fn datum<'a>(operand: &Operand, reading: &Reading, slots: Slots<'a, '_>) -> Result<Datum<'a>, Answers> {
    match find(operand, slots) {
        Found::Missing => Err(Answers::any(operand.column)),
        Found::Null => Err(Answers::one(None)),
        Found::NullOrJsonNull => Err(Answers { set: TRUE | FALSE | NULL, missing: None }),
        Found::Text(datum) => Ok(datum),
        Found::Json(json) => reading.read(json).map_err(|Unreadable| Answers::any(operand.column)),
    }
}

fn holds(op: Comparison, left: Datum<'_>, right: Datum<'_>) -> Option<bool> {
    compare(left, right).map(|ordering| op.holds(ordering))
}

/// What a condition on a jsonb operand gives for jsonb's `null`.
pub(crate) fn json_null(node: &Node) -> bool {
    match node {
        Node::Compare { op, right, .. } => {
            holds(*op, Datum::Json(b"null"), right.value.datum()) == Some(true)
        }
        Node::JsonContainment { op, value, negated, .. } => json_contains(*op, b"null", value) != *negated,
        _ => true,
    }
}

fn json_contains(op: Containment, json: &[u8], value: &Constant) -> bool {
    match (op, &value.value) {
        (Containment::Contains, Value::Json(part)) => json::contains(json, part.as_bytes()),
        (Containment::ContainedBy, Value::Json(whole)) => json::contains(whole.as_bytes(), json),
        (Containment::HasKey, Value::Text(key)) => json::has_key(json, key),
        _ => false,
    }
}

/// The answers of a condition for a row.
pub(crate) fn answers(node: &Node, slots: Slots<'_, '_>) -> Answers {
    match node {
        Node::Constant(value) => Answers::one(*value),
        Node::And(parts) => join(parts, slots, TRUE, FALSE),
        Node::Or(parts) => join(parts, slots, FALSE, TRUE),
        Node::Truth { of, value, negated } => answers(of, slots).is(*value, *negated),
        Node::Null { of, negated } => match find(of, slots) {
            Found::Missing => Answers { set: TRUE | FALSE, missing: Some(of.column) },
            Found::NullOrJsonNull => Answers { set: TRUE | FALSE, missing: None },
            Found::Null => Answers::one(Some(!negated)),
            Found::Json(_) | Found::Text(_) => Answers::one(Some(*negated)),
        },
        Node::Compare { left, op, right, reading } => match datum(left, reading, slots) {
            Ok(datum) => answer(holds(*op, datum, right.value.datum()), left),
            Err(answers) => or_json_null(answers, node),
        },
        Node::CompareColumns { left, op, right, reading } => {
            match (datum(left, reading, slots), datum(right, reading, slots)) {
                (Ok(one), Ok(other)) => answer(holds(*op, one, other), left),
                (Err(answers), _) if answers.set == NULL => answers,
                (_, Err(answers)) | (Err(answers), _) => answers,
            }
        }
        Node::Distinct { left, right, negated, reading } => match datum(left, reading, slots) {
            Ok(datum) => {
                answer(holds(Comparison::Ne, datum, right.value.datum()), left).is(Some(true), *negated)
            }
            Err(answers) if answers.set == NULL => Answers::one(Some(!negated)),
            Err(answers) => Answers { set: TRUE | FALSE, ..answers },
        },
        Node::In { of, values, null, negated, reading } => match datum(of, reading, slots) {
            Ok(datum) => member(datum, values, *null, *negated),
            Err(answers) => answers,
        },
        Node::Like { of, pattern, negated } => match datum(of, &Reading::Text, slots) {
            Ok(Datum::Text(text)) => Answers::one(Some(pattern.matches(&text.decoded()) != *negated)),
            Ok(_) => Answers::any(of.column),
            Err(answers) => answers,
        },
        Node::ArrayContainment { of, op, values, null, negated, reading, .. } => array(of, slots, |json| {
            let value = array_containment(json, *op, values, *null, reading)?;
            Ok(Some(value != *negated))
        }),
        Node::Element { value, op, of, all, reading, .. } => {
            array(of, slots, |json| element(json, value.as_ref(), *op, *all, reading))
        }
        Node::JsonContainment { of, op, value, negated } => match find(of, slots) {
            Found::Json(json) => Answers::one(Some(json_contains(*op, json, value) != *negated)),
            Found::NullOrJsonNull => Answers::or_null(json_null(node)),
            Found::Null => Answers::one(None),
            Found::Missing | Found::Text(_) => Answers::any(of.column),
        },
    }
}

fn or_json_null(answers: Answers, node: &Node) -> Answers {
    // No column is missing, and yet anything is possible: a `null` of which it is not known what it stands for.
    if answers.missing.is_none() && answers.set != NULL { Answers::or_null(json_null(node)) } else { answers }
}

fn answer(value: Option<bool>, operand: &Operand) -> Answers {
    value.map_or(Answers::any(operand.column), |value| Answers::one(Some(value)))
}

fn join(parts: &[Node], slots: Slots<'_, '_>, neutral: u8, decisive: u8) -> Answers {
    let mut all = Answers { set: neutral, missing: None };
    for part in parts {
        all = all.join(answers(part, slots), neutral, decisive);
        if all.set == decisive {
            break;
        }
    }
    all
}

fn search(datum: Datum<'_>, values: &[Constant]) -> bool {
    let order = |constant: &Constant| compare(constant.value.datum(), datum).unwrap_or(Ordering::Less);
    values.binary_search_by(order).is_ok()
}

fn member(datum: Datum<'_>, values: &[Constant], null: bool, negated: bool) -> Answers {
    match (search(datum, values), null) {
        (true, _) => Answers::one(Some(!negated)),
        (false, true) => Answers::one(None),
        (false, false) => Answers::one(Some(negated)),
    }
}

fn array(
    of: &Operand,
    slots: Slots<'_, '_>,
    test: impl FnOnce(&[u8]) -> Result<Option<bool>, Unreadable>,
) -> Answers {
    match find(of, slots) {
        Found::Json(json) => test(json).map_or(Answers::any(of.column), Answers::one),
        Found::Null => Answers::one(None),
        Found::Missing | Found::NullOrJsonNull | Found::Text(_) => Answers::any(of.column),
    }
}

/// `column @> list` and its kin; NULL elements equal nothing.
fn array_containment(
    json: &[u8],
    op: Containment,
    values: &[Constant],
    null: bool,
    reading: &Reading,
) -> Result<bool, Unreadable> {
    match op {
        Containment::Contains => {
            if null {
                return Ok(false);
            }
            for wanted in values {
                let absent = reading.each(json, &mut |found| {
                    found.is_none_or(|found| holds(Comparison::Eq, found, wanted.value.datum()) != Some(true))
                })?;
                if absent {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Containment::ContainedBy => {
            reading.each(json, &mut |found| found.is_some_and(|found| search(found, values)))
        }
        Containment::Overlaps => {
            Ok(!reading.each(json, &mut |found| found.is_none_or(|found| !search(found, values)))?)
        }
        Containment::HasKey => Err(Unreadable),
    }
}

/// `value op ANY (array)`, or `ALL`.
fn element(
    json: &[u8],
    value: Option<&Constant>,
    op: Comparison,
    all: bool,
    reading: &Reading,
) -> Result<Option<bool>, Unreadable> {
    let mut null = false;
    let undecided = reading.each(json, &mut |found| match value
        .zip(found)
        .and_then(|(value, found)| holds(op, value.value.datum(), found))
    {
        Some(holds) => holds == all,
        None => {
            null = true;
            true
        }
    })?;
    if !undecided {
        return Ok(Some(!all));
    }
    Ok(if null { None } else { Some(all) })
}
