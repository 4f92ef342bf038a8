//! The file of policies: what a daemon that starts now would say of it, and whether it names what is there.

use std::path::Path;

use walcast_model::RelationName;
use walcast_policy::Policies;
use walcast_postgres::Session;
use walcast_protocol::TablePattern;
use walcast_replication::publication::Facts;

use super::Target;
use super::finding::Finding;
use crate::policy_file;
use crate::settings::suggestion;

const CHECK: &str = "policies";

/// Looks at the file, and for the tables that it names. A source that cannot be asked is a finding of somebody else.
pub(crate) async fn policies_findings(path: &Path, target: &Target) -> Vec<Finding> {
    let (policies, finding) = of_file(path);
    let mut findings = vec![finding];
    if let (Some(policies), Some(tables)) = (policies, Tables::gather(target).await) {
        findings.extend(tables.findings(path, &policies));
    }
    findings
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

/// The tables that can be had, and those that could.
#[derive(Debug)]
struct Tables {
    /// By the names that the stream has.
    published: Vec<RelationName>,
    /// Of the database, whether published or not; with whether its rows go by the names of its partitions.
    there: Vec<(RelationName, bool)>,
}

impl Tables {
    /// `None` when the source cannot be asked, or publishes nothing, which others say.
    async fn gather(target: &Target) -> Option<Self> {
        let session = Session::connect(&target.source, "walcast doctor").await.ok()?;
        let published =
            walcast_snapshot::published_tables(&session, &target.publication.names()).await.ok()?;
        let facts = Facts::read(&session).await.ok()?;
        let published: Vec<RelationName> = published.into_iter().map(|table| table.name).collect();
        let there = facts.tables.into_iter().map(|table| (table.name, table.partitioned)).collect();
        (!published.is_empty()).then_some(Self { published, there })
    }

    /// A policy that names what is not published gives nobody anything.
    fn findings(&self, path: &Path, policies: &Policies) -> Vec<Finding> {
        let is_missing = |pattern: &TablePattern| !self.published.iter().any(|table| pattern.matches(table));
        let patterns = policies.patterns().into_iter().filter(|(pattern, _)| is_missing(pattern));
        let finding = |(pattern, policy): (&TablePattern, &walcast_policy::TablePolicy)| {
            let (place, path) = (policy.place(), path.display());
            let message =
                format!("{place} of {path} names {pattern}, of which nothing is published: it gives nothing");
            Finding::warning(CHECK, message, self.fix(pattern))
        };
        patterns.map(finding).collect()
    }

    fn fix(&self, pattern: &TablePattern) -> String {
        let TablePattern::Table(name) = pattern else {
            return "correct the schema, or take the policy out".to_owned();
        };
        match self.there.iter().find(|(there, _)| there == name) {
            Some((_, true)) => {
                format!(
                    "name the partitions of {name}, or {}: rows go by the names of their partitions",
                    TablePattern::Schema(name.schema.clone())
                )
            }
            Some((_, false)) => format!("publish {name} (the setting tables), or take the policy out"),
            None => {
                let names: Vec<String> = self.published.iter().map(ToString::to_string).collect();
                let near = suggestion(&name.to_string(), names.iter().map(String::as_str));
                let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
                format!("there is no table {name}: correct the name{near}, or take the policy out")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::RelationName;
    use walcast_policy::Policies;

    use super::{Tables, of_file};
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
    #[test]
    fn what_a_policy_names_and_nobody_publishes_is_found_with_what_mends_it() {
        let name = |text: &str| text.parse::<RelationName>().unwrap();
        let tables = Tables {
            published: vec![name("public.orders"), name("public.days_1")],
            there: vec![
                (name("public.orders"), false),
                (name("public.notes"), false),
                (name("public.days"), true),
            ],
        };
        let named =
            ["public.orders", "*", "public.*", "public.order", "public.notes", "public.days", "shop.*"];
        let text: String = named.map(|table| format!("[[policy]]\nrole = 'a'\ntable = '{table}'\n")).concat();
        let found = tables.findings(std::path::Path::new("p.toml"), &Policies::parse(&text).unwrap());
        let fixes: Vec<&str> = found.iter().filter_map(|finding| finding.fix.as_deref()).collect();
        assert_eq!(
            fixes,
            [
                "there is no table public.order: correct the name (did you mean public.orders?), or take the policy out",
                "publish public.notes (the setting tables), or take the policy out",
                "name the partitions of public.days, or public.*: rows go by the names of their partitions",
                "correct the schema, or take the policy out",
            ]
        );
        assert!(found[0].message.starts_with("policy 4, line 10 of p.toml names public.order,"), "{found:?}");
        assert!(found.iter().all(|finding| finding.severity == Severity::Warning));
    }
}
