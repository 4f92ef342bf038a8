//! The publications and their tables: what is in the feed, how much of it, and what walcast's role may read.

use std::collections::BTreeMap;

use walcast_model::Oid;
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::publication::{self, Action, Facts, FindingKind, Plan, PublicationSettings};

use super::finding::Finding;
use super::fix::Fix;
use crate::commands::setup::published;
use crate::output::{count, listed};

/// What the plan of the publications says. `has_feed`: there is one, which lacks what is written while they are missing.
pub(crate) fn publication_findings(
    facts: &Facts,
    settings: &PublicationSettings,
    has_feed: bool,
) -> Vec<Finding> {
    let plan = Plan::new(facts, settings);
    // What the role may not do is one thing for an administrator, whatever the number of statements.
    let told = plan.findings.iter().filter(|found| found.kind != FindingKind::Privilege);
    // First: what is to be run for a table goes on from there.
    let mut findings: Vec<Finding> = for_administrator(facts, settings).into_iter().collect();
    findings.extend(told.map(planned));
    let allowed = || plan.steps.iter().filter(|step| step.allowed);
    let lacking = allowed().filter_map(|step| match &step.action {
        Action::Publication { publication, .. } => Some(publication.as_str()),
        Action::Table(_) => None,
    });
    let lacking: Vec<&str> = lacking.collect();
    let tables = allowed().filter(|step| matches!(step.action, Action::Table(_))).count() as u64;
    if !lacking.is_empty() {
        let message = lacks(facts, &lacking);
        findings.push(if has_feed {
            let message = format!("{message}: the feed cannot be read, and lacks what is written meanwhile");
            Finding::error("publication", message, Fix::run("walcast setup"))
        } else {
            Finding::note("publication", message)
        });
    } else if tables > 0 {
        let message = format!("not in their place in the publications yet: {}", count(tables, "table"));
        findings.push(Finding::note("publication", message));
    }
    if findings.iter().all(|finding| !finding.check.starts_with("publication")) {
        findings.push(Finding::ok("publication", published(facts, settings)));
    }
    findings
}

/// What is wrong with these publications: they are not there, or not as they should be.
fn lacks(facts: &Facts, names: &[&str]) -> String {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| facts.publication(name).is_some());
    let told =
        [(missing, "not there"), (there, "not as it should be")].map(|(names, how)| match names.as_slice() {
            [] => None,
            [_] => Some(format!("{} is {how}", named(&names))),
            _ => Some(format!("{} are {}", named(&names), how.replace("it should", "they should"))),
        });
    told.into_iter().flatten().collect::<Vec<_>>().join(", and ")
}

/// `publication "a"`, `publications "a" and "b"`.
pub(crate) fn named(publications: &[&str]) -> String {
    let names: Vec<String> = publications.iter().map(|name| format!("{name:?}")).collect();
    format!("publication{} {}", if names.len() == 1 { "" } else { "s" }, names.join(" and "))
}

/// All that walcast's role may not do for the publications.
fn for_administrator(facts: &Facts, settings: &PublicationSettings) -> Option<Finding> {
    let plan = Plan::by_hand(facts, settings);
    let (mut publications, mut tables) = (Vec::new(), Vec::new());
    for step in plan.steps.iter().filter(|step| !step.allowed) {
        match &step.action {
            Action::Publication { publication, .. } => publications.push(publication.as_str()),
            Action::Table(table) => tables.push(table.name.to_string()),
        }
    }
    let role = &facts.role.name;
    let publish = format!("publish {}", listed(&tables));
    let what = match (publications.as_slice(), tables.as_slice()) {
        ([], []) => return None,
        ([], _) => format!("{publish}: it does not own them, or not the publications"),
        (names, []) => format!("create or alter {}", named(names)),
        (names, _) => format!("create or alter {}, nor {publish}", named(names)),
    };
    let message =
        format!("role {role:?} may not {what}; an administrator has to run this in {}", facts.database);
    let statements = plan.administrator_statements().join("\n");
    Some(Finding::error("publication_privilege", message, Fix::sql(statements)))
}

fn planned(found: &publication::Finding) -> Finding {
    let message = format!("{}: {}", found.subject, found.problem);
    let fix = found.statement.clone().map_or_else(|| Fix::from(USE_ANOTHER), Fix::sql);
    match found.kind {
        FindingKind::InsertsOnly => Finding::warning("replica_identity", message, fix),
        FindingKind::Broken => Finding::error("replica_identity", message, fix),
        FindingKind::Unpublishable => Finding::error("table", message, fix),
        FindingKind::Publication => Finding::error("publication", message, fix),
        FindingKind::Privilege => Finding::error("publication_privilege", message, fix),
    }
}

const USE_ANOTHER: &str = "choose other tables, or another name with --publication";

/// What walcast's role may do with one table that is published, or is to be.
#[derive(Clone, Debug)]
pub(crate) struct TableAccess {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) usage: bool,
    pub(crate) select: bool,
    /// Row security hides rows of it.
    pub(crate) hidden: bool,
    /// Its schema has no other tables than those that were asked for.
    pub(crate) is_schema_whole: bool,
}

