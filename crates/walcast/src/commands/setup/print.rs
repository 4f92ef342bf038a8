//! `walcast setup --print`: the same as SQL, for somebody else to run.

use std::fmt::Write as _;

use walcast_history::schema;
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::publication::{Facts, Finding, FindingKind, Plan};

use super::{APPLICATION_NAME, SetupError, Target};

/// The SQL of what setup would do now, with what an administrator must add for walcast's role. Changes nothing.
///
/// # Errors
/// When a database cannot be asked.
pub(crate) async fn print(target: &Target) -> Result<String, SetupError> {
    let source = Session::connect(&target.source, APPLICATION_NAME).await?;
    let facts = Facts::read(&source).await?;
    let plan = Plan::by_hand(&facts, &target.publication);
    let role = quote_identifier(&facts.role.name);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "-- walcast setup, as SQL. In database {} (psql):", facts.database);
    if !facts.role.replication {
        let _ =
            writeln!(text, "\nALTER ROLE {role} REPLICATION; -- on RDS: GRANT rds_replication TO {role};");
    }
    let statements = plan.statements();
    if statements.is_empty() {
        let _ = writeln!(text, "\n-- The publications are as they should be.");
    } else {
        let _ = writeln!(text, "\n-- The publications.\n{}", statements.join("\n"));
    }
    // Those about privileges repeat the statements above.
    let told = |finding: &&Finding| finding.statement.is_some() && finding.kind != FindingKind::Privilege;
    for finding in plan.findings.iter().filter(told) {
        let (subject, problem) = (&finding.subject, &finding.problem);
        let _ = writeln!(
            text,
            "-- {subject}: {problem}:\n--   {}",
            finding.statement.as_deref().unwrap_or_default()
        );
    }
    for (schema, _, grants) in grants(&source).await? {
        let _ = writeln!(
            text,
            "\n-- For initial syncs of the tables in {}.\n{grants}",
            quote_identifier(&schema)
        );
    }
    print_schema(target, &mut text).await?;
    let (slot, name) = (&target.slot.name, &facts.role.name);
    let _ = writeln!(
        text,
        "\n-- Then, as role {name}: walcast setup. It creates the replication slot {slot:?} and the feed's record,\n\
         -- which need no administrator. The slot must not be created before the publications."
    );
    Ok(text)
}

/// The schemas of which the role cannot read all tables, with the role and the statements that let it. The changes come
/// without, an initial sync does not.
pub(super) async fn grants(source: &Session) -> Result<Vec<(String, String, String)>, SetupError> {
    let sql = "SELECT DISTINCT n.nspname::text, current_user::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
                 AND n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'walcast'])
                 AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
               ORDER BY 1";
    let statements = |row: &tokio_postgres::Row| {
        let (schema, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (quoted, to) = (quote_identifier(&schema), quote_identifier(&role));
        let grants = format!(
            "GRANT USAGE ON SCHEMA {quoted} TO {to};\nGRANT SELECT ON ALL TABLES IN SCHEMA {quoted} TO {to};"
        );
        Ok((schema, role, grants))
    };
    source.query(sql, &[]).await?.iter().map(statements).collect()
}

async fn print_schema(target: &Target, text: &mut String) -> Result<(), SetupError> {
    let history = Session::connect(&target.history, APPLICATION_NAME).await?;
    let row = history.query_one("SELECT current_database()::text, current_user::text", &[]).await?;
    let (database, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if schema::version(&history).await? == Some(schema::LATEST) {
        let _ = writeln!(text, "\n-- The history's schema in database {database} is as it should be.");
        return Ok(());
    }
    if target.history != target.source {
        let _ = writeln!(text, "\n-- The history, in database {database} at {}:", target.history.server());
    }
    let (_, _, statement) = schema_statement(&history).await?;
    let role = quote_identifier(&role);
    let sql = schema::print();
    let _ = writeln!(text, "\n-- The history.\n{statement}\nSET ROLE {role};\n{sql}RESET ROLE;");
    Ok(())
}

/// The session's database and role, and the statement that lets the role have schema `walcast` there.
pub(super) async fn schema_statement(history: &Session) -> Result<(String, String, String), SetupError> {
    let row = history
        .query_one(
            "SELECT current_database()::text, current_user::text,
                    EXISTS (SELECT FROM pg_namespace WHERE nspname = 'walcast')",
            &[],
        )
        .await?;
    let name: String = row.try_get(1)?;
    let role = quote_identifier(&name);
    let there: bool = row.try_get(2)?;
    let statement = if there {
        format!("ALTER SCHEMA walcast OWNER TO {role};")
    } else {
        format!("CREATE SCHEMA walcast AUTHORIZATION {role};")
    };
    Ok((row.try_get(0)?, name, statement))
}
