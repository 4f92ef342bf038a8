//! What the doctor says.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Works, and will surprise somebody, or fill a disk, one day.
    Warning,
    /// walcast does not work, or not for everything, until somebody acts.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// Its name, stable for scripts: `wal_level`, `replica_identity`, …
    pub(crate) check: &'static str,
    /// How much it matters.
    pub(crate) severity: Severity,
    /// What was found, for people.
    pub(crate) message: String,
    /// The one statement or action that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, message: message.into(), fix: None }
    }

    /// Something that will matter.
    pub(crate) fn warning(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, message: message.into(), fix: Some(fix.into()) }
    }

    /// Something that matters now.
    pub(crate) fn error(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, severity: Severity::Error, message: message.into(), fix: Some(fix.into()) }
    }
}
