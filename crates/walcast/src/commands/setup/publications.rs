//! The publications' part of setup.

use walcast_postgres::Session;
use walcast_replication::publication::{
    Action, Facts, FindingKind, Pickup, Placement, Plan, PlanStep, PublicationSettings, apply,
};

use super::{Note, SetupError};
use crate::commands::doctor::{Finding, Fix, named};
use crate::output::count;

/// A plan is made again after each round: a partitioned table is listed before its partitions are, and a table that
/// was locked may be free by then. What is left after these rounds `walcast serve` does.
const ROUNDS_MAX: usize = 5;

/// Brings the publications to where they should be, as far as the role may; returns the database's name.
pub(super) async fn prepare(
    source: &Session,
    settings: &PublicationSettings,
    secret: Option<&str>,
    missing: &mut Vec<Finding>,
    say: &mut (dyn FnMut(Note) + Send),
) -> Result<String, SetupError> {
    let mut facts = Facts::read(source).await?;
    if facts.standby {
        return Err(walcast_replication::Error::Standby.into());
    }
    let mut plan = Plan::new(&facts, settings);
    for _ in 0..ROUNDS_MAX {
        let mut later = Vec::new();
        for step in plan.steps.iter().filter(|step| step.allowed) {
            match apply(source, step, settings, secret).await {
                Ok(applied) => {
                    say(Note::changed(subject(step), describe(step, applied.rows)));
                    for (table, reason) in applied.without_rows {
                        let message =
                            format!("{table}: the rows that it has already are not in the feed: {reason}");
                        say(Note::unchanged("table", message));
                    }
                }
                // It is locked, was dropped, or somebody else was faster: one table must not keep the feed of the
                // others from starting.
                Err(walcast_replication::Error::Postgres(error))
                    if matches!(step.action, Action::Table(_))
                        && error.sqlstate().is_some()
                        && !error.is_shutting_down() =>
                {
                    later.push(format!("{}: {error}; walcast serve tries again", undone(step)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        facts = Facts::read(source).await?;
        plan = Plan::new(&facts, settings);
        if plan.steps.iter().all(|step| !step.allowed) {
            break;
        }
        for message in later {
            say(Note::unchanged("table", message));
        }
    }
    say(Note::unchanged("publication", published(&facts, settings)));
    let names = settings.names();
    let lacking: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| facts.publication(name).is_none()).collect();
    if !lacking.is_empty() {
        // Without its publications there is no feed. With them come their tables, so that an administrator acts once.
        let statements = Plan::by_hand(&facts, settings).administrator_statements().join("\n");
        let (names, database, role) = (named(&lacking), &facts.database, &facts.role.name);
        let message = format!("in database {database}: role {role:?} may not create {names}");
        missing.push(Finding::error("publication", message, Fix::sql(statements)));
        say_findings(&plan, say);
        return Ok(facts.database);
    }
    for step in plan.steps.iter().filter(|step| !step.allowed) {
        // One table that belongs to another role must not keep the feed of the others from starting.
        let message = format!("{}: role {:?} may not change that", undone(step), facts.role.name);
        say(Note {
            fix: Some(step.action.statements().join(" ")),
            is_standing: true,
            ..Note::unchanged(subject(step), message)
        });
    }
    say_findings(&plan, say);
    Ok(facts.database)
}

/// What is not as it should be with the tables; what is to be run for one goes on from where the publications should be.
fn say_findings(plan: &Plan, say: &mut (dyn FnMut(Note) + Send)) {
    for finding in plan.findings.iter().filter(|finding| finding.kind != FindingKind::Privilege) {
        let note = Note::unchanged("table", format!("{}: {}", finding.subject, finding.problem));
        say(Note { fix: finding.statement.clone(), is_standing: true, ..note });
    }
}

/// How much each publication has.
pub(crate) fn published(facts: &Facts, settings: &PublicationSettings) -> String {
    let size = |name: &str| match facts.publication(name) {
        Some(publication) if publication.all_tables => "all tables".to_owned(),
        Some(publication) => count(publication.tables.len() as u64, "table"),
        None => "not there".to_owned(),
    };
    let each = settings.names().into_iter().map(|name| format!("publication {name:?}: {}", size(&name)));
    each.collect::<Vec<_>>().join("; ")
}

fn subject(step: &PlanStep) -> &'static str {
    match step.action {
        Action::Publication { .. } => "publication",
        Action::Table(_) => "table",
    }
}

/// How it is while the step was not taken.
fn undone(step: &PlanStep) -> String {
    let table = match &step.action {
        Action::Publication { publication, .. } => {
            return format!("publication {publication:?} is not as it should be");
        }
        Action::Table(table) => table,
    };
    let (name, is_listed) = (&table.name, !table.leave.is_empty());
    match &table.enter {
        Some((Placement::Whole, _)) if is_listed => {
            format!("{name} is still published for inserts and truncates only")
        }
        Some((Placement::Inserts, _)) if is_listed => {
            format!("{name} is still published whole, and its UPDATE and DELETE fail")
        }
        // Covered by the partitioned table that it belongs to.
        Some(_) if table.pickup == Pickup::None => format!("{name} is not published by itself"),
        Some(_) => format!("{name} is not published"),
        None => format!("{name} is still in {}", table.leave.join(", ")),
    }
}

/// What the step did.
fn describe(step: &PlanStep, rows: u64) -> String {
    let table = match &step.action {
        Action::Publication { statement, .. } => return statement.clone(),
        Action::Table(table) => table,
    };
    let rows = if rows > 0 { format!(", with what it has: {}", count(rows, "row")) } else { String::new() };
    match &table.enter {
        Some((Placement::Whole, _)) => format!("{} is published whole{rows}", table.name),
        Some((Placement::Inserts, _)) => {
            format!("{} is published for inserts and truncates only{rows}", table.name)
        }
        None => format!("{} leaves {}", table.name, table.leave.join(", ")),
    }
}
