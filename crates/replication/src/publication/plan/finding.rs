//! What a person should know about the tables and publications, each with the one statement that mends it.

use std::fmt;

use walcast_postgres::quote_identifier;

use super::super::facts::{Facts, IdentityFacts, PublicationFacts, TableFacts};
use super::{Action, PlanStep, quoted};

/// What kind of thing is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// A table whose updates and deletes are not in the feed.
    InsertsOnly,
    /// The application's UPDATE and DELETE on this table fail, because of a publication that walcast does not manage.
    Broken,
    /// A table that was asked for and cannot be published.
    Unpublishable,
    /// A publication that is not as walcast needs it.
    Publication,
    /// A step that the connected role may not take.
    Privilege,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The table or publication that it is about.
    pub subject: String,
    /// What is wrong, as a fragment that follows the subject and a colon.
    pub problem: String,
    /// The statement that mends it, where one does; those that follow from it behind it.
    pub statement: Option<String>,
}

impl Finding {
    /// With what is to be run then.
    pub(super) fn then(mut self, statements: impl Iterator<Item = String>) -> Self {
        self.statement = self.statement.map(|first| {
            let all: Vec<String> = [first].into_iter().chain(statements).collect();
            all.join(" ")
        });
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)?;
        match &self.statement {
            Some(statement) => write!(f, "; {statement}"),
            None => Ok(()),
        }
    }
}

/// A table without a usable replica identity: `broken` when a publication publishes its updates all the same.
pub(super) fn identity(table: &TableFacts, broken: bool) -> Finding {
    let alter = |what: String| format!("ALTER TABLE {} REPLICA IDENTITY {what};", quoted(&table.name));
    let (why, mend) = match &table.identity {
        IdentityFacts::Usable => ("it has a usable replica identity", "DEFAULT".to_owned()),
        IdentityFacts::Nothing { primary_key: true } => {
            ("its REPLICA IDENTITY is NOTHING", "DEFAULT".to_owned())
        }
        IdentityFacts::Nothing { primary_key: false } => {
            ("its REPLICA IDENTITY is NOTHING", "FULL".to_owned())
        }
        IdentityFacts::IndexGone { primary_key: true } => {
            ("its replica identity index is gone", "DEFAULT".to_owned())
        }
        IdentityFacts::IndexGone { primary_key: false } => {
            ("its replica identity index is gone", "FULL".to_owned())
        }
        IdentityFacts::Deferrable => ("its primary key is deferrable", "FULL".to_owned()),
        IdentityFacts::NoKey { unique_index: None } => ("it has no primary key", "FULL".to_owned()),
        IdentityFacts::NoKey { unique_index: Some(index) } => {
            ("it has no primary key", format!("USING INDEX {}", quote_identifier(index)))
        }
    };
    let effect = if broken {
        "the application's UPDATE and DELETE on it fail"
    } else {
        "only its inserts and truncates are in the feed"
    };
    Finding {
        kind: if broken { FindingKind::Broken } else { FindingKind::InsertsOnly },
        subject: table.name.to_string(),
        problem: format!("{why}: {effect}"),
        statement: Some(alter(mend)),
    }
}

/// A publication under walcast's name that is not a list of tables.
pub(super) fn foreign(publication: &PublicationFacts) -> Finding {
    let what = if publication.all_tables { "FOR ALL TABLES" } else { "FOR TABLES IN SCHEMA" };
    Finding {
        kind: FindingKind::Publication,
        subject: publication_subject(&publication.name),
        problem: format!(
            "it is {what} and not walcast's to manage: use it as it is (--no-manage), or choose another name"
        ),
        statement: None,
    }
}

/// A step for an administrator; with what lets walcast's role read the table, which an initial sync needs too.
pub(super) fn privilege(step: &PlanStep, facts: &Facts) -> Finding {
    let role = &facts.role.name;
    let mut statements = step.action.statements();
    let (subject, problem) = match &step.action {
        Action::Publication { publication, .. } => {
            (publication_subject(publication), format!("role {role} may not create or alter it"))
        }
        Action::Table(step) => {
            let table = facts.table(step.oid).filter(|_| step.enter.is_some());
            statements.extend(table.and_then(|table| table.grant_to(role)));
            let what = if step.enter.is_some() { "publish it" } else { "take it out of the publications" };
            let why = "which needs the owner of the table and of the publications";
            (step.name.to_string(), format!("role {role} may not {what}, {why}"))
        }
    };
    Finding {
        kind: FindingKind::Privilege,
        subject,
        problem: format!("{problem}: an administrator has to run the statement"),
        statement: Some(statements.join(" ")),
    }
}

pub(super) fn publication_subject(name: &str) -> String {
    format!("publication {name}")
}

/// The findings about a publication that is used as it is.
pub(super) fn of_given(facts: &Facts, name: &str) -> Vec<Finding> {
    let Some(publication) = facts.publication(name) else {
        return vec![Finding {
            kind: FindingKind::Publication,
            subject: publication_subject(name),
            problem: "there is no such publication, and walcast is told not to manage it".to_owned(),
            statement: Some(format!("CREATE PUBLICATION {};", quote_identifier(name))),
        }];
    };
    of_publication(facts, publication)
}

/// Tables that a publication breaks, and what of it the feed cannot tell truthfully.
pub(super) fn of_publication(facts: &Facts, publication: &PublicationFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if publication.operations[1] || publication.operations[2] {
        let tables = facts.published_by(publication);
        findings.extend(
            tables.filter(|table| table.identity != IdentityFacts::Usable).map(|table| identity(table, true)),
        );
    }
    let mut about = |problem: &str, statement: Option<String>| {
        findings.push(Finding {
            kind: FindingKind::Publication,
            subject: publication_subject(&publication.name),
            problem: problem.to_owned(),
            statement,
        });
    };
    let set = |option: &str| {
        Some(format!("ALTER PUBLICATION {} SET ({option});", quote_identifier(&publication.name)))
    };
    if publication.via_root {
        about(
            "it publishes partitions as their root, and Postgres then says nothing when a partition is truncated, \
             detached or dropped",
            set("publish_via_partition_root = false"),
        );
    }
    if publication.operations != [true; 4] {
        about("it does not publish every operation", set("publish = 'insert, update, delete, truncate'"));
    }
    findings
}
