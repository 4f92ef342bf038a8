//! Where settings come from: flags, variables, a file. Maps in tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{CONFIG_FILE, CONFIG_VARIABLE, KEYS, Key, Kind};
use super::mistake::{Mistake, Origin, suggestion};

/// What was given for one key: one text, or several for a list.
pub(crate) type Given = Vec<String>;

/// All settings as texts, by where they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// By [`Key::flag`].
    flags: BTreeMap<&'static str, Given>,
    /// The process's environment, all of it.
    pub(super) variables: BTreeMap<String, String>,
    /// By the key's name, with the line.
    file: BTreeMap<String, (usize, Given)>,
    path: PathBuf,
    /// What was wrong with the file as such.
    mistakes: Vec<Mistake>,
}

impl Sources {
    /// The sources of this process: `flags`, its environment, and the file that `config`, `WALCAST_CONFIG` or its working
    /// directory names.
    pub(crate) fn of_process(flags: BTreeMap<&'static str, Given>, config: Option<PathBuf>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let mut sources = Self::of(flags, variables.collect());
        let named = config.or_else(|| sources.variables.get(CONFIG_VARIABLE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(CONFIG_FILE));
        match std::fs::read_to_string(&path) {
            Ok(text) => sources.read_file(&path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => {
                let origin = Origin::File { path, line: None, key: String::new() };
                sources.mistakes.push(Mistake::new(origin, format!("cannot be read: {error}")));
            }
        }
        sources
    }

    /// Sources without a file.
    pub(crate) fn of(flags: BTreeMap<&'static str, Given>, variables: BTreeMap<String, String>) -> Self {
        Self { flags, variables, ..Self::default() }
    }

    /// Adds the file's keys. What is wrong with it is kept for [`Sources::mistakes`].
    pub(crate) fn read_file(&mut self, path: &Path, text: &str) {
        path.clone_into(&mut self.path);
        let line = |offset: usize| text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut broken = Vec::new();
        for error in errors {
            let at = error.span().map(|span| line(span.start));
            broken.extend(at);
            self.mistake(at, "", format!("not TOML: {}", error.message()));
        }
        for (key, value) in table.get_ref() {
            let (name, at) = (key.get_ref().as_ref(), line(key.span().start));
            if broken.contains(&at) {
                continue;
            }
            let Some(key) = KEYS.iter().find(|key| key.name() == name) else {
                let names: Vec<String> = KEYS.iter().map(|key| key.name()).collect();
                let hint = suggestion(name, names.iter().map(String::as_str));
                let hint = hint.map(|hint| format!("; did you mean {hint}?")).unwrap_or_default();
                self.mistake(Some(at), name, format!("there is no such setting{hint}"));
                continue;
            };
            match texts(key, value) {
                Ok(given) => {
                    self.file.insert(name.to_owned(), (at, given));
                }
                Err(message) => self.mistake(Some(at), name, message),
            }
        }
    }

    fn mistake(&mut self, line: Option<usize>, key: &str, message: String) {
        let origin = Origin::File { path: self.path.clone(), line, key: key.to_owned() };
        self.mistakes.push(Mistake::new(origin, message));
    }

    /// What is wrong with the sources themselves: the file's form and unknown keys, variables that are probably misspelt.
    pub(crate) fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.clone();
        let known: Vec<String> = KEYS
            .iter()
            .map(|key| key.variable())
            .chain([CONFIG_VARIABLE, "WALCAST_URL", "WALCAST_TOKEN"].map(str::to_owned))
            .collect();
        for name in self.variables.keys().filter(|name| name.starts_with("WALCAST_") && !known.contains(name))
        {
            // Others may use the prefix; a name that is nearly ours is a slip.
            let own = |known: &str| known.trim_start_matches("WALCAST_").to_owned();
            let words: Vec<String> = known.iter().map(|known| own(known)).collect();
            if let Some(meant) = suggestion(&own(name), words.iter().map(String::as_str)) {
                let message = format!("there is no such setting; did you mean WALCAST_{meant}?");
                mistakes.push(Mistake::new(Origin::Variable(name.clone()), message));
            }
        }
        mistakes
    }

    /// What was given for `key` at the highest place, and where.
    pub(crate) fn find(&self, key: &Key) -> Option<(Origin, Given)> {
        if let Some(given) = self.flags.get(key.flag) {
            return Some((Origin::Flag(key.flag.to_owned()), given.clone()));
        }
        let variable = key.variable();
        if let Some(text) = self.variables.get(&variable) {
            let given = if key.kind == Kind::List { split(text) } else { vec![text.clone()] };
            return Some((Origin::Variable(variable), given));
        }
        let name = key.name();
        let (line, given) = self.file.get(&name)?;
        Some((Origin::File { path: self.path.clone(), line: Some(*line), key: name }, given.clone()))
    }
}

/// The elements of a list in one text.
pub(crate) fn split(text: &str) -> Given {
    text.split(',').map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
}

/// A value of the file as the texts that a flag would have.
fn texts(key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Given, String> {
    match (value.get_ref(), key.kind) {
        (DeValue::Array(elements), Kind::List) => {
            let text = |element: &Spanned<DeValue<'_>>| {
                element
                    .get_ref()
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| "expected an array of strings".to_owned())
            };
            elements.iter().map(text).collect()
        }
        (DeValue::String(text), Kind::List) => Ok(split(text)),
        (DeValue::Boolean(on), Kind::Switch) => Ok(vec![on.to_string()]),
        (_, Kind::Switch) => Err("expected true or false".to_owned()),
        (DeValue::String(text), _) => Ok(vec![text.clone().into_owned()]),
        (DeValue::Integer(number), Kind::Value) => Ok(vec![number.to_string()]),
        (other, _) => Err(format!("expected a string, found {}", other.type_str())),
    }
}
