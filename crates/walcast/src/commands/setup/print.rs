//! `walcast setup --print`: the same as SQL, for somebody else to run.

use std::fmt::Write as _;

use walcast_history::schema;
use walcast_postgres::{Session, quote_identifier};
use walcast_replication::publication::{Facts, Finding, FindingKind, Plan};

use super::{SetupError, Target, missing};
use crate::commands::doctor::{ServerFacts, Severity, Step};

/// The SQL of what setup would do now, with what an administrator must add for walcast's role. Changes nothing.
///
/// # Errors
/// When a database cannot be asked.
pub(crate) async fn print(target: &Target) -> Result<String, SetupError> {
    let (history, source) = missing::sessions(target).await?;
    let facts = Facts::read(&source).await?;
    let plan = Plan::by_hand(&facts, &target.publication);
    let role = quote_identifier(&facts.role.name);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "-- walcast setup, as SQL. In database {} (psql):", comment(&facts.database));
    print_server(&source, &target.slot.name, &mut text).await?;
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
        let what = format!("{}: {}", finding.subject, finding.problem);
        let statement = finding.statement.as_deref().unwrap_or_default();
        let _ = writeln!(text, "-- {}:\n--   {}", comment(&what), comment(statement));
    }
    for finding in missing::of_tables(&source, &target.publication).await? {
        let (problem, fix) = (&finding.message, finding.fix.as_deref().unwrap_or_default());
        let _ = writeln!(text, "\n-- {}:", comment(problem));
        // What lets the role read more than these tables is for the administrator to decide.
        let _ = match finding.check {
            "select_privilege" => writeln!(text, "{fix}"),
            _ => writeln!(text, "--   {}", comment(fix)),
        };
    }
    print_schema(target, &history, &mut text).await?;
    let (slot, name) = (&target.slot.name, &facts.role.name);
    let _ = writeln!(
        text,
        "\n-- Then, as role {}: walcast setup. It creates the replication slot {slot:?} and the feed's record,\n\
         -- which need no administrator. The slot must not be created before the publications.",
        comment(name)
    );
    Ok(text)
}

/// What the server lacks before anybody can be fed: its statements, and as comments what is no statement.
async fn print_server(source: &Session, slot: &str, text: &mut String) -> Result<(), SetupError> {
    let findings = ServerFacts::gather(source, slot).await?.findings();
    let missing = findings.iter().filter(|finding| finding.severity == Severity::Error);
    for finding in missing.filter(|finding| finding.check != "primary") {
        let _ = writeln!(text, "\n-- {}:", comment(&finding.message));
        for step in &finding.fix_steps {
            let _ = match step {
                Step::Sql(statements) => writeln!(text, "{statements}"),
                other => writeln!(text, "-- {}: {}", other.mark(), comment(other.text())),
            };
        }
    }
    Ok(())
}

/// A text that stays in its comment: names may have line breaks.
fn comment(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

async fn print_schema(target: &Target, history: &Session, text: &mut String) -> Result<(), SetupError> {
    let row = history.query_one("SELECT current_database()::text, current_user::text", &[]).await?;
    let (database, role): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    if schema::version(history).await? == Some(schema::LATEST) {
        let _ = writeln!(
            text,
            "\n-- The history's schema in database {} is as it should be.",
            comment(&database)
        );
        return Ok(());
    }
    if target.history != target.source {
        let _ = writeln!(
            text,
            "\n-- The history, in database {} at {}:",
            comment(&database),
            target.history.server()
        );
    }
    let (_, _, statement) = schema_statement(history).await?;
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
