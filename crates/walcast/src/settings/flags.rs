//! The flags of the settings, made from their list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::key::{CONFIG_FILE, CONFIG_VARIABLE, KEYS, Key, Kind, Scope};
use super::source::{Given, Sources, split};

/// Which of the scopes a command has flags for; a const parameter cannot be an enum.
pub(crate) const CONNECT: u8 = Scope::Connect as u8;
/// See [`CONNECT`].
pub(crate) const SETUP: u8 = Scope::Setup as u8;
/// See [`CONNECT`].
pub(crate) const SERVE: u8 = Scope::Serve as u8;
/// All of them, for somebody who only looks: the help shows those of the daemon alone that name a file, which is looked at.
pub(crate) const EXAMINE: u8 = SERVE + 1;

/// The flags of all settings up to a scope, with `--config`.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsFlags<const SCOPE: u8> {
    given: BTreeMap<&'static str, Given>,
    config: Option<PathBuf>,
}

impl<const SCOPE: u8> SettingsFlags<SCOPE> {
    /// These flags with the environment and the file of this process.
    pub(crate) fn into_sources(self) -> Sources {
        Sources::of_process(self.given, self.config)
    }

    fn keys() -> impl Iterator<Item = &'static Key> {
        KEYS.iter().copied().filter(|key| key.scope as u8 <= SCOPE)
    }
}

fn help(key: &Key) -> String {
    let mut help = format!("{} [env: {}]", key.help, key.variable());
    if !key.default.is_empty() && key.kind != Kind::Switch {
        help.push_str(&format!(" [default: {}]", key.default));
    }
    help
}

fn argument(key: &'static Key) -> Arg {
    let argument = Arg::new(key.flag).long(key.flag).help(help(key)).help_heading(key.heading);
    match key.kind {
        Kind::Switch => argument.action(ArgAction::SetTrue),
        Kind::List => argument.action(ArgAction::Append).value_name(key.value),
        Kind::Value | Kind::Secret => argument.action(ArgAction::Set).value_name(key.value),
    }
}

impl<const SCOPE: u8> Args for SettingsFlags<SCOPE> {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("Settings file [env: {CONFIG_VARIABLE}] [default: {CONFIG_FILE}, if it is there]"));
        let is_hidden = |key: &Key| SCOPE == EXAMINE && key.scope == Scope::Serve && key.value != "FILE";
        command.arg(config).args(Self::keys().map(|key| argument(key).hide(is_hidden(key))))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const SCOPE: u8> FromArgMatches for SettingsFlags<SCOPE> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        let on_command_line = |key: &&Key| matches.value_source(key.flag) == Some(ValueSource::CommandLine);
        for key in Self::keys().filter(on_command_line) {
            let given = match key.kind {
                Kind::Switch => vec![matches.get_flag(key.flag).to_string()],
                Kind::List => matches
                    .get_many::<String>(key.flag)
                    .into_iter()
                    .flatten()
                    .flat_map(|text| split(text))
                    .collect(),
                Kind::Value | Kind::Secret => {
                    matches.get_one::<String>(key.flag).into_iter().cloned().collect()
                }
            };
            self.given.insert(key.flag, given);
        }
        Ok(())
    }
}
