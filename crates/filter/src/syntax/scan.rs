//! The first look at a filter's text: limits, and everything that could be read in two ways.
//!
//! Quotes are the only thing that has to be followed here, and the only kinds that are let through are `'…'` and `"…"`
//! with doubled quotes inside: what is inside of them, and what is not, is then beyond doubt, whatever
//! `standard_conforming_strings` says, and so no text can mean one thing here and another to Postgres.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::error::{FilterError, Refusal};
use crate::limits::{OPERATORS_MAX, TEXT_BYTES_MAX};

const PLAIN_STRINGS: &str =
    "write strings as '…' and double a quote inside of them; a backslash stands for itself";

fn refused(at: usize, what: &str, hint: &str) -> FilterError {
    FilterError::new(Refusal::Unsupported, what, hint).at(at)
}

/// The tokens of a text that can be read in one way only.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, FilterError> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the filter has {} bytes, more than {TEXT_BYTES_MAX}", text.len());
        return Err(FilterError::new(Refusal::TextTooLong, message, "filter by fewer conditions or values"));
    }
    check_characters(text)?;
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|error| {
        let at = super::convert::character(text, error.location);
        let hint = "check the quotes and operators";
        FilterError::new(Refusal::Syntax, format!("the filter cannot be read: {}", error.message), hint)
            .at(at)
    })?;
    let operators = tokens.iter().filter(|token| is_operator(&token.token)).count();
    if operators > OPERATORS_MAX {
        let message = format!("the filter has {operators} operators, more than {OPERATORS_MAX}");
        return Err(FilterError::new(
            Refusal::TooManyConditions,
            message,
            "filter by fewer conditions, or by IN with a list",
        ));
    }
    Ok(tokens)
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Whitespace(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Number(..)
        | Token::SingleQuotedString(_) => false,
        // The sign of a number is not worth counting, but may not form a chain.
        Token::Minus | Token::Plus => true,
        Token::Word(word) => word.quote_style.is_none(),
        _ => true,
    }
}

fn check_characters(text: &str) -> Result<(), FilterError> {
    let mut quote: Option<char> = None;
    let mut previous = ' ';
    // A string right after a string: Postgres joins them, but only across a line end.
    let mut after_string = false;
    let mut characters = text.chars().enumerate().map(|(index, character)| (index + 1, character)).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\0' {
            return Err(refused(at, "a NUL character", "remove it; Postgres has no NUL in strings"));
        }
        if let Some(open) = quote {
            if character == open && characters.next_if(|(_, next)| *next == open).is_none() {
                quote = None;
                after_string = open == '\'';
            }
            previous = character;
            continue;
        }
        let next = characters.peek().map(|(_, next)| *next);
        match character {
            '\'' | '"' => {
                if previous.is_ascii_alphanumeric() || matches!(previous, '_' | '&' | '$') {
                    return Err(refused(at, "a string or name with a prefix", PLAIN_STRINGS));
                }
                if character == '\'' && (after_string || previous == '\'') {
                    return Err(refused(at, "a string right after a string", PLAIN_STRINGS));
                }
                quote = Some(character);
            }
            '-' if next == Some('-') => {
                return Err(refused(at, "a comment, or two signs", "remove it; filters have no comments"));
            }
            '/' if next == Some('*') => {
                return Err(refused(at, "a comment", "remove it; filters have no comments"));
            }
            ';' => return Err(refused(at, "a semicolon", "a filter is one expression")),
            '$' => return Err(refused(at, "a parameter or a dollar-quoted string", PLAIN_STRINGS)),
            '\\' | '`' | '{' | '}' | '#' => {
                let what = format!("the character {character} outside of quotes");
                return Err(refused(at, &what, "see the list of operators in docs/protocol.md"));
            }
            ' ' | '\t' | '\n' | '\r' => {}
            other if other.is_ascii_graphic() => {}
            other => {
                let what = format!("the character {:?} outside of quotes", other);
                return Err(refused(at, &what, "put names with letters outside of ASCII into double quotes"));
            }
        }
        if !matches!(character, ' ' | '\t' | '\n' | '\r') {
            after_string = false;
        }
        previous = character;
    }
    match quote {
        Some('"') => {
            Err(FilterError::new(Refusal::Syntax, "a name whose quote is not closed", "close it with \""))
        }
        Some(_) => {
            Err(FilterError::new(Refusal::Syntax, "a string whose quote is not closed", "close it with '"))
        }
        None => Ok(()),
    }
}
