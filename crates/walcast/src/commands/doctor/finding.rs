//! What the doctor says.

use serde::Serialize;

use super::fix::{Fix, Step};

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As it should be.
    Ok,
    /// Not there yet: walcast brings it about by itself.
    Note,
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
    /// The same, each step with what it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) fix_steps: Vec<Step>,
}

impl Finding {
    /// All is well.
    pub(crate) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, message: message.into(), fix: None, fix_steps: Vec::new() }
    }

    /// Something that `walcast setup` does, as does `walcast serve`.
    pub(crate) fn note(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Severity::Note, message.into(), Fix::run("walcast setup"))
    }

    /// Something that will matter.
    pub(crate) fn warning(check: &'static str, message: impl Into<String>, fix: impl Into<Fix>) -> Self {
        Self::new(check, Severity::Warning, message.into(), fix.into())
    }

    /// Something that matters now.
    pub(crate) fn error(check: &'static str, message: impl Into<String>, fix: impl Into<Fix>) -> Self {
        Self::new(check, Severity::Error, message.into(), fix.into())
    }

    fn new(check: &'static str, severity: Severity, message: String, fix: Fix) -> Self {
        let text = Some(fix.to_string());
        Self { check, severity, message, fix: text, fix_steps: fix.into_steps() }
    }
}
