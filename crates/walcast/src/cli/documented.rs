//! The operations guide names the flags that there are, and no others.

use clap::{Command, CommandFactory};

use super::Cli;
use crate::settings::key::{self, KEYS, Key, Scope};

const GUIDE: &str = include_str!("../../../../docs/operations.md");

fn flags<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`--{name}`")).collect::<Vec<_>>().join(", ")
}

/// The highest scope of settings that a command has flags for.
fn scope(command: &Command) -> Option<Scope> {
    let has = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
    let of = |key: &Key| has("config") && has(key.flag);
    KEYS.iter().filter(|key| of(key) && key.flag != key::POLICIES.flag).map(|key| key.scope).max()
}

/// The first column names the command, the second its flags; those of settings are in rows of their own.
#[test]
fn each_command_has_its_flags_in_the_guide() {
    let mut root = Cli::command();
    root.build();
    let mut rows = Vec::new();
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        let scope = scope(command);
        let is_setting = |name: &str| {
            scope.is_some_and(|scope| KEYS.iter().any(|key| key.flag == name && key.scope <= scope))
        };
        let longs = command.get_arguments().filter_map(|argument| argument.get_long());
        let own: Vec<&str> =
            longs.filter(|name| !["help", "config"].contains(name) && !is_setting(name)).collect();
        if own.is_empty() {
            continue;
        }
        rows.push(format!("| `{}` | {} |", command.get_name(), flags(own.into_iter())));
    }
    let of =
        |scopes: &'static [Scope]| KEYS.iter().filter(|key| scopes.contains(&key.scope)).map(|key| key.flag);
    let connecting = flags(["config"].into_iter().chain(of(&[Scope::Any, Scope::Connect])));
    for (scope, commands, flags) in [
        (Scope::Connect, "`setup`, `teardown`, `serve`, `replay`, `status`, `doctor`, `explain`", connecting),
        (Scope::Setup, "of these `setup`, `teardown`, `serve`, `doctor`", flags(of(&[Scope::Setup]))),
        (Scope::Serve, "of these `serve`, `doctor`", "all others".to_owned()),
    ] {
        rows.push(format!("| {commands} | {flags} |"));
        let having = root.get_subcommands().filter(|command| self::scope(command) >= Some(scope));
        let mut having: Vec<String> = having.map(|command| format!("`{}`", command.get_name())).collect();
        let mut named: Vec<&str> = commands.trim_start_matches("of these ").split(", ").collect();
        having.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, having);
    }
    rows.retain(|row| !GUIDE.contains(row));
    assert!(rows.is_empty(), "docs/operations.md lacks:\n{}", rows.join("\n"));
}

#[test]
fn each_setting_is_in_the_guide_and_each_flag_that_the_guide_shows_is_one() {
    for key in KEYS {
        assert!(GUIDE.contains(&format!("`{}`", key.name())), "docs/operations.md lacks {}", key.name());
    }
    let mut root = Cli::command();
    root.build();
    for (line, shown) in
        GUIDE.lines().flat_map(|line| line.split("walcast ").skip(1).map(move |shown| (line, shown)))
    {
        let command = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let Some(command) = root.find_subcommand(command) else { continue };
        let known: Vec<&str> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let words = shown.split(['|', '#', '`', '(', ')', ';']).next().unwrap_or_default().split_whitespace();
        for flag in words.filter_map(|word| word.strip_prefix("--")) {
            assert!(known.contains(&flag), "walcast {} has no --{flag}: {line}", command.get_name());
        }
    }
}
