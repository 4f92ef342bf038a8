//! The command line: what can be asked, and how the help says it.

use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use walcast_client::StartAt;

use crate::commands::replay::Place;
use crate::demo::DemoArgs;
use crate::settings::flags::{CONNECT, EXAMINE, SERVE, SETUP, SettingsFlags};

/// The exit codes, as every `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, or ended by Ctrl-C or SIGTERM in good order
  1  failed; the message says what to do
  2  wrong usage or wrong settings; all mistakes are listed
  3  doctor found something that has to be mended";

/// Turns the WAL of a Postgres into an ordered change feed: durable in change_history, streamed over WebSocket.
#[derive(Debug, Parser)]
#[command(
    name = "walcast",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = concat_examples("\
  walcast demo                                       see it work, with a throwaway Postgres
  walcast doctor --database-url postgresql://db/app  what your Postgres still needs
  walcast serve --database-url postgresql://db/app   run it
  walcast tail                                       watch what happens")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Examples, then the exit codes.
fn concat_examples(examples: &str) -> String {
    // A literal that goes on in the next line loses the first one's indentation.
    format!("Examples:\n  {examples}\n\n{EXIT_CODES}")
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show walcast at work: a throwaway Postgres with a small shop, the daemon, and a client
    #[command(after_help = concat_examples("\
  walcast demo
  walcast demo --rate 50
  walcast demo --install    install a Postgres first when there is none"))]
    Demo(DemoArgs),
    /// Create schema, publication and slot, and say what was done; safe to repeat
    #[command(after_help = concat_examples("\
  walcast setup --database-url postgresql://walcast@db/app
  walcast setup --print               the SQL for an administrator to run
  walcast setup --start-over          shows what would be dropped
  walcast setup --start-over --yes    drops it, with the whole history, and begins another feed"))]
    Setup(SetupArgs),
    /// Drop what setup created: the slot, the publications, and change_history with all it holds
    #[command(after_help = concat_examples("\
  walcast teardown          shows what would be dropped
  walcast teardown --yes    drops it"))]
    Teardown(TeardownArgs),
    /// Run the daemon: follow the slot, write change_history, serve clients; prepares what is missing
    #[command(after_help = concat_examples("\
  walcast serve --database-url postgresql://walcast@db/app
  walcast serve --config /etc/walcast.toml --listen 0.0.0.0:4700
  PGHOST=db PGUSER=walcast PGDATABASE=app walcast serve --log-format json

Durations are written 250ms, 10s, 5min, 2h; sizes 64KiB, 64MiB, 4GiB.
A flag wins over its variable, the variable over the file.
In the file, keys are written with underscores: feed_memory = \"64MiB\"."))]
    Serve(ServeArgs),
    /// Watch changes as they happen, through a running daemon
    #[command(after_help = concat_examples("\
  walcast tail
  walcast tail orders 'audit.*'
  walcast tail orders --columns id,total --from start
  walcast tail --from 16/B374D848 --json | jq .changes
  walcast tail orders --client-id reports --json >> orders.jsonl
  walcast tail --channel room:1"))]
    Tail(TailArgs),
    /// Print past changes from change_history, without the daemon
    #[command(after_help = concat_examples("\
  walcast replay
  walcast replay --table orders --from 2026-11-21T14:00:00Z --to 2026-11-21T15:00:00Z
  walcast replay --from 16/B374D848 --limit 10
  walcast replay --follow --json"))]
    Replay(ReplayArgs),
    /// Say where the feed stands: source, slot, history, daemon
    #[command(after_help = concat_examples("\
  walcast status
  walcast status --json | jq .behind_bytes"))]
    Status(StatusArgs),
    /// Look for what would keep walcast from working, each with the statement that mends it
    #[command(after_help = concat_examples("\
  walcast doctor --database-url postgresql://walcast@db/app
  walcast doctor --policies policies.toml --jwt-secret-file walcast.secret
  walcast doctor --json | jq 'select(.severity != \"ok\")'

It takes every flag of walcast serve, and says what serve would not start with."))]
    Doctor(DoctorArgs),
    /// Say why a client is sent a row or a change, or why not, and what it may do in a channel
    #[command(after_help = concat_examples("\
  walcast explain --as claims.json --table public.orders --key '{\"id\": 1}'
  walcast explain --as claims.json --role customer --table orders --lsn 16/B374D848
  walcast explain --table orders --lsn 16/B374D848:3 --where 'total > 100' --columns id,total
  walcast explain --as claims.json --table orders --key '{\"id\": 1}' --json | jq '.delivered'
  walcast explain --as claims.json --channel room:7:chat

