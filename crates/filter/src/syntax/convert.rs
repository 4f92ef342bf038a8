//! From the parser's tree to ours: only the forms that filters have, and only where it is beyond doubt what binds to
//! what.
//!
//! The parser has a table of precedence of its own. So that no difference to the grammar of Postgres can change a
//! filter's meaning, the sides of an operator have to be columns and literals, and an expression without parentheses
//! may stand only where it binds tighter than what is around it: a tree of which that is true everywhere is the one
//! that Postgres reads.

use sqlparser::ast::{BinaryOperator, Expr, InTarget, Spanned, UnaryOperator, Value};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::term::inside;
use super::{Comparison, Containment, Expression, Literal, Place, Term, TermKind, Word};
use crate::error::{FilterError, Refusal};
use crate::limits::{CONDITIONS_MAX, DEPTH_MAX};

/// Frames that the parser spends on one level of our depth, and then some.
const PARSER_DEPTH: usize = DEPTH_MAX * 3;

const PARENTHESES: &str = "put parentheses around each side";

pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) claims: bool,
}

pub(super) fn unsupported(what: &str, hint: &str) -> FilterError {
    FilterError::new(Refusal::Unsupported, format!("{what} is not supported"), hint)
}

fn too_deep() -> FilterError {
    let message = format!("the filter is nested deeper than {DEPTH_MAX} levels");
    FilterError::new(Refusal::TooDeep, message, "remove parentheses, or use fewer conditions")
}

/// The number of the character, from 1, at a place of the text; 0 for none.
pub(super) fn character(text: &str, location: Location) -> usize {
    let (Ok(line), Ok(column)) = (usize::try_from(location.line), usize::try_from(location.column)) else {
        return 0;
    };
    if line == 0 {
        return 0;
    }
    text.split_inclusive('\n').take(line - 1).map(|line| line.chars().count()).sum::<usize>() + column
}

pub(super) fn expression(
    text: &str,
    tokens: Vec<TokenWithSpan>,
    claims: bool,
) -> Result<Expression, FilterError> {
    let dialect = PostgreSqlDialect {};
    let mut parser =
        Parser::new(&dialect).with_recursion_limit(PARSER_DEPTH).with_tokens_with_locations(tokens);
    let expr = parser.parse_expr().map_err(|error| match error {
        ParserError::RecursionLimitExceeded => too_deep(),
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
            let at = parser.peek_token_ref().span.start;
            let hint = "a filter is one SQL expression, as after WHERE";
            FilterError::new(Refusal::Syntax, format!("the filter cannot be read: {message}"), hint)
                .at(character(text, at))
        }
    })?;
    let next = parser.peek_token_ref();
    if next.token != Token::EOF {
        let message = format!("the filter cannot be read: {} after the end of the expression", next.token);
        let hint = "a filter is one SQL expression, as after WHERE";
        let at = character(text, next.span.start);
        return Err(FilterError::new(Refusal::Syntax, message, hint).at(at));
    }
    let reader = Reader { text, claims };
    let mut conditions = 0;
    reader.expression(&expr, DEPTH_MAX, &mut conditions)
}

/// How tight an expression binds that is not in parentheses, as far as other conditions are concerned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Or,
    And,
    Not,
    Is,
    Tighter,
}

fn binding(expr: &Expr) -> Binding {
    match expr {
        Expr::BinaryOp { op: BinaryOperator::Or, .. } => Binding::Or,
        Expr::BinaryOp { op: BinaryOperator::And, .. } => Binding::And,
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => Binding::Not,
        Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..) => Binding::Is,
        _ => Binding::Tighter,
    }
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Eq,
        BinaryOperator::NotEq => Comparison::Ne,
        BinaryOperator::Lt => Comparison::Lt,
        BinaryOperator::LtEq => Comparison::Le,
        BinaryOperator::Gt => Comparison::Gt,
        BinaryOperator::GtEq => Comparison::Ge,
        _ => return None,
    })
}

