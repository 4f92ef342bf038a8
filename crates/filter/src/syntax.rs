//! The parsed form of a filter: what was written, before any column is known.

mod convert;
mod scan;
mod term;

use std::hash::{Hash, Hasher};

use crate::error::FilterError;

/// How two values are compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// What holds when this does not.
    pub(crate) const fn negated(self) -> Self {
        match self {
            Self::Eq => Self::Ne,
            Self::Ne => Self::Eq,
            Self::Lt => Self::Ge,
            Self::Le => Self::Gt,
            Self::Gt => Self::Le,
            Self::Ge => Self::Lt,
        }
    }

    /// The same with the sides exchanged.
    pub(crate) const fn flipped(self) -> Self {
        match self {
            Self::Eq | Self::Ne => self,
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
        }
    }

    pub(crate) const fn is_equality(self) -> bool {
        matches!(self, Self::Eq | Self::Ne)
    }

    pub(crate) const fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}

/// Operators of arrays and jsonb.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Containment {
    Contains,
    ContainedBy,
    Overlaps,
    HasKey,
}

impl Containment {
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::Contains => "@>",
            Self::ContainedBy => "<@",
            Self::Overlaps => "&&",
            Self::HasKey => "?",
        }
    }
}

/// A step of a jsonb path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    Key(String),
    Index(i32),
}

/// A literal's own text.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Word {
    Null,
    Bool(bool),
    Number(String),
    /// In quotes: its type is that of what it is compared with.
    Quoted(String),
}

/// Where something stands in the text: the number of its first character, from 1; 0 for what was a claim, and so stands
/// nowhere. For errors alone: texts that differ in their spacing are the same filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(usize);

impl Place {
    /// Of a claim.
    pub(crate) const NOWHERE: Self = Self(0);

    pub(crate) const fn new(at: usize) -> Self {
        Self(at)
    }

    pub(crate) const fn is_somewhere(self) -> bool {
        self.0 != 0
    }
}

impl From<Place> for usize {
    fn from(place: Place) -> Self {
        place.0
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.is_somewhere() == other.is_somewhere()
    }
}

impl Eq for Place {}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_somewhere().hash(state);
    }
}

/// A literal, cast or not; the name of the type in lower case.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Literal {
    pub(crate) word: Word,
    pub(crate) cast: Option<String>,
    pub(crate) at: Place,
}

/// What stands on one side of an operator.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Term {
    pub(crate) kind: TermKind,
    pub(crate) at: Place,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TermKind {
    /// A column; with steps a jsonb path into it, the last of them `->>` if `text`.
    Column {
        name: String,
        steps: Vec<Step>,
        text: bool,
    },
    Literal(Literal),
    /// `ARRAY[…]`, or the array of a claim, which is typed like one in quotes.
    Array {
        items: Vec<Literal>,
        cast: Option<String>,
        quoted: bool,
    },
    /// `claims.a.b`.
    Claim(Vec<String>),
}

/// A boolean expression.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Expression {
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    /// `IS [NOT] TRUE`, `FALSE`, or (without a value) `UNKNOWN`.
    Truth {
        of: Box<Expression>,
        value: Option<bool>,
        negated: bool,
    },
    Compare {
        left: Term,
        op: Comparison,
        right: Term,
    },
    Distinct {
        left: Term,
        right: Term,
        negated: bool,
    },
    In {
        left: Term,
        list: Vec<Literal>,
        negated: bool,
    },
    /// `left op ANY (right)`, or `ALL`.
    Quantified {
        left: Term,
        op: Comparison,
        right: Term,
        all: bool,
    },
    Like {
        left: Term,
        pattern: Term,
        escape: Option<char>,
        insensitive: bool,
        negated: bool,
    },
    Null {
        of: Term,
        negated: bool,
    },
    Containment {
        left: Term,
        op: Containment,
        right: Term,
    },
    /// A boolean column, `TRUE`, `FALSE` or `NULL`.
    Term(Term),
}

/// Reads a whole text as one expression.
///
/// The text is checked first for what Postgres and the parser could read differently (see [`scan`]), and then parsed
/// with the grammar of Postgres; what the parser gives is taken only where the order of binding is beyond doubt.
pub(crate) fn parse(text: &str, claims: bool) -> Result<Expression, FilterError> {
    let tokens = scan::tokens(text)?;
    convert::expression(text, tokens, claims)
}
