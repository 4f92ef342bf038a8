//! Reads settings one by one and collects what was wrong.

use std::path::PathBuf;
use std::time::Duration;

use walcast_postgres::ConnectionConfig;

use super::key::{DATABASE_URL, Key, Kind};
use super::mistake::{Mistake, Mistakes, Origin};
use super::source::{Given, Sources};
use super::value;

pub(crate) struct Reader<'a> {
    sources: &'a Sources,
    mistakes: Vec<Mistake>,
    /// What can be read, and keeps the daemon from starting all the same.
    refusals: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(sources: &'a Sources) -> Self {
        Self { sources, mistakes: sources.mistakes(), refusals: Vec::new() }
    }

    /// Every mistake, and what is refused: what is no setting first, then in the order of the settings.
    pub(crate) fn finish(self) -> (Mistakes, Mistakes) {
        (Mistakes::sorted(self.mistakes), Mistakes::sorted(self.refusals))
    }

    fn mistake(&mut self, origin: Origin, message: String) {
        self.mistakes.push(Mistake::new(origin, message));
    }

    /// What was given, or the default; `None` when there is neither.
    fn given(&self, key: &Key) -> Option<(Origin, Given)> {
        let default = || {
            (!key.default.is_empty())
                .then(|| (Origin::Default(key.flag.to_owned()), vec![key.default.to_owned()]))
        };
        self.sources.find(key).or_else(default)
    }

    /// One value; `None` when it was not given and has no default, and after a mistake.
    pub(crate) fn parse<T>(&mut self, key: &Key, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (origin, given) = self.given(key)?;
        let text = given.last()?;
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(expected) => {
                let shown = if key.kind == Kind::Secret { String::new() } else { format!("{text:?}: ") };
                self.mistake(origin, format!("{shown}{expected}"));
                None
            }
        }
    }

    /// All values of a list; `None` when it was not given.
    pub(crate) fn parse_list<T>(
        &mut self,
        key: &Key,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let (origin, given) = self.given(key)?;
        if given.is_empty() {
            self.mistake(origin, "the list is empty; leave it away for the default".to_owned());
            return None;
        }
        let mut values = Vec::new();
        for text in given {
            match parse(text.trim()) {
                Ok(value) => values.push(value),
                Err(expected) => self.mistake(origin.clone(), format!("{text:?}: {expected}")),
            }
        }
        Some(values)
    }

    pub(crate) fn switch(&mut self, key: &Key) -> bool {
        self.parse(key, value::switch).unwrap_or_default()
    }

    /// Replaces `limit` by what was given; the default is the caller's own.
    fn replace<T>(&mut self, key: &Key, limit: &mut T, parse: impl Fn(&str) -> Result<T, String>) {
        if self.sources.find(key).is_some()
            && let Some(value) = self.parse(key, parse)
        {
            *limit = value;
        }
    }

    pub(crate) fn duration(&mut self, key: &Key, limit: &mut Duration) {
        self.replace(key, limit, value::duration);
    }

    pub(crate) fn count(&mut self, key: &Key, limit: &mut usize) {
        self.replace(key, limit, value::count);
    }

    /// Bytes of memory.
    pub(crate) fn size(&mut self, key: &Key, limit: &mut usize, least: u64) {
        let parse =
            |text: &str| usize::try_from(value::bytes(text, least)?).map_err(|_| "too large".to_owned());
        self.replace(key, limit, parse);
    }

    /// Bytes of anything else.
    pub(crate) fn bytes(&mut self, key: &Key, limit: &mut u64, least: u64) {
        self.replace(key, limit, |text| value::bytes(text, least));
    }

    /// A connection. Only [`DATABASE_URL`] is there without being given: as libpq has it.
    pub(crate) fn connection(&mut self, key: &Key) -> Option<ConnectionConfig> {
        let variables = &self.sources.variables;
        let mut found = self.sources.find(key);
        if key.flag == DATABASE_URL.flag {
            let usual = || {
                variables
                    .get("DATABASE_URL")
                    .map(|url| (Origin::Variable("DATABASE_URL".into()), vec![url.clone()]))
            };
            let libpq = || (Origin::Default(key.flag.to_owned()), vec![String::new()]);
            found = found.or_else(usual).or_else(|| Some(libpq()));
        }
        let (origin, given) = found?;
        let text = given.last().map(String::as_str).unwrap_or_default();
        match ConnectionConfig::parse(text, &|name| variables.get(name).cloned()) {
            Ok(config) => Some(config.named(key.name())),
            Err(error) => {
                self.mistake(origin, error.to_string());
                None
            }
        }
    }

    /// Whether everything could be read until now.
    pub(crate) fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Whether it was given anywhere.
    pub(crate) fn is_given(&self, key: &Key) -> bool {
        self.sources.find(key).is_some()
    }

    /// Something is wrong with what `key` says, though its text can be read.
    pub(crate) fn wrong(&mut self, key: &Key, message: impl Into<String>) {
        self.mistake(self.origin(key), message.into());
    }

    /// The daemon does not start with what `key` says, though everything that is set can be read and looked at.
    pub(crate) fn refuse(&mut self, key: &Key, message: impl Into<String>) {
        let origin = self.origin(key);
        self.refusals.push(Mistake::new(origin, message.into()));
    }

    /// The daemon does not start with the file that `key` names, until `fix` is done.
    pub(super) fn unusable(&mut self, key: &Key, message: impl Into<String>, fix: Option<&'static str>) {
        let origin = self.origin(key);
        self.refusals.push(Mistake { fix, ..Mistake::new(origin, message.into()) });
    }

    /// The file that was named, if it was; a mistake in the name is somebody else's to tell.
    pub(super) fn file(&self, key: &Key) -> Option<PathBuf> {
        let (_, given) = self.sources.find(key)?;
        value::path(given.last()?.trim()).ok()
    }

    fn origin(&self, key: &Key) -> Origin {
        self.given(key).map_or_else(|| Origin::Default(key.flag.to_owned()), |(origin, _)| origin)
    }

    /// Two settings exclude each other.
    pub(crate) fn contradiction(&mut self, one: &Key, other: &Key) {
        let place = |key: &Key| {
            self.sources.find(key).map_or_else(|| Origin::Default(key.flag.to_owned()), |(origin, _)| origin)
        };
        let (one, other) = (place(one), place(other));
        self.mistake(one, format!("cannot be used together with {other}"));
    }
}