fn containment(op: &BinaryOperator) -> Option<Containment> {
    Some(match op {
        BinaryOperator::AtArrow => Containment::Contains,
        BinaryOperator::ArrowAt => Containment::ContainedBy,
        BinaryOperator::PGOverlap => Containment::Overlaps,
        BinaryOperator::Question => Containment::HasKey,
        _ => return None,
    })
}

impl Reader<'_> {
    fn place(&self, expr: &Expr) -> Place {
        self.at(expr.span())
    }

    /// A part of an expression, which has to bind tighter than `around` where it has no parentheses.
    fn part(
        &self,
        expr: &Expr,
        around: Binding,
        depth_left: usize,
        conditions: &mut usize,
    ) -> Result<Expression, FilterError> {
        if binding(expr) <= around {
            return Err(unsupported("this order of operators", PARENTHESES).at(self.place(expr)));
        }
        let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
        self.expression(expr, depth_left, conditions)
    }

    fn expression(
        &self,
        expr: &Expr,
        depth_left: usize,
        conditions: &mut usize,
    ) -> Result<Expression, FilterError> {
        let at = self.place(expr);
        match expr {
            Expr::Nested(inner) => {
                let depth_left = depth_left.checked_sub(1).ok_or_else(too_deep)?;
                return self.expression(inner, depth_left, conditions);
            }
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                return self.joined(expr, op, depth_left, conditions);
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr: inner } => {
                // NOT NOT is right-associative; everything else below NOT binds tighter.
                let around = if binding(inner) == Binding::Not { Binding::And } else { Binding::Not };
                return Ok(Expression::Not(Box::new(self.part(inner, around, depth_left, conditions)?)));
            }
            _ => {}
        }
        *conditions += 1;
        if *conditions > CONDITIONS_MAX {
            let message = format!("the filter has more than {CONDITIONS_MAX} conditions");
            let hint = "use IN with a list, or several subscriptions";
            return Err(FilterError::new(Refusal::TooManyConditions, message, hint).at(at));
        }
        self.condition(expr, depth_left, conditions).map_err(|error| error.at(at))
    }

    /// `a AND b AND c`, which the parser nests to the left as deep as there are conditions.
    fn joined(
        &self,
        expr: &Expr,
        joint: &BinaryOperator,
        depth_left: usize,
        conditions: &mut usize,
    ) -> Result<Expression, FilterError> {
        let around = binding(expr);
        let (mut parts, mut rest) = (Vec::new(), expr);
        while let Expr::BinaryOp { left, op, right } = rest
            && op == joint
        {
            parts.push(right.as_ref());
            rest = left;
        }
        parts.push(rest);
        if parts.len() > CONDITIONS_MAX {
            let message = format!("the filter has more than {CONDITIONS_MAX} conditions");
            let hint = "use IN with a list, or several subscriptions";
            return Err(FilterError::new(Refusal::TooManyConditions, message, hint));
        }
        let parts = parts.into_iter().rev().map(|part| self.part(part, around, depth_left, conditions));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(if around == Binding::And { Expression::And(parts) } else { Expression::Or(parts) })
    }

    fn condition(
        &self,
        expr: &Expr,
        depth_left: usize,
        conditions: &mut usize,
    ) -> Result<Expression, FilterError> {
        let mut truth = |of: &Expr, value, negated| {
            let of = Box::new(self.part(of, Binding::Is, depth_left, conditions)?);
            Ok(Expression::Truth { of, value, negated })
        };
        match expr {
            Expr::IsTrue(of) => truth(of, Some(true), false),
            Expr::IsNotTrue(of) => truth(of, Some(true), true),
            Expr::IsFalse(of) => truth(of, Some(false), false),
            Expr::IsNotFalse(of) => truth(of, Some(false), true),
            Expr::IsUnknown(of) => truth(of, None, false),
            Expr::IsNotUnknown(of) => truth(of, None, true),
            Expr::IsNull(of) | Expr::IsNotNull(of) => {
                let negated = matches!(expr, Expr::IsNotNull(_));
                if is_term(of) {
                    return Ok(Expression::Null { of: self.term(of)?, negated });
                }
                truth(of, None, negated)
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                let negated = matches!(expr, Expr::IsNotDistinctFrom(..));
                Ok(Expression::Distinct { left: self.term(left)?, right: self.term(right)?, negated })
            }
            Expr::In { expr, target: InTarget::List(list), negated, global: false } => {
                Ok(Expression::In { left: self.term(expr)?, list: self.list(list)?, negated: *negated })
            }
            Expr::In { .. } => Err(unsupported("a subquery", "list the values")),
            Expr::Between { expr, negated, low, high } => {
                let compare = |op, bound| {
                    Ok(Expression::Compare { left: self.term(expr)?, op, right: self.term(bound)? })
                };
                *conditions += 1;
                let both =
                    Expression::And(vec![compare(Comparison::Ge, low)?, compare(Comparison::Le, high)?]);
                Ok(if *negated { Expression::Not(Box::new(both)) } else { both })
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), *negated, false)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), *negated, true)
            }
            Expr::AnyOp { left, compare_op, right, is_some: _ } => {
                self.quantified(left, compare_op, right, false)
            }
            Expr::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true),
            Expr::BinaryOp { left, op, right } => {
                if let Some(op) = comparison(op) {
                    return Ok(Expression::Compare { left: self.term(left)?, op, right: self.term(right)? });
                }
                if let Some(op) = containment(op) {
                    return Ok(Expression::Containment {
                        left: self.term(left)?,
                        op,
                        right: self.term(right)?,
                    });
                }
                if matches!(op, BinaryOperator::Arrow | BinaryOperator::LongArrow) {
                    return Ok(Expression::Term(self.term(expr)?));
                }
                Err(unsupported(
                    &format!("the operator {op}"),
                    "see the list of operators in docs/protocol.md",
                ))
            }
            _ => Ok(Expression::Term(self.term(expr)?)),
        }
    }

    fn like(
        &self,
        expr: &Expr,
        pattern: &Expr,
        escape: Option<&Expr>,
        negated: bool,
        insensitive: bool,
    ) -> Result<Expression, FilterError> {
        let hint = "ESCAPE takes one character, or '' for none";
        let escape = match escape.map(|escape| self.literal(escape)).transpose()? {
            None => Some('\\'),
            Some(Literal { word: Word::Quoted(text), cast: None, at }) => {
                let mut characters = text.chars();
                let first = characters.next();
                if characters.next().is_some() {
                    return Err(unsupported("an ESCAPE of several characters", hint).at(at));
                }
                first
            }
            Some(other) => return Err(unsupported("this ESCAPE", hint).at(other.at)),
        };
        let (left, pattern) = (self.term(expr)?, self.term(pattern)?);
        Ok(Expression::Like { left, pattern, escape, insensitive, negated })
    }

    fn quantified(
        &self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        all: bool,
    ) -> Result<Expression, FilterError> {
        let op = comparison(op).ok_or_else(|| {
            unsupported("this operator with ANY or ALL", "use = <> < <= > >= before ANY and ALL")
        })?;
        let (left, right): (Term, Term) = (self.term(left)?, self.term(right)?);
        if let TermKind::Literal(Literal { word: Word::Number(_) | Word::Bool(_), at, .. }) = right.kind {
            return Err(unsupported("ANY or ALL of this", "give an array: ANY('{1,2}')").at(at));
        }
        Ok(Expression::Quantified { left, op, right, all })
    }
}

/// Whether `IS NULL` asks a value and not a condition.
fn is_term(expr: &Expr) -> bool {
    match inside(expr) {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Cast { .. } | Expr::TypedString(_) => true,
        Expr::Value(value) => !matches!(value.value, Value::Placeholder(_)),
        Expr::BinaryOp { op, .. } => matches!(op, BinaryOperator::Arrow | BinaryOperator::LongArrow),
        _ => false,
    }
}
