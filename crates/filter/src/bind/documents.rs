//! Operators of jsonb.

use super::conditions::literal;
use super::{Subject, type_error};
use crate::error::FilterError;
use crate::literal::{Constant, input};
use crate::node::Node;
use crate::syntax::{Containment, Term, TermKind, Word};
use crate::types::Type;

/// `column @> document`, `<@`, and `column ? 'key'`.
pub(super) fn containment(subject: Subject, op: Containment, other: &Term) -> Result<Node, FilterError> {
    let wanted = match op {
        Containment::Contains | Containment::ContainedBy => Type::Jsonb,
        Containment::HasKey => Type::Text,
        Containment::Overlaps => {
            return Err(type_error("&& takes arrays", "use @> or <@ with jsonb").at(other.at));
        }
    };
    let bad = || {
        let hint = "write column @> '{\"key\": 1}', or column ? 'key'";
        type_error("this is not compared with jsonb", hint).at(other.at)
    };
    // What is written by hand is no claim.
    if matches!(other.kind, TermKind::Array { quoted: true, .. }) {
        let hint = "beside jsonb a claim is an object; compare a member of the column: column ->> 'key' = claims.name";
        return Err(type_error("a list or a single value is no document", hint).at(other.at));
    }
    let literal = literal(other).ok_or_else(bad)?;
    let allowed = match literal.cast.as_deref() {
        None => true,
        Some(cast) => Type::named(cast).as_ref() == Some(&wanted),
    };
    match &literal.word {
        _ if !allowed => Err(bad()),
        Word::Null => Ok(Node::Constant(None)),
        Word::Quoted(text) => {
            let value = input(&wanted, text).map_err(|error| error.at(literal.at))?;
            let value = Constant::new(value, &wanted);
            Ok(Node::JsonContainment { of: subject.operand, op, value, negated: false })
        }
        _ => Err(bad()),
    }
}
