//! The command that goes on where `tail` stopped, for a shell.

use walcast_model::{Cursor, FeedId};

use super::words::shown_place;
use crate::cli::{TAIL_URL, TailArgs};

/// What the command repeats of the one that was given: all but `--limit`, which was reached, and secrets.
#[derive(Default, Debug)]
pub(super) struct Again {
    /// Before and after the place.
    tables: String,
    flags: String,
    /// A token was given in words, which are not shown.
    needs_token: bool,
}

impl Again {
    pub(super) fn of(args: &TailArgs) -> Self {
        let tables = args.tables.iter().map(|table| format!(" {}", quoted(table))).collect();
        let url = shown_place(&args.url);
        let columns = (!args.columns.is_empty()).then(|| args.columns.join(","));
        let token_file = args.token_file.as_ref().map(|path| path.display().to_string());
        let valued = [
            ("--url", Some(url.clone()).filter(|url| url != TAIL_URL)),
            ("--token-file", token_file),
            ("--columns", columns),
            ("--client-id", args.client_id.clone()),
        ];
        let valued = valued.into_iter().filter_map(|(flag, value)| Some((flag, value?)));
        let mut flags: String = valued.map(|(flag, value)| format!(" {flag} {}", quoted(&value))).collect();
        for (flag, is_given) in [("--wait", args.wait), ("--human", args.form.human)] {
            if is_given {
                flags.extend([" ", flag]);
            }
        }
        Self { tables, flags, needs_token: args.token.is_some() || url != args.url }
    }

    /// How people are told to go on from there.
    pub(super) fn from(&self, cursor: Cursor, feed: &FeedId) -> String {
        let with = if self.needs_token { ", with the same token" } else { "" };
        let (tables, flags) = (&self.tables, &self.flags);
        let feed = quoted(&feed.to_string());
        format!("to go on from here{with}: walcast tail{tables} --from {cursor} --feed {feed}{flags}")
    }
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:@,+=-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Again;
    use crate::cli::{Cli, Command};

    fn told(arguments: &[&str]) -> String {
        let cli = Cli::try_parse_from(["walcast", "tail"].iter().chain(arguments)).unwrap();
        let Command::Tail(args) = cli.command else { panic!("no tail") };
        Again::of(&args).from("0/20".parse().unwrap(), &"f_1".parse().unwrap())
    }

    #[test]
    fn the_command_is_whole_and_a_shell_takes_it_as_it_was_given() {
        assert_eq!(told(&[]), "to go on from here: walcast tail --from 0/20 --feed f_1");
        let arguments = [
            "app.*",
            "it's",
            "--url",
            "ws://h:1",
            "--token-file",
            "my token",
            "--columns",
            "a,b",
            "--client-id",
            "c",
            "--from",
            "0/10",
            "--limit",
            "3",
            "--wait",
            "--human",
        ];
        assert_eq!(
            told(&arguments),
            r"to go on from here: walcast tail 'app.*' 'it'\''s' --from 0/20 --feed f_1 --url ws://h:1 --token-file 'my token' --columns a,b --client-id c --wait --human"
        );
    }

    #[test]
    fn a_token_is_never_shown_and_said_to_be_needed() {
        for arguments in [
            ["--url", "ws://h:1/v1/stream", "--token", "secret"].as_slice(),
            &["--url", "ws://h:1/v1/stream?token=secret"],
            &["--url", "ws://ada:secret@h:1/v1/stream"],
        ] {
            let expected = "to go on from here, with the same token: walcast tail --from 0/20 --feed f_1 --url ws://h:1/v1/stream";
            assert_eq!(told(arguments), expected);
        }
    }
}
