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
    print_grants(&source, &mut text).await?;
    print_schema(target, &mut text).await?;
    let (slot, name) = (&target.slot.name, &facts.role.name);
    let _ = writeln!(
        text,
        "\n-- Then, as role {name}: walcast setup. It creates the replication slot {slot:?} and the feed's record,\n\
         -- which need no administrator. The slot must not be created before the publications."
    );
    Ok(text)
}

/// What the role lacks to read the tables' rows: the changes come without, an initial sync does not.
async fn print_grants(source: &Session, text: &mut String) -> Result<(), SetupError> {
    let sql = "SELECT DISTINCT n.nspname::text, current_user::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
                 AND n.nspname <> ALL (ARRAY['pg_catalog', 'information_schema', 'walcast'])
                 AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
               ORDER BY 1";
    for row in source.query(sql, &[]).await? {
        let (schema, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (schema, role) = (quote_identifier(&schema), quote_identifier(&role));
        let _ = writeln!(
            text,
            "\n-- For initial syncs of the tables in {schema}.\nGRANT USAGE ON SCHEMA {schema} TO {role};\n\
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};"
        );
    }
    Ok(())
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
    let (_, statement) = schema_statement(&history).await?;
    let role = quote_identifier(&role);
    let sql = schema::print();
    let _ = writeln!(text, "\n-- The history.\n{statement}\nSET ROLE {role};\n{sql}RESET ROLE;");
    Ok(())
}

/// The session's database, and the statement that lets its role have schema `walcast` there.
pub(super) async fn schema_statement(history: &Session) -> Result<(String, String), SetupError> {
    let row = history
        .query_one(
            "SELECT current_database()::text, current_user::text,
                    EXISTS (SELECT FROM pg_namespace WHERE nspname = 'walcast')",
            &[],
        )
        .await?;
    let role = quote_identifier(&row.try_get::<_, String>(1)?);
    let there: bool = row.try_get(2)?;
    let statement = if there {
        format!("ALTER SCHEMA walcast OWNER TO {role};")
    } else {
        format!("CREATE SCHEMA walcast AUTHORIZATION {role};")
    };
    Ok((row.try_get(0)?, statement))
}
