//! What is taken of one table, or of the tables of one pattern.

use std::collections::BTreeSet;
use std::sync::Arc;

use walcast_filter::{Filter, FilterError, Predicate, Schema, Verdict};
use walcast_model::RelationName;
use walcast_policy::Grant;
use walcast_protocol::{ErrorCode, Payload, TablePattern};

use super::Choice;
use crate::refusal::Refusal;
use crate::request::Asked;

/// How a client came to ask for a table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Origin {
    /// By its name, and these columns by theirs: they have to exist.
    Named { columns: BTreeSet<String> },
    /// By a pattern: what does not exist stands for nothing.
    Pattern,
}

/// What is taken of a table: what is asked for and granted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Selection {
    pub(crate) origin: Origin,
    /// The columns of its rows, beside those of the key, which always come; `None` for all.
    pub(crate) columns: Option<BTreeSet<String>>,
    /// Whether rows come with their changes; of an initial sync's rows the key is all there is otherwise.
    pub(crate) payload: Payload,
    /// The rows that are asked for; `None` for all.
    asked: Option<Filter>,
    /// The rows that are granted; `None` for all.
    granted: Option<Filter>,
    /// Whether what transactions that change its rows say about themselves is given.
    pub(crate) meta: bool,
    /// The columns that the client may know of; `None` for all.
    visible: Option<BTreeSet<String>>,
}

/// Why the filters of a table cannot be bound to a definition of it. The text is for the client where the filter is its own.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unbindable {
    /// Its own filter does not fit.
    #[error("{0}")]
    Asked(FilterError),
    /// The policy's does not. What that is about is not for the client.
    #[error("the policy does not fit: {0}")]
    Granted(FilterError),
    /// It names a column that it may not have.
    #[error("column {0:?} may not be had")]
    Column(String),
    /// The WAL does not carry what is needed of old rows.
    #[error("{columns} not in the replica identity that it has")]
    Identity {
        /// Which columns, in words.
        columns: String,
        /// The statement that mends it.
        remedy: String,
    },
}

impl Unbindable {
    /// What to tell the client.
    pub(crate) fn into_refusal(self, table: &RelationName) -> Refusal {
        match self {
            Self::Asked(error) => Refusal::bad_filter(table, &error),
            Self::Granted(error) => {
                tracing::warn!(%table, %error, hint = error.hint(), "a policy cannot be applied to its table");
                Refusal::forbidden(format!("{table} may not be had: the policy for it cannot be applied"))
            }
            Self::Column(column) => {
                Refusal::forbidden(format!("column {column:?} of {table} may not be had with this token"))
            }
            Self::Identity { columns, remedy } => {
                let message = format!(
                    "{table} cannot be filtered: {columns} not in its replica identity, so that deletes could not be told"
                );
                Refusal::new(ErrorCode::IdentityRequired, message)
                    .hint(format!("an administrator runs {remedy}"))
            }
        }
    }
}

impl Selection {
    pub(super) fn new(entry: &TablePattern, asked: &Asked, grant: Grant) -> Self {
        let origin = match entry {
            TablePattern::Table(_) => Origin::Named { columns: asked.columns.clone().unwrap_or_default() },
            TablePattern::Schema(_) | TablePattern::All => Origin::Pattern,
        };
        let columns = match (&asked.columns, &grant.columns) {
            (Some(asked), Some(granted)) => Some(asked.intersection(granted).cloned().collect()),
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        };
        // Nothing beside the key.
        let columns = match asked.payload {
            Payload::Row => columns,
            Payload::Key => Some(BTreeSet::new()),
        };
        Self {
            origin,
            columns,
            payload: asked.payload,
            asked: asked.rows.clone(),
            granted: grant.rows,
            meta: grant.meta,
            visible: grant.columns,
        }
    }

    /// Whether the table's definition has to be known before it is said that it may be had.
    pub(crate) fn needs_definition(&self) -> bool {
        let names_columns = matches!(&self.origin, Origin::Named { columns } if !columns.is_empty());
        self.is_filtered() || (names_columns && self.visible.is_some())
    }

    pub(crate) const fn is_filtered(&self) -> bool {
        self.asked.is_some() || self.granted.is_some()
    }

    /// Whether its client has a filter of its own.
    pub(crate) const fn is_asked_filtered(&self) -> bool {
        self.asked.is_some()
    }

    pub(crate) const fn is_restricted(&self) -> bool {
        self.granted.is_some()
    }

    /// The rows that are taken, before the filter is bound; `None` for all.
    pub(crate) fn rows(&self) -> Option<Filter> {
        self.is_filtered().then(|| Filter::all(self.asked.iter().chain(&self.granted).cloned()))
    }

    /// What its client may have, whatever it asks for.
    pub(super) fn granted(&self) -> String {
        format!("{:?} {:?}", self.visible, self.granted)
    }

    /// Whether the client may know of a column that is not part of the key.
    pub(crate) fn may_know(&self, column: &str) -> bool {
        self.visible.as_ref().is_none_or(|visible| visible.contains(column))
    }

    /// What is taken of a table in this definition.
    pub(super) fn bind(&self, schema: &Schema) -> Result<Choice, Unbindable> {
        self.require_visible(schema)?;
        let Some(rows) = self.rows() else { return Ok(Choice::Everything) };
        if let Some(asked) = &self.asked {
            let known = self.visible.as_ref().map(|visible| schema.narrowed_to(visible));
            let asked = asked.bind(known.as_ref().unwrap_or(schema)).map_err(Unbindable::Asked)?;
            let named =
                |missing: &[String]| format!("{} of the filter {}", missing.join(", "), is_or_are(missing));
            require_identity(&asked, named)?;
        }
        let predicate = rows.bind(schema).map_err(Unbindable::Granted)?;
        require_identity(&predicate, |_| "columns that the policy compares are".to_owned())?;
        Ok(match predicate.constant() {
            Some(Verdict::True) => Choice::Everything,
            Some(_) => Choice::Nothing,
            None => Choice::Rows(Arc::new(predicate)),
        })
    }
}

impl Selection {
    /// The columns that the client names may be had; it does not learn of others whether they exist.
    fn require_visible(&self, schema: &Schema) -> Result<(), Unbindable> {
        let Origin::Named { columns } = &self.origin else { return Ok(()) };
        let is_key =
            |name: &str| schema.relation().columns().iter().any(|column| column.key && column.name == name);
        match columns.iter().find(|name| !self.may_know(name) && !is_key(name)) {
            Some(column) => Err(Unbindable::Column(column.clone())),
            None => Ok(()),
        }
    }
}

const fn is_or_are(columns: &[String]) -> &'static str {
    if columns.len() == 1 { "is" } else { "are" }
}

fn require_identity(
    predicate: &Predicate,
    words: impl FnOnce(&[String]) -> String,
) -> Result<(), Unbindable> {
    let requirements = predicate.requirements();
    match requirements.remedy {
        Some(remedy) => Err(Unbindable::Identity { columns: words(&requirements.missing), remedy }),
        None => Ok(()),
    }
}