It asks source and history (neither for a channel), not the daemon, and ends with 0 in any case.
With --json, one line is about the table and one about each row or change; .delivered says it.
Of a channel it is one line, with .join, .publish and .presence."))]
    Explain(ExplainArgs),
    /// Print the completion script of a shell
    #[command(after_help = concat_examples("\
  walcast completions bash > /etc/bash_completion.d/walcast
  walcast completions zsh > ~/.zfunc/_walcast
  walcast completions fish > ~/.config/fish/completions/walcast.fish"))]
    Completions(CompletionsArgs),
}

/// In which form a command prints.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FormArgs {
    /// Print JSON lines [default: when standard output is not a terminal]
    #[arg(long, conflicts_with = "human")]
    pub(crate) json: bool,
    /// Print for people, also into a pipe or a file
    #[arg(long)]
    pub(crate) human: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Print the SQL for an administrator to run, and change nothing
    #[arg(long, conflicts_with = "start_over")]
    pub(crate) print: bool,
    /// Drop the slot and the whole history, and begin another feed: every client syncs again. Only with --yes; without, it
    /// shows what would be dropped. Stop the daemon first
    #[arg(long)]
    pub(crate) start_over: bool,
    /// With --start-over: drop it
    #[arg(long, requires = "start_over")]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<SETUP>,
}

#[derive(Debug, Args)]
pub(crate) struct TeardownArgs {
    /// Drop it; without this flag, only show what would be dropped
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<SETUP>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<SERVE>,
}

/// Where a daemon listens that was told nothing else.
pub(crate) const TAIL_URL: &str = "ws://127.0.0.1:4700/v1/stream";

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Tables: name (in schema public), schema.name, schema.* or * [default: *]
    #[arg(value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
    /// The daemon
    #[arg(
        long,
        env = "WALCAST_URL",
        hide_env_values = true,
        default_value = TAIL_URL
    )]
    pub(crate) url: String,
    /// Wait for a daemon that is not there yet; without it, a first connection that is refused is an error
    #[arg(long)]
    pub(crate) wait: bool,
    /// Where to start: latest, start (the rows that are there, then changes), oldest (of history), a cursor, or acked (where
    /// this client stopped, the default with --client-id)
    #[arg(
        long,
        value_name = "CURSOR",
        default_value = "latest",
        default_value_if("client_id", ArgPredicate::IsPresent, "acked"),
        requires_if("acked", "client_id"),
        value_parser = parse_from
    )]
    pub(crate) from: TailFrom,
    /// The name under which the daemon keeps what was printed; start with it again to go on there
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,
    /// The feed that the cursor is of; another one is refused
    #[arg(long, value_name = "ID")]
    pub(crate) feed: Option<walcast_model::FeedId>,
    /// Only these columns, besides the key's
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    /// Instead of tables: what is said in this channel and who is there; may be repeated
    #[arg(
        long = "channel",
        value_name = "NAME",
        conflicts_with_all = ["tables", "from", "client_id", "feed", "columns"]
    )]
    pub(crate) channels: Vec<String>,
    /// End after this many transactions, or messages of channels
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// The token to show to the daemon
    #[arg(long, env = "WALCAST_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// A file with the token, read again before it expires
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) form: FormArgs,
}

/// Where `tail` starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TailFrom {
    /// Where a subscription can start by itself.
    Start(StartAt),
    /// The oldest cursor that the daemon can serve.
    Oldest,
}

