//! The file of policies: what a daemon that starts now would say of it.

use std::path::Path;

use super::finding::Finding;
use crate::policy_file;

/// Looks at the file. What it says of tables is for `walcast explain`.
pub(crate) fn policies_finding(path: &Path) -> Finding {
    match policy_file::read(path) {
        Ok(policies) if policies.is_empty() => Finding::warning(
            "policies",
            format!("{} has no policies: nobody may have anything", path.display()),
            "add a [[policy]] with role and table",
        ),
        Ok(policies) => Finding::ok("policies", format!("{} policies in {}", policies.len(), path.display())),
        Err(error) => Finding::error(
            "policies",
            error.to_string(),
            "correct the file: a daemon that runs goes on with the policies that it had, and none starts",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::policies_finding;
    use crate::commands::doctor::finding::Severity;

    #[test]
    fn a_wrong_file_is_an_error_with_its_mistakes_and_an_empty_one_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        for (text, severity, said) in [
            ("", Severity::Warning, "nobody may have anything"),
            ("[[policy]]\nrole = 'a'\ntable = '*'\n", Severity::Ok, "1 policies in "),
            (
                "[[policy]]\nrole = 'a'\ntable = 'x'\n",
                Severity::Error,
                "policy 1, line 3: \"x\" names no table",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let finding = policies_finding(&path);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.message.contains(said), "{finding:?}");
        }
    }
}
