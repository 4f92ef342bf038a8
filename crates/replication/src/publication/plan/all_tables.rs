//! The plan for one publication `FOR ALL TABLES`.

use walcast_postgres::quote_identifier;

use super::super::PublicationSettings;
use super::super::facts::{Facts, PublicationFacts, TableFacts};
use super::finding::{self, Finding, FindingKind};
use super::{Action, Plan, PlanStep};
use crate::assemble::OWN_SCHEMA;

pub(super) fn plan(facts: &Facts, settings: &PublicationSettings) -> Plan {
    let Some(publication) = facts.publication(&settings.name) else {
        let statement = format!("CREATE PUBLICATION {} FOR ALL TABLES;", quote_identifier(&settings.name));
        let action = Action::Publication { publication: settings.name.clone(), statement };
        let step = PlanStep { action, allowed: facts.role.superuser };
        let planned = PublicationFacts {
            name: settings.name.clone(),
            all_tables: true,
            operations: [true; 4],
            ..PublicationFacts::default()
        };
        let published = |table: &&TableFacts| table.permanent && table.name.schema != OWN_SCHEMA;
        let tables = facts.tables.iter().filter(published).map(|table| table.oid).collect();
        return Plan {
            steps: vec![step],
            findings: finding::of_publication(facts, &planned),
            tables: Some(tables),
        };
    };
    let mut findings = finding::of_publication(facts, publication);
    if !publication.all_tables {
        findings.push(Finding {
            kind: FindingKind::Publication,
            subject: finding::publication_subject(&settings.name),
            problem: "it exists and is not FOR ALL TABLES, which cannot be changed afterwards".to_owned(),
            statement: None,
        });
    }
    Plan { findings, ..Plan::default() }
}