fn parse_from(text: &str) -> Result<TailFrom, String> {
    match text {
        "start" => Ok(TailFrom::Start(StartAt::Snapshot)),
        "oldest" => Ok(TailFrom::Oldest),
        other => match other.parse() {
            Err(_) => Err("expected latest, start, oldest, acked or a cursor such as 16/B374D848".to_owned()),
            Ok(start) => Ok(TailFrom::Start(start)),
        },
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// First change: a cursor, or a time (RFC 3339) [default: the oldest in history]
    #[arg(long, value_name = "CURSOR|TIME")]
    pub(crate) from: Option<Place>,
    /// End before this cursor or time [default: what is there now]
    #[arg(long, value_name = "CURSOR|TIME")]
    pub(crate) to: Option<Place>,
    /// Only these tables, as in tail; may be given several times
    #[arg(long = "table", value_name = "TABLE,…", value_delimiter = ',')]
    pub(crate) tables: Vec<String>,
    /// End after this many transactions
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<u64>,
    /// Wait for more at the end; looks every half second
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<CONNECT>,
}

/// `host:port`, as it stands or in a URL.
fn host_and_port(text: &str) -> Result<String, String> {
    let place = text.split_once("://").map_or(text, |(_, rest)| rest.split('/').next().unwrap_or(rest));
    let is_one =
        place.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_one { Ok(text.to_owned()) } else { Err("write host:port, such as 127.0.0.1:4700".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Where the daemon listens, with TLS or without [default: admin_listen, else listen]
    #[arg(long, value_name = "ADDRESS", value_parser = host_and_port)]
    pub(crate) daemon: Option<String>,
    /// List the clients that have acknowledged something, those that were seen last first
    #[arg(long)]
    pub(crate) clients: bool,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<CONNECT>,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<EXAMINE>,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The table: name (in schema public) or schema.name
    #[arg(long, required_unless_present = "channel")]
    pub(crate) table: Option<String>,
    /// Instead of a table: what may be done in this channel
    #[arg(long, value_name = "NAME", conflicts_with_all = ["table", "key", "lsn", "filter", "columns"])]
    pub(crate) channel: Option<String>,
    /// The claims of the token, a JSON object; - for standard input
    #[arg(long = "as", value_name = "FILE")]
    pub(crate) claims: Option<PathBuf>,
    /// The role [default: the claim "role"]
    #[arg(long)]
    pub(crate) role: Option<String>,
    /// The policies [default: the setting policies]
    #[arg(long, value_name = "FILE")]
    pub(crate) policies: Option<PathBuf>,
    /// The row with this key: as it is now, and its newest change in history
    #[arg(long, value_name = "JSON", conflicts_with = "lsn", required_unless_present_any = ["lsn", "channel"])]
    pub(crate) key: Option<String>,
    /// The changes of the transaction with this lsn, or with :seq one of them
    #[arg(long, value_name = "LSN[:SEQ]")]
    pub(crate) lsn: Option<String>,
    /// The subscription's where
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// The subscription's columns, besides the key's
    #[arg(long, value_name = "COLUMN,…", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,
    #[command(flatten)]
    pub(crate) form: FormArgs,
    #[command(flatten)]
    pub(crate) settings: SettingsFlags<CONNECT>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod documented;

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_asked_is_understood() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        for line in [
            "walcast serve --database-url postgresql://h/d --tables a.b,c.d --tables e.f --all-tables",
            "walcast tail orders audit.* --columns id,total --from start --json",
            "walcast tail --from 16/B374D848:3 --feed f1",
            "walcast replay --from 2026-11-21T14:00:00Z --to 16/B374D848 --table a,b.* --follow",
            "walcast setup --print --slot s",
            "walcast explain --as - --role r --table orders --lsn 16/B374D848:3 --where a=1 --columns a,b --json",
            "walcast explain --table a.b --key {} --policies p.toml",
            "walcast explain --channel room:1 --as c.json --policies p.toml --json",
            "walcast completions fish",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{error}"));
        }
        for line in [
            "walcast",
            "walcast tail --from acked",
            "walcast tail --json --human",
            "walcast replay --from yesterday",
            "walcast status --listen 127.0.0.1:1",
            "walcast completions cmd",
            "walcast explain --table t",
            "walcast explain --table t --key {} --lsn 0/1",
            "walcast explain --key {}",
            "walcast explain --channel a --table t",
            "walcast explain --channel a --key {}",
            "walcast explain --as c.json",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn every_command_has_examples_and_exit_codes_in_its_help() {
        let mut root = Cli::command();
        root.build();
        for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:\n  walcast "), "{}", command.get_name());
            assert!(help.contains("Exit codes:"), "{}", command.get_name());
        }
    }

    /// The text that people see; `cargo insta review` after a change on purpose.
    #[test]
    fn help_texts() {
        let mut root = Cli::command().term_width(100);
        root.build();
        insta::assert_snapshot!("help", root.render_long_help().to_string());
        for command in root.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let name = format!("help_{}", command.get_name());
            let help = command.clone().term_width(100).render_long_help().to_string();
            insta::assert_snapshot!(name, help);
        }
    }
}
