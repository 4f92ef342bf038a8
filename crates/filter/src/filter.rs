//! A filter before it is bound.

use crate::bind;
use crate::error::FilterError;
use crate::predicate::Predicate;
use crate::schema::Schema;
use crate::syntax::{self, Expression};

/// A filter as a client writes it, read but not yet bound to a table: the condition of a `WHERE`, without the word.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Filter {
    expression: Expression,
}

impl From<Expression> for Filter {
    fn from(expression: Expression) -> Self {
        Self { expression }
    }
}

impl Filter {
    /// Reads the text of a filter.
    ///
    /// # Errors
    /// When it is not one SQL expression of the forms that filters have, or exceeds one of the [limits](crate::limits).
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { expression: syntax::parse(text, false)? })
    }

    /// The rows that all of them hold: a subscription's filter within a policy. All rows when there are none.
    #[must_use]
    pub fn all(filters: impl IntoIterator<Item = Self>) -> Self {
        Self { expression: Expression::And(filters.into_iter().map(|filter| filter.expression).collect()) }
    }

    /// Binds it to a table.
    ///
    /// # Errors
    /// When a column does not exist, a literal is not of its column's type, or Postgres could give another answer for
    /// some row than walcast can.
    pub fn bind(&self, schema: &Schema) -> Result<Predicate, FilterError> {
        bind::bind(&self.expression, schema)
    }
}
