//! What is wrong, told once for each cause: a server that is away keeps much from working, and is one thing to mend.

use std::fmt;

use serde::{Serialize, Serializer};

use super::daemon::REASON_CHARACTERS_MAX;
use crate::output::foreign_up_to;

/// One thing that is wrong. As text, also for programs: what it keeps from working, the cause, what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Problem {
    /// What does not work because of it; may be empty.
    effects: Vec<String>,
    cause: String,
    /// What a person can do; where it depends on what does not work there are several.
    hints: Vec<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.effects.is_empty() {
            write!(f, "{}: ", self.effects.join(", "))?;
        }
        f.write_str(&self.cause)?;
        self.hints.iter().try_for_each(|hint| write!(f, "; {hint}"))
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Everything that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Something that is its own cause.
    pub(super) fn push(&mut self, text: impl Into<String>) {
        self.add("", text.into(), None);
    }

    /// `cause` keeps `effect` from working; an empty `effect` says nothing.
    pub(super) fn add(&mut self, effect: &str, cause: String, hint: Option<String>) {
        let known = self.0.iter().position(|known| known.cause == cause);
        let at = known.unwrap_or_else(|| {
            self.0.push(Problem { effects: Vec::new(), cause, hints: Vec::new() });
            self.0.len() - 1
        });
        let Problem { effects, hints, .. } = &mut self.0[at];
        add_to(effects, Some(effect).filter(|effect| !effect.is_empty()));
        hints.extend(hint.filter(|hint| !hints.contains(hint)));
    }

    /// What the daemon complains about: `effects: cause; hint`. Of a cause that was found here too it adds what does not work.
    pub(super) fn heard(&mut self, reason: &str) {
        let known = self.0.iter_mut().find_map(|known| {
            // As the reason is shown.
            let cause = foreign_up_to(&known.cause, REASON_CHARACTERS_MAX);
            let (effects, hint) = reason.split_once(&cause)?;
            Some((known, effects.trim_end_matches(": "), hint.trim_start_matches("; ")))
        });
        let Some((problem, effects, hint)) = known else { return self.push(reason) };
        add_to(&mut problem.effects, Some(effects).filter(|effects| !effects.is_empty()));
        if problem.hints.is_empty() {
            add_to(&mut problem.hints, Some(hint).filter(|hint| !hint.is_empty()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as text.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

fn add_to(texts: &mut Vec<String>, text: Option<&str>) {
    if let Some(text) = text.filter(|text| texts.iter().all(|known| known != text)) {
        texts.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::Problems;

    #[test]
    fn a_cause_is_one_problem_whoever_tells_of_it() {
        let mut problems = Problems::default();
        let away = || "cannot reach Postgres at db:5432: refused".to_owned();
        let start = |setting: &str| Some(format!("start it, or correct {setting}"));
        problems.add("the source cannot be asked", away(), start("database_url"));
        problems.add("the history cannot be asked", away(), start("history_url"));
        problems.add("the source cannot be asked", away(), start("database_url"));
        problems.heard("the source is not read, no barrier can be written: cannot reach Postgres at db:5432: refused; start it");
        problems.heard("history is not written: disk full; make room");
        problems.push("something else");
        let expected = "the source cannot be asked, the history cannot be asked, the source is not read, no barrier can be \
                        written: cannot reach Postgres at db:5432: refused; start it, or correct database_url; start it, or \
                        correct history_url";
        assert_eq!(
            problems.texts(),
            [expected, "history is not written: disk full; make room", "something else"]
        );
        assert_eq!(serde_json::to_value(&problems).unwrap()[2], "something else");
    }
}