impl TableAccess {
    /// Asks for the tables that are published when all is done that `facts` and `settings` ask for.
    ///
    /// # Errors
    /// When the publications do not go together, and those of the session.
    pub(crate) async fn gather(
        session: &Session,
        facts: &Facts,
        settings: &PublicationSettings,
    ) -> Result<Vec<Self>, walcast_snapshot::Error> {
        let oids: Vec<u32> = match Plan::by_hand(facts, settings).tables {
            // The rows of a partitioned table are its partitions'.
            Some(tables) => {
                let has_rows = |oid: &Oid| facts.table(*oid).is_some_and(|table| !table.partitioned);
                tables.into_iter().filter(has_rows).map(Oid::get).collect()
            }
            None => {
                let published = walcast_snapshot::published_tables(session, &settings.names()).await?;
                published.iter().map(|table| table.oid.get()).collect()
            }
        };
        let rows = session
            .query(
                "WITH whole AS (
                     SELECT c.relnamespace FROM pg_class c LEFT JOIN unnest($1::oid[]) AS asked (oid) USING (oid)
                     WHERE c.relkind = 'r' AND c.relpersistence = 'p'
                       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                       AND d.objid = c.oid AND d.deptype = 'e')
                     GROUP BY 1 HAVING count(*) = count(asked.oid))
                 SELECT n.nspname::text, c.relname::text, has_schema_privilege(n.oid, 'USAGE'),
                        has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid),
                        n.oid IN (SELECT relnamespace FROM whole)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = ANY ($1) ORDER BY 1, 2",
                &[&oids],
            )
            .await?;
        let access = |row: &tokio_postgres::Row| {
            Ok(Self {
                schema: row.try_get(0)?,
                table: row.try_get(1)?,
                usage: row.try_get(2)?,
                select: row.try_get(3)?,
                hidden: row.try_get(4)?,
                is_schema_whole: row.try_get(5)?,
            })
        };
        rows.iter().map(access).collect()
    }
}

/// Whether an initial sync of each published table can be had by `role`.
pub(crate) fn access_findings(tables: &[TableAccess], role: &str) -> Vec<Finding> {
    let quoted = quote_identifier(role);
    let mut findings = Vec::new();
    let mut forbidden: BTreeMap<&str, Vec<&TableAccess>> = BTreeMap::new();
    for table in tables.iter().filter(|table| !table.usage || !table.select) {
        forbidden.entry(&table.schema).or_default().push(table);
    }
    for (schema, tables) in forbidden {
        let in_schema = quote_identifier(schema);
        let mut grants = Vec::new();
        if tables.iter().any(|table| !table.usage) {
            grants.push(format!("GRANT USAGE ON SCHEMA {in_schema} TO {quoted};"));
        }
        let unreadable: Vec<&str> =
            tables.iter().filter(|table| !table.select).map(|table| table.table.as_str()).collect();
        let is_whole = tables.iter().any(|table| table.is_schema_whole);
        match unreadable.as_slice() {
            [] => {}
            [_, _, ..] if is_whole => {
                grants.push(format!("GRANT SELECT ON ALL TABLES IN SCHEMA {in_schema} TO {quoted};"))
            }
            // Nothing is asked for that is not to be in the feed.
            named => {
                let named = named.iter().map(|table| format!("{in_schema}.{}", quote_identifier(table)));
                let named = named.collect::<Vec<_>>().join(", ");
                grants.push(format!("GRANT SELECT ON {named} TO {quoted};"))
            }
        }
        let named = match tables.as_slice() {
            [one] => format!("table {:?}", one.table),
            [first, ..] => format!("{} tables ({}, …)", tables.len(), first.table),
            [] => continue,
        };
        let message = format!("role {role:?} may not read {named} of schema {schema:?}: no initial sync");
        findings.push(Finding::error("select_privilege", message, Fix::sql(grants.join(" "))));
    }
    let hidden: Vec<String> = tables
        .iter()
        .filter(|table| table.hidden)
        .map(|table| format!("{}.{}", table.schema, table.table))
        .collect();
    if !hidden.is_empty() {
        let message =
            format!("row security hides rows from role {role:?} in {}: no initial sync", hidden.join(", "));
        let fix = Fix::sql(format!("ALTER ROLE {quoted} BYPASSRLS;"));
        findings.push(Finding::error("row_security", message, fix));
    }
    if findings.is_empty() && !tables.is_empty() {
        findings
            .push(Finding::ok("select_privilege", format!("role {role:?} may read every published table")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{TableAccess, access_findings};
    use crate::commands::doctor::finding::Severity;

    fn table(name: &str, usage: bool, select: bool, hidden: bool) -> TableAccess {
        let is_schema_whole = true;
        TableAccess { schema: "s".into(), table: name.into(), usage, select, hidden, is_schema_whole }
    }

    #[test]
    fn one_statement_mends_all_tables_of_a_schema() {
        let mut both = [table("a", false, false, false), table("b", false, false, false)];
        let found = access_findings(&both, "w");
        let fixes: Vec<_> = found.iter().map(|finding| finding.fix.as_deref().unwrap()).collect();
        assert_eq!(
            fixes,
            [r#"GRANT USAGE ON SCHEMA "s" TO "w"; GRANT SELECT ON ALL TABLES IN SCHEMA "s" TO "w";"#]
        );
        // Of which others are nobody's business.
        both.iter_mut().for_each(|table| table.is_schema_whole = false);
        let fix = access_findings(&both, "w")[0].fix.clone().unwrap();
        assert_eq!(fix, r#"GRANT USAGE ON SCHEMA "s" TO "w"; GRANT SELECT ON "s"."a", "s"."b" TO "w";"#);
        let found = access_findings(&[table("a", true, false, false), table("b", true, true, false)], "w");
        assert_eq!(found[0].fix.as_deref(), Some(r#"GRANT SELECT ON "s"."a" TO "w";"#));
    }

    #[test]
    fn hidden_rows_are_an_error_and_free_access_is_none() {
        let found = access_findings(&[table("a", true, true, true)], "w");
        assert_eq!(found[0].fix.as_deref(), Some("ALTER ROLE \"w\" BYPASSRLS;"));
        assert_eq!(access_findings(&[table("a", true, true, false)], "w")[0].severity, Severity::Ok);
    }
}
