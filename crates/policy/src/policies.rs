//! The policies of the configuration.

use walcast_filter::Claims;

use crate::rights::Rights;

/// Something that is wrong with the text of policies.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {message}; {hint}")]
pub struct Mistake {
    /// Which policy, or which line.
    pub place: String,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}

/// All policies, as they were read once.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Policies {}

impl Policies {
    /// What the bearer of a token with this role and these claims may have.
    #[must_use]
    pub fn rights(&self, role: &str, claims: &Claims) -> Rights {
        let _ = (role, claims);
        Rights::Granted(std::collections::BTreeMap::new())
    }
}
