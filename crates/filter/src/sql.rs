//! Predicates as SQL.

use crate::literal::Constant;
use crate::node::{Node, Operand};
use crate::pattern::Pattern;
use crate::syntax::Step;
use crate::value::Value;
use crate::value::read::Reading;

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// A string constant that is read the same whatever `standard_conforming_strings` is set to.
fn quote_literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

fn constant(constant: &Constant, reading: &Reading) -> String {
    let text = match (reading, &constant.value) {
        (Reading::Rank(kind), Value::Int(rank)) => {
            usize::try_from(*rank).ok().and_then(|rank| kind.labels.get(rank)).cloned().unwrap_or_default()
        }
        _ => constant.text(),
    };
    format!("{}::{}", quote_literal(&text), constant.ty.sql())
}

fn operand(operand: &Operand) -> String {
    let mut text = quote_identifier(&operand.name);
    for (index, step) in operand.path.iter().enumerate() {
        let last = index + 1 == operand.path.len();
        text.push_str(if last && operand.text { " ->> " } else { " -> " });
        match &step.step {
            Step::Key(key) => text.push_str(&format!("{}::pg_catalog.text", quote_literal(key))),
            Step::Index(index) => text.push_str(&format!("'{index}'::pg_catalog.int4")),
        }
    }
    if operand.path.is_empty() { text } else { format!("({text})") }
}

fn array(values: &[Constant], null: bool, ty: &str) -> String {
    let element =
        |value: &Constant| format!("\"{}\"", value.text().replace('\\', "\\\\").replace('"', "\\\""));
    let mut elements: Vec<String> = values.iter().map(element).collect();
    elements.extend(null.then(|| "NULL".to_owned()));
    format!("{}::{ty}", quote_literal(&format!("{{{}}}", elements.join(","))))
}

fn like(of: &Operand, pattern: &Pattern, negated: bool) -> String {
    let word = match (negated, pattern.is_insensitive()) {
        (false, false) => "LIKE",
        (true, false) => "NOT LIKE",
        (false, true) => "ILIKE",
        (true, true) => "NOT ILIKE",
    };
    format!("{} {word} {}::pg_catalog.text ESCAPE E'\\\\'", operand(of), quote_literal(&pattern.text()))
}

fn joined(parts: &[Node], joint: &str) -> String {
    let parts: Vec<String> = parts.iter().map(node_sql).collect();
    parts.join(joint)
}

const fn not(negated: bool) -> &'static str {
    if negated { " NOT" } else { "" }
}

/// The condition, in parentheses unless it is a constant.
pub(crate) fn node_sql(node: &Node) -> String {
    let text = match node {
        Node::Constant(Some(true)) => return "TRUE".to_owned(),
        Node::Constant(Some(false)) => return "FALSE".to_owned(),
        Node::Constant(None) => return "NULL::pg_catalog.bool".to_owned(),
        Node::And(parts) => joined(parts, " AND "),
        Node::Or(parts) => joined(parts, " OR "),
        Node::Truth { of, value, negated } => {
            let word = match value {
                Some(true) => "TRUE",
                Some(false) => "FALSE",
                None => "UNKNOWN",
            };
            format!("{} IS{} {word}", node_sql(of), not(*negated))
        }
        Node::Null { of, negated } => format!("{} IS{} NULL", operand(of), not(*negated)),
        Node::Compare { left, op, right, reading } => {
            format!("{} {} {}", operand(left), op.sql(), constant(right, reading))
        }
        Node::CompareColumns { left, op, right, .. } => {
            format!("{} {} {}", operand(left), op.sql(), operand(right))
        }
        Node::Distinct { left, right, negated, reading } => {
            format!("{} IS{} DISTINCT FROM {}", operand(left), not(*negated), constant(right, reading))
        }
        Node::In { of, values, null, negated, reading } => {
            let mut items: Vec<String> = values.iter().map(|value| constant(value, reading)).collect();
            items.extend(null.then(|| "NULL".to_owned()));
            format!("{}{} IN ({})", operand(of), not(*negated), items.join(", "))
        }
        Node::Like { of, pattern, negated } => like(of, pattern, *negated),
        Node::ArrayContainment { of, op, values, null, negated, ty, .. } => {
            let array = array(values, *null, ty);
            let text = format!("{} {} {array}", operand(of), op.sql());
            if *negated { format!("NOT ({text})") } else { text }
        }
        Node::Element { value, op, of, all, reading, ty } => {
            let value = match value {
                Some(value) => constant(value, reading),
                None => format!("NULL::{ty}"),
            };
            format!("{value} {} {} ({})", op.sql(), if *all { "ALL" } else { "ANY" }, operand(of))
        }
        Node::JsonContainment { of, op, value, negated } => {
            let text = format!("{} {} {}", operand(of), op.sql(), constant(value, &Reading::Json));
            if *negated { format!("NOT ({text})") } else { text }
        }
    };
    format!("({text})")
}
