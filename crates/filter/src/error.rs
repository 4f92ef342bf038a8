//! Why a filter is not taken.

use std::fmt;

/// What kind of thing is wrong with a filter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// Longer than [`TEXT_BYTES_MAX`](crate::limits::TEXT_BYTES_MAX).
    TextTooLong,
    /// Nested deeper than [`DEPTH_MAX`](crate::limits::DEPTH_MAX).
    TooDeep,
    /// More conditions than [`CONDITIONS_MAX`](crate::limits::CONDITIONS_MAX), or operators than
    /// [`OPERATORS_MAX`](crate::limits::OPERATORS_MAX).
    TooManyConditions,
    /// A list with more than [`LIST_ITEMS_MAX`](crate::limits::LIST_ITEMS_MAX) values.
    ListTooLong,
    /// A pattern longer than [`PATTERN_BYTES_MAX`](crate::limits::PATTERN_BYTES_MAX).
    PatternTooLong,
    /// A number of more digits than [`NUMBER_DIGITS_MAX`](crate::limits::NUMBER_DIGITS_MAX).
    NumberTooLong,
    /// Not an SQL expression.
    Syntax,
    /// An SQL expression, but of a form that filters do not have.
    Unsupported,
    /// No such column in the table.
    UnknownColumn,
    /// The operator does not exist for the column's type, or is not supported for it.
    Type,
    /// The text of a literal is not a value of its type.
    Literal,
    /// The meaning of a literal depends on a setting of the session or on the clock.
    Setting,
    /// The answer depends on a collation or locale that only the server knows.
    Collation,
    /// `claims.…` where there are none.
    Claim,
    /// JSON does not tell whether the value is NULL or jsonb's `null`, and the answer depends on it.
    JsonNull,
}

/// A filter that is not taken: what is wrong, where, and what to do instead. The text is for the client.
///
/// All of these are permanent: the same text is refused again, until the table or the claims change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterError {
    refusal: Refusal,
    message: String,
    hint: String,
    at: Option<usize>,
}

/// Characters of a message: it quotes the filter, of which a single literal can be all.
const MESSAGE_CHARACTERS_MAX: usize = 400;

impl FilterError {
    pub(crate) fn new(refusal: Refusal, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARACTERS_MAX) {
            message.truncate(end);
            message.push('…');
        }
        Self { refusal, message, hint: hint.into(), at: None }
    }

    /// At this character, unless a place inside of it is known already.
    pub(crate) fn at(mut self, at: impl Into<usize>) -> Self {
        let at = at.into();
        if at > 0 && self.at.is_none() {
            self.at = Some(at);
        }
        self
    }

    /// What kind of thing is wrong.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        self.refusal
    }

    /// Whether a limit was exceeded; everything else is a matter of meaning.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self.refusal,
            Refusal::TextTooLong
                | Refusal::TooDeep
                | Refusal::TooManyConditions
                | Refusal::ListTooLong
                | Refusal::PatternTooLong
                | Refusal::NumberTooLong
        )
    }

    /// What to do instead, as a sentence fragment; never empty.
    #[must_use]
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Where in the text, as the number of a character counted from 1; `None` where no single place is to blame.
    #[must_use]
    pub const fn position(&self) -> Option<usize> {
        self.at
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.at {
            Some(at) => write!(f, " at character {at}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FilterError {}
