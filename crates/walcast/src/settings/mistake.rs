//! What was wrong with the settings, and where.

use std::fmt;
use std::path::PathBuf;

use super::key::{DATABASE_URL, KEYS, Key};

/// Where a setting was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A flag, without its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A line of the file.
    File {
        path: PathBuf,
        /// From 1; `None` for the file as a whole.
        line: Option<usize>,
        /// The key that stands there; empty when it is not about one.
        key: String,
    },
    /// Nowhere: its default.
    Default(String),
}

impl Origin {
    /// Where the setting stands among all; what is none of them comes before.
    fn place(&self) -> Option<usize> {
        let is_it = |key: &&Key| match self {
            Self::Flag(flag) | Self::Default(flag) => key.flag == flag,
            Self::Variable(name) if name == "DATABASE_URL" => key.flag == DATABASE_URL.flag,
            Self::Variable(name) => key.variable() == *name,
            Self::File { key: name, .. } => key.name() == *name,
        };
        KEYS.iter().position(is_it)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(variable) => f.write_str(variable),
            Self::Default(name) => write!(f, "{name} (not given)"),
            Self::File { path, line, key } => {
                write!(f, "{}", path.display())?;
                if let Some(line) = line {
                    write!(f, ":{line}")?;
                }
                if key.is_empty() { Ok(()) } else { write!(f, ": {key}") }
            }
        }
    }
}

/// One thing that was wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mistake {
    pub(crate) origin: Origin,
    /// May have several lines: a list of what is wrong with a file.
    pub(crate) message: String,
    /// What to do, where it is not that the setting is to be written differently.
    pub(crate) fix: Option<&'static str>,
}

impl Mistake {
    pub(super) const fn new(origin: Origin, message: String) -> Self {
        Self { origin, message, fix: None }
    }

    /// Without what to do.
    pub(crate) fn problem(&self) -> String {
        format!("{}: {}", self.origin, self.message)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem())?;
        self.fix.iter().try_for_each(|fix| write!(f, "; {fix}"))
    }
}

/// Everything that was wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

impl Mistakes {
    /// In the order of the settings, and those of one setting as they were found.
    pub(super) fn sorted(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort_by_cached_key(|mistake| mistake.origin.place());
        Self(mistakes)
    }

    /// Both, in the order of the settings.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        Self::sorted(self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.len();
        write!(f, "{number} mistake{} in the settings", if number == 1 { "" } else { "s" })?;
        let each = |mistake: &Mistake| mistake.to_string().replace('\n', "\n  ");
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {}", each(mistake)))
    }
}

impl std::error::Error for Mistakes {}

/// The candidate that was probably meant: at most two letters away, or three in a long name.
pub(crate) fn suggestion<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bound = if word.len() < 5 { 1 } else { (word.len() / 4).clamp(2, 3) };
    let near = candidates.map(|candidate| (distance(word, candidate), candidate));
    near.filter(|(distance, _)| *distance <= bound).min().map(|(_, candidate)| candidate)
}

/// Letters to insert, delete or replace to make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn a_suggestion_is_near() {
        let known = ["feed_memory", "listen", "slot", "log"];
        let suggest = |word| suggestion(word, known.into_iter());
        assert_eq!(suggest("feed_memmory"), Some("feed_memory"));
        assert_eq!(suggest("lisen"), Some("listen"));
        assert_eq!(suggest("slots"), Some("slot"));
        assert_eq!(suggest("unrelated"), None);
        assert_eq!(suggest("a"), None);
    }
}
