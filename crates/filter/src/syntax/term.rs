//! What stands on the sides of operators: columns, jsonb paths, literals, arrays, claims.

use sqlparser::ast::{
    Array, BinaryOperator, CastKind, DataType, Expr, Ident, Interval, Spanned, UnaryOperator, Value,
};
use sqlparser::tokenizer::Span;

use super::convert::{Reader, unsupported};
use super::{Literal, Place, Step, Term, TermKind, Word};
use crate::error::{FilterError, Refusal};
use crate::limits::{LIST_ITEMS_MAX, NAME_BYTES_MAX, PATH_STEPS_MAX};
use crate::types::Type;

const ONE_CAST: &str = "cast a plain literal once: '2026-01-01'::date";

impl Reader<'_> {
    pub(super) fn at(&self, span: Span) -> Place {
        Place::new(super::convert::character(self.text, span.start))
    }

    /// The name that an identifier stands for in the catalog.
    pub(super) fn name(&self, ident: &Ident) -> Result<String, FilterError> {
        let at = self.at(ident.span);
        let name = match ident.quote_style {
            None => ident.value.to_ascii_lowercase(),
            Some('"') => ident.value.clone(),
            Some(_) => return Err(unsupported("this kind of quotes", "quote names as \"name\"").at(at)),
        };
        if name.len() > NAME_BYTES_MAX || name.is_empty() {
            let hint = "names of columns have 1 to 63 bytes";
            return Err(
                FilterError::new(Refusal::UnknownColumn, "there is no column of this name", hint).at(at)
            );
        }
        Ok(name)
    }

    pub(super) fn term(&self, expr: &Expr) -> Result<Term, FilterError> {
        let at = self.at(expr.span());
        let kind = match expr {
            Expr::Nested(inner) => return self.term(inner),
            Expr::Identifier(ident) => {
                TermKind::Column { name: self.name(ident)?, steps: Vec::new(), text: false }
            }
            Expr::CompoundIdentifier(parts) => self.compound(parts)?,
            Expr::BinaryOp { op: BinaryOperator::Arrow | BinaryOperator::LongArrow, .. } => {
                self.path(expr)?
            }
            Expr::Array(array) => self.array(array, None)?,
            Expr::Cast { kind, expr: inner, data_type, format: None }
                if matches!(kind, CastKind::Cast | CastKind::DoubleColon)
                    && matches!(inside(inner), Expr::Array(_)) =>
            {
                let Expr::Array(array) = inside(inner) else {
                    return Err(unsupported("this array", ONE_CAST));
                };
                self.array(array, Some(type_name(data_type)))?
            }
            _ => TermKind::Literal(self.literal(expr)?),
        };
        Ok(Term { kind, at })
    }

    /// `claims.a.b` where claims may stand.
    fn compound(&self, parts: &[Ident]) -> Result<TermKind, FilterError> {
        let at = parts.first().map_or(Place::NOWHERE, |part| self.at(part.span));
        match parts.split_first() {
            Some((first, path)) if self.name(first)? == "claims" && !path.is_empty() => {
                if self.claims {
                    // Names in a token are told apart by their case, whether they are quoted or not.
                    return Ok(TermKind::Claim(path.iter().map(|part| part.value.clone()).collect()));
                }
                let hint = "claims stand only in the policies of the configuration";
                Err(FilterError::new(Refusal::Claim, "a claim in a filter", hint).at(at))
            }
            _ => Err(unsupported("a qualified name", "name the column alone, without its table").at(at)),
        }
    }

    /// `column -> 'a' -> 0 ->> 'b'`: the operators bind from the left.
    fn path(&self, expr: &Expr) -> Result<TermKind, FilterError> {
        let hint = "write jsonb paths as column -> 'a' -> 0 ->> 'b'";
        let (mut steps, mut text, mut rest) = (Vec::new(), None, expr);
        loop {
            match inside(rest) {
                Expr::BinaryOp { left, op, right } => {
                    let last = match op {
                        BinaryOperator::Arrow => false,
                        BinaryOperator::LongArrow if text.is_none() => true,
                        _ => {
                            return Err(
                                unsupported("this operator in a jsonb path", hint).at(self.at(right.span()))
                            );
                        }
                    };
                    text.get_or_insert(last);
                    let literal = self.literal(right)?;
                    let cast = literal.cast.as_deref().map(Type::named);
                    let step = match (literal.word, cast) {
                        (Word::Quoted(key), None | Some(Some(Type::Text))) => Some(Step::Key(key)),
                        (Word::Number(digits), None)
                        | (Word::Number(digits) | Word::Quoted(digits), Some(Some(Type::Int4))) => {
                            digits.parse().ok().map(Step::Index)
                        }
                        _ => None,
                    };
                    let at = literal.at;
                    steps.push(step.ok_or_else(|| unsupported("this step of a jsonb path", hint).at(at))?);
                    if steps.len() > PATH_STEPS_MAX {
                        let message = format!("a jsonb path of more than {PATH_STEPS_MAX} steps");
                        return Err(FilterError::new(Refusal::TooDeep, message, "shorten the path").at(at));
                    }
                    rest = left;
                }
                Expr::Identifier(ident) => {
                    steps.reverse();
                    return Ok(TermKind::Column {
                        name: self.name(ident)?,
                        steps,
                        text: text.unwrap_or(false),
                    });
                }
                other => return Err(unsupported("a jsonb path into this", hint).at(self.at(other.span()))),
            }
        }
    }

    fn array(&self, array: &Array, cast: Option<String>) -> Result<TermKind, FilterError> {
        if !array.named {
            return Err(unsupported("an array in brackets", "write it as ARRAY[…] or as '{…}'"));
        }
        let items = self.list(&array.elem)?;
        Ok(TermKind::Array { items, cast, quoted: false })
    }

    pub(super) fn list(&self, items: &[Expr]) -> Result<Vec<Literal>, FilterError> {
        if items.len() > LIST_ITEMS_MAX {
            let message = format!("a list of {} values, more than {LIST_ITEMS_MAX}", items.len());
            return Err(FilterError::new(
                Refusal::ListTooLong,
                message,
                "subscribe with several shorter lists",
            ));
        }
        items.iter().map(|item| self.literal(item)).collect()
    }

    pub(super) fn literal(&self, expr: &Expr) -> Result<Literal, FilterError> {
        let at = self.at(expr.span());
        let plain = |word| Ok(Literal { word, cast: None, at });
        match expr {
            Expr::Nested(inner) => self.literal(inner),
            Expr::Value(value) => plain(self.word(&value.value, at)?),
            Expr::UnaryOp { op: op @ (UnaryOperator::Minus | UnaryOperator::Plus), expr: inner } => {
                match inside(inner) {
                    Expr::Value(value) => match self.word(&value.value, at)? {
                        Word::Number(digits) if *op == UnaryOperator::Minus => {
                            plain(Word::Number(format!("-{digits}")))
                        }
                        Word::Number(digits) => plain(Word::Number(digits)),
                        _ => Err(unsupported("a sign before what is not a number", ONE_CAST).at(at)),
                    },
                    _ => Err(unsupported(
                        "a sign before an expression",
                        "a cast binds tighter than a sign: write (-1)::int or '-1'::int",
                    )
                    .at(at)),
                }
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: inner,
                data_type,
                format: None,
            } => {
                let bare = matches!(inner.as_ref(), Expr::Value(_) | Expr::Nested(_));
                let literal = self.literal(inner)?;
                if !bare || literal.cast.is_some() {
                    return Err(unsupported("a cast of this", ONE_CAST).at(at));
                }
                Ok(Literal { cast: Some(type_name(data_type)), ..literal })
            }
            Expr::TypedString(typed) if !typed.uses_odbc_syntax => {
                let word = self.word(&typed.value.value, at)?;
                Ok(Literal { word, cast: Some(type_name(&typed.data_type)), at })
            }
            Expr::Interval(Interval {
                value,
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            }) => match value.as_ref() {
                Expr::Value(value) => {
                    Ok(Literal { word: self.word(&value.value, at)?, cast: Some("interval".into()), at })
                }
                _ => Err(unsupported("this interval", "write it as interval '1 day'").at(at)),
            },
            other => Err(self.not_a_term(other).at(at)),
        }
    }

    fn word(&self, value: &Value, at: Place) -> Result<Word, FilterError> {
        Ok(match value {
            Value::Null => Word::Null,
            Value::Boolean(value) => Word::Bool(*value),
            Value::Number(digits, false) => Word::Number(digits.clone()),
            Value::SingleQuotedString(text) => Word::Quoted(text.clone()),
            _ => {
                return Err(unsupported(
                    "this kind of literal",
                    "write strings as '…', numbers in decimal digits; there are no parameters",
                )
                .at(at));
            }
        })
    }

    fn not_a_term(&self, expr: &Expr) -> FilterError {
        match expr {
            Expr::Function(_) | Expr::Case { .. } | Expr::Extract { .. } | Expr::Substring { .. } => {
                unsupported(
                    "a function",
                    "compare the column itself; a generated column can hold what the function gives",
                )
            }
            Expr::Subquery(_) | Expr::Exists { .. } => {
                unsupported("a subquery", "filter by the columns of this table alone")
            }
            Expr::Collate { .. } => {
                unsupported("COLLATE", "give the column the collation that the filter needs")
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => unsupported(
                "a column in this place",
                "write the column on the left and a literal on the right",
            ),
            Expr::BinaryOp { .. } => unsupported(
                "an expression in this place",
                "compare a column with a literal; put parentheses around conditions that AND and OR join",
            ),
            _ => unsupported(
                "an expression of this kind",
                "see the list of operators in docs/protocol.md, and put parentheses around conditions",
            ),
        }
    }
}

/// Without the parentheses around it.
pub(super) fn inside(mut expr: &Expr) -> &Expr {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    expr
}

/// A type's name, in lower case unless it is quoted.
fn type_name(data_type: &DataType) -> String {
    let text = data_type.to_string();
    if text.contains('"') { text } else { text.to_ascii_lowercase() }
}
