//! The file of policies: what a daemon that starts now would say of it, and whether it fits the tables.

use std::path::Path;

use walcast_policy::Policies;
use walcast_postgres::Session;

use super::finding::Finding;
use super::{Target, unanswered};
use crate::policy_file;
use crate::policy_fit::{Misfit, misfits};

const CHECK: &str = "policies";

/// Looks at the file, and at the tables that it names. A source that is away is a finding of somebody else.
pub(crate) async fn policies_findings(path: &Path, target: &Target) -> Vec<Finding> {
    let (policies, finding) = of_file(path);
    let mut findings = vec![finding];
    let Some(policies) = policies else { return findings };
    // Boxed: connecting is large.
    let Ok(session) = Box::pin(Session::connect(&target.source, "walcast doctor")).await else {
        return findings;
    };
    match misfits(&session, &target.publication, &policies).await {
        Ok(misfits) => findings.extend(misfits.into_iter().flatten().map(|misfit| of_misfit(path, misfit))),
        // That publications contradict one another is said where they are looked at.
        Err(walcast_snapshot::Error::ColumnListsDiffer { .. }) => {}
        Err(error) => findings.push(unanswered(CHECK, &error)),
    }
    findings
}

fn of_misfit(path: &Path, misfit: Misfit) -> Finding {
    let message = format!("{} of {} {}", misfit.place, path.display(), misfit.problem);
    if misfit.is_refused {
        Finding::error(CHECK, message, misfit.fix)
    } else {
        Finding::warning(CHECK, message, misfit.fix)
    }
}

fn of_file(path: &Path) -> (Option<Policies>, Finding) {
    match policy_file::read(path) {
        Ok(policies) if policies.is_empty() => {
            let message = format!("{} has no policies: nobody may have anything", path.display());
            (None, Finding::warning(CHECK, message, "add a [[policy]] with role and table"))
        }
        Ok(policies) => {
            let number = match policies.len() {
                1 => "1 policy".to_owned(),
                number => format!("{number} policies"),
            };
            (Some(policies), Finding::ok(CHECK, format!("{number} in {}", path.display())))
        }
        Err(error) => {
            let fix =
                "correct the file: a daemon that runs goes on with the policies that it had, and none starts";
            (None, Finding::error(CHECK, error.to_string(), fix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::of_file;
    use crate::commands::doctor::finding::Severity;

    #[test]
    fn a_wrong_file_is_an_error_with_its_mistakes_and_an_empty_one_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policies.toml");
        for (text, severity, said) in [
            ("", Severity::Warning, "nobody may have anything"),
            ("[[policy]]\nrole = 'a'\ntable = '*'\n", Severity::Ok, "1 policy in "),
            (
                "[[policy]]\nrole = 'a'\ntable = 'x'\n",
                Severity::Error,
                "policy 1, line 3: \"x\" names no table",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let (_, finding) = of_file(&path);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.message.contains(said), "{finding:?}");
        }
    }
}
