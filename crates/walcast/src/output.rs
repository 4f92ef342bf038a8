//! What a command prints, and how it ends.

mod change_lines;
mod wrap;

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

pub(crate) use change_lines::{ChangeLine, ChangeLines, Clock};
pub(crate) use wrap::{WIDTH, wrap, wrap_message, wrap_statement};

/// For what stands aside: times, hints.
pub(crate) const DIM: Style = Style::new().dimmed();
/// For what names the thing.
pub(crate) const BOLD: Style = Style::new().bold();
/// For what is as it should be.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
/// For what should be looked at.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
/// For what has to be mended, or is gone.
pub(crate) const RED: Style = AnsiColor::Red.on_default();
/// For what can be copied: keys, statements.
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();

/// Settings or arguments were wrong.
pub(crate) const USAGE: u8 = 2;
/// The doctor found something.
pub(crate) const UNHEALTHY: u8 = 3;

/// In which form a command prints to standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Lines for people, coloured on a terminal.
    Human,
    /// A JSON object for each line.
    Json,
}

impl Form {
    /// As asked for; else by whether standard output is a terminal.
    pub(crate) fn choose(args: crate::cli::FormArgs) -> Self {
        if args.json || (!args.human && !io::stdout().is_terminal()) { Self::Json } else { Self::Human }
    }
}

/// The columns of the terminal that standard output is; `None` for a pipe or a file.
pub(crate) fn terminal_columns() -> Option<usize> {
    terminal_size::terminal_size_of(io::stdout()).map(|(terminal_size::Width(columns), _)| columns.into())
}

/// Prints one JSON line.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Says something on standard error, after the program's name: in lines that fit where it is a terminal, else as it is.
pub(crate) fn tell(style: Style, text: &str) {
    const NAME: &str = "walcast:";
    let text = match wrap::message_width() {
        Some(width) => wrap_message(text, NAME.len() + 1, width),
        None => text.to_owned(),
    };
    // Nobody to tell when standard error is gone.
    let _ = writeln!(anstream::stderr(), "{style}{NAME}{style:#} {text}");
}

/// A number of things: `1 partition`, `2 partitions`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Things that a message names; of more their number is said.
const NAMED_MAX: usize = 3;

/// `public.a, public.b, public.c and 3 more`.
pub(crate) fn listed(things: &[impl fmt::Display]) -> String {
    let named = things.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// Characters of a text of somebody else's that are shown.
const FOREIGN_CHARACTERS_MAX: usize = 300;

/// A text of somebody else's as one line for people: nothing in it moves the cursor, or looks like a line of ours.
pub(crate) fn foreign(text: &str) -> String {
    foreign_up_to(text, FOREIGN_CHARACTERS_MAX)
}

/// The same, of at most so many characters.
pub(crate) fn foreign_up_to(text: &str, characters_max: usize) -> String {
    // They turn the direction of what follows.
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain: String =
        text.chars().filter(|c| !turns(*c)).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= characters_max {
        return line;
    }
    line.chars().take(characters_max - 1).chain(['…']).collect()
}

/// How a command ended otherwise than well.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// What happened and what to do; empty when that was said already.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    /// A signal came before it was done: whoever goes on with what it should have done must know.
    pub(crate) fn interrupted() -> Self {
        Self::new("interrupted before it was done")
    }

    /// Ends with `code` and without a word.
    pub(crate) const fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// An error with its causes, as far as it does not name them itself.
    pub(crate) fn because(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self::new(message)
    }

    /// A database cannot be connected to: `which` of the two.
    pub(crate) fn away(which: &str, error: &walcast_postgres::Error) -> Self {
        Self::new(format!("{which}: {error}")).hint(error.hint())
    }

    /// The history cannot be read.
    pub(crate) fn history(error: &walcast_history::Error) -> Self {
        Self::because(error).hint(error.hint())
    }

    /// With what to do about it.
    pub(crate) fn hint(mut self, hint: Option<String>) -> Self {
        if let Some(hint) = hint {
            self.message = format!("{}\nhint: {hint}", self.message);
        }
        self
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // Whoever read our output has seen enough (`walcast tail | head`).
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(0)
        } else {
            Self::new(format!("output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, count};

    #[test]
    fn numbers_have_their_form() {
        assert_eq!([0, 1, 2].map(|number| count(number, "table")), ["0 tables", "1 table", "2 tables"]);
    }

    #[test]
    fn causes_are_named_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] Inner);
        #[derive(Debug, thiserror::Error)]
        #[error("inner")]
        struct Inner(#[source] std::fmt::Error);
        let failure = Failure::because(&Outer(Inner(std::fmt::Error))).hint(Some("do so".into()));
        let cause = std::fmt::Error;
        assert_eq!(failure.message, format!("outer: inner: {cause}\nhint: do so"));
    }
}
