//! What mends something: what is to be run, and where, apart from what is only to be done.

use std::fmt;

use serde::Serialize;

/// One step of a [`Fix`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// Statements for the database.
    Sql(String),
    /// A command for the shell.
    Run(String),
    /// Something for a person.
    Do(String),
}

impl Step {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Sql(text) | Self::Run(text) | Self::Do(text) => text,
        }
    }

    /// The word that marks it, for people.
    pub(crate) const fn mark(&self) -> &'static str {
        match self {
            Self::Sql(_) => "SQL",
            Self::Run(_) => "run",
            Self::Do(_) => "do",
        }
    }
}

/// What mends something: steps in their order. A text alone is something for a person to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fix(Vec<Step>);

impl Fix {
    pub(crate) fn sql(statements: impl Into<String>) -> Self {
        Self(vec![Step::Sql(statements.into())])
    }

    pub(crate) fn run(command: impl Into<String>) -> Self {
        Self(vec![Step::Run(command.into())])
    }

    /// And then this.
    pub(crate) fn then(mut self, next: impl Into<Self>) -> Self {
        self.0.extend(next.into().0);
        self
    }

    pub(crate) fn into_steps(self) -> Vec<Step> {
        self.0
    }
}

impl From<String> for Fix {
    fn from(text: String) -> Self {
        Self(vec![Step::Do(text)])
    }
}

impl From<&str> for Fix {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// As one text, for a log and for scripts.
impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Step> = None;
        for step in &self.0 {
            match before.map(Step::text) {
                None => {}
                Some(text) if text.ends_with(':') => f.write_str(" ")?,
                Some(text) if text.ends_with(';') => f.write_str(" then ")?,
                Some(_) => f.write_str("; then ")?,
            }
            f.write_str(step.text())?;
            before = Some(step);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Fix;

    #[test]
    fn steps_are_one_text_too() {
        let fix =
            Fix::sql("ALTER SYSTEM SET a = 'b';").then("restart Postgres").then(Fix::run("walcast setup"));
        assert_eq!(fix.to_string(), "ALTER SYSTEM SET a = 'b'; then restart Postgres; then walcast setup");
        assert_eq!(Fix::from("either way:").then(Fix::sql("SELECT 1;")).to_string(), "either way: SELECT 1;");
        let marks: Vec<&str> = fix.into_steps().iter().map(super::Step::mark).collect();
        assert_eq!(marks, ["SQL", "do", "run"]);
    }
}
