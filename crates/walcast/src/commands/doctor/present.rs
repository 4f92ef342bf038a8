//! How findings are shown to people.

use std::io::{self, Write};

use super::{Finding, Severity, Step};
use crate::output::{CYAN, DIM, GREEN, RED, YELLOW, count, wrap, wrap_statement};

/// Columns before a finding's message: its severity.
const MESSAGE: usize = 9;
/// Columns before a fix: `SQL: `, `run: ` or `do:  ` besides.
const FIX: usize = MESSAGE + 5;

/// In the place of statements that have been said with another finding.
const SAID_ABOVE: &str = "the statement that is said above mends this too";

/// Prints each finding with its steps, each marked by what it is for, and how many there are of each severity.
///
/// # Errors
/// Those of `out`.
pub(crate) fn show(findings: &[Finding], out: &mut impl Write) -> io::Result<()> {
    let mut said: Vec<&str> = Vec::new();
    for finding in findings {
        let (style, word) = match finding.severity {
            Severity::Ok => (GREEN, "ok"),
            Severity::Note => (DIM, "note"),
            Severity::Warning => (YELLOW, "warning"),
            Severity::Error => (RED, "error"),
        };
        writeln!(out, "{style}{word:>7}{style:#}  {}", wrap(&finding.message, MESSAGE))?;
        // What walcast does by itself is said once, at the end.
        let steps = finding.fix_steps.iter().filter(|_| finding.severity != Severity::Note);
        for step in steps {
            let (mut mark, mut text) = (format!("{}:", step.mark()), step.text());
            if let Step::Sql(statements) = step {
                if said.iter().any(|said| said.contains(statements.as_str())) {
                    (mark, text) = ("do:".to_owned(), SAID_ABOVE);
                }
                said.push(statements);
            }
            writeln!(out, "{:MESSAGE$}{DIM}{mark:<5}{DIM:#}{CYAN}{}{CYAN:#}", "", wrap_statement(text, FIX))?;
        }
    }
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let (errors, warnings, notes) =
        (number(Severity::Error), number(Severity::Warning), number(Severity::Note));
    let by_itself = match notes {
        0 => String::new(),
        notes => format!(", {} (what walcast setup and serve do themselves)", count(notes, "note")),
    };
    writeln!(out, "{}, {}{by_itself}", count(errors, "error"), count(warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::show;
    use crate::commands::doctor::{Finding, Fix};

    #[test]
    fn texts_and_statements_are_wrapped_and_each_step_says_what_it_is_for() {
        let statement =
            "GRANT SELECT ON \"public\".\"one table\", \"public\".\"another table\" TO \"the role\";";
        let fix = Fix::sql(format!("{statement}\n{statement}"))
            .then("restart Postgres")
            .then(Fix::run("walcast setup"));
        let findings = [
            Finding::ok("version", "Postgres 18"),
            Finding::note("slot", "there is no slot yet"),
            Finding::error(
                "x",
                "a message that is as long as two lines, and so has to be wrapped somewhere",
                fix,
            ),
            Finding::warning("y", "for another reason", Fix::sql(statement)),
        ];
        let mut out = Vec::new();
        show(&findings, &mut out).unwrap();
        let plain = anstream::adapter::strip_bytes(&out).into_vec();
        let shown = String::from_utf8(plain).unwrap();
        let expected = [
            "     ok  Postgres 18",
            "   note  there is no slot yet",
            "  error  a message that is as long as two lines, and so has to be wrapped",
            "         somewhere",
            "         SQL: GRANT SELECT ON \"public\".\"one table\", \"public\".\"another table\" TO",
            "              \"the role\";",
            "              GRANT SELECT ON \"public\".\"one table\", \"public\".\"another table\" TO",
            "              \"the role\";",
            "         do:  restart Postgres",
            "         run: walcast setup",
            "warning  for another reason",
            "         do:  the statement that is said above mends this too",
            "1 error, 1 warning, 1 note (what walcast setup and serve do themselves)",
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{shown}");
    }
}
