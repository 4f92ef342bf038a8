//! What the demo shows of the stream.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::Style;
use walcast_client::{Event, Mode, TransactionMessage};
use walcast_model::Timestamp;

use crate::output::{BOLD, CYAN, DIM, GREEN, RED, YELLOW, count};

use super::local_copy::{Effect, LocalCopy, Row};

/// Changes of one transaction that are shown; of more, their number.
const CHANGES_MAX: usize = 8;
/// Characters of one value.
const VALUE_CHARACTERS_MAX: usize = 32;
/// Characters of a line where no terminal says how wide it is.
const LINE_CHARACTERS_MAX: usize = 110;

/// Writes events to a terminal; colours are taken out where it has none.
pub(super) struct Screen<W> {
    out: W,
    /// How wide the terminal is now; `None` where there is none.
    columns: fn() -> Option<usize>,
    copy: LocalCopy,
    /// There was a connection: from then on losing it is worth a line.
    connected: bool,
    /// `caught_up` was shown once.
    caught_up: bool,
}

impl<W: Write> Screen<W> {
    pub(super) fn new(out: W, columns: fn() -> Option<usize>) -> Self {
        Self { out, columns, copy: LocalCopy::default(), connected: false, caught_up: false }
    }

    /// A line of the demo's own: what it is, and what it says.
    pub(super) fn say(&mut self, what: &str, text: &str) -> io::Result<()> {
        writeln!(self.out, "{BOLD}{what:>10}{BOLD:#}  {text}")?;
        self.out.flush()
    }

    /// A line to copy.
    pub(super) fn offer(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:>10}  {CYAN}{text}{CYAN:#}", "")?;
        self.out.flush()
    }

    /// Shows an event, when there is something to see in it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) fn show(&mut self, event: &Event, now: Timestamp) -> io::Result<()> {
        match event {
            Event::Relation(relation) => self.copy.define(relation),
            Event::Subscribed(subscribed) if subscribed.mode == Mode::Snapshot => self.copy.clear(),
            Event::Snapshot(snapshot) => {
                let table = snapshot.table.to_string();
                for row in &snapshot.rows {
                    self.copy.insert(&table, Row::parse(row));
                }
            }
            Event::SnapshotComplete(complete) => {
                let rows = self.copy.rows();
                self.say(
                    "client",
                    &format!(
                        "has {} by its initial sync, at cursor {}",
                        count(rows as u64, "row"),
                        complete.cursor
                    ),
                )?;
            }
            Event::CaughtUp(_) if !self.caught_up => {
                self.caught_up = true;
                self.say("client", "is caught up; from here on it is live\n")?;
            }
            Event::Transaction(transaction) => self.transaction(transaction, now)?,
            Event::Waiting(_) => self.say("client", "waits for the daemon's initial poll")?,
            Event::Connected(_) => self.connected = true,
            Event::Reconnecting { delay, reason, .. } if self.connected => {
                self.say("client", &format!("{YELLOW}reconnects in {delay:.1?}{YELLOW:#}: {reason}"))?;
            }
            Event::Status(status) => {
                if let Some(message) = &status.message {
                    self.say("daemon", &format!("{YELLOW}{message}{YELLOW:#}"))?;
                }
            }
            Event::Failed { error, .. } | Event::Retrying { error, .. } | Event::Error(error) => {
                let hint = error.hint.as_deref().unwrap_or_default();
                self.say("client", &format!("{RED}{}{RED:#} {hint}", error.message))?;
            }
            _ => {}
        }
        self.out.flush()
    }

    fn transaction(&mut self, transaction: &TransactionMessage, now: Timestamp) -> io::Result<()> {
        let late = now.seconds_since(transaction.committed_at).max(0.0) * 1000.0;
        let number = transaction.changes.len();
        let more = if transaction.more { ", more follows" } else { "" };
        let changes = count(number as u64, "change");
        let columns_max = (self.columns)().unwrap_or(LINE_CHARACTERS_MAX);
        writeln!(
            self.out,
            "{BOLD}{}{BOLD:#}  {DIM}transaction {}, {changes}{more}, {late:.0} ms after its commit{DIM:#}",
            transaction.lsn,
            transaction.xid.get(),
        )?;
        for (index, change) in transaction.changes.iter().enumerate() {
            let effect = self.copy.apply(change);
            if index < CHANGES_MAX {
                let (sign, style, columns) = described(&effect);
                let table = &change.table.table;
                let head = format!("{sign} {table:<12}");
                // Two spaces before it, and one behind it.
                let columns = cut(&columns, columns_max.saturating_sub(head.chars().count() + 3));
                writeln!(self.out, "  {style}{head}{style:#} {columns}")?;
            }
        }
        if number > CHANGES_MAX {
            writeln!(self.out, "  {DIM}… and {} more{DIM:#}", number - CHANGES_MAX)?;
        }
        Ok(())
    }
}

fn described(effect: &Effect) -> (char, Style, String) {
    match effect {
        Effect::Inserted(row) => ('+', GREEN, listed(row)),
        Effect::Updated { key, columns } => {
            let mut text = listed(key);
            for (name, before, after) in columns {
                let before = before.as_ref().map(|value| format!("{} → ", short(value))).unwrap_or_default();
                let _infallible = write!(text, "  {name} {before}{}", short(after));
            }
            ('~', YELLOW, text)
        }
        Effect::Deleted(row) => ('-', RED, listed(row)),
        Effect::Truncated => ('-', RED, "all rows".to_owned()),
    }
}

fn listed(row: &Row) -> String {
    let columns: Vec<String> = row.0.iter().map(|(name, value)| format!("{name}={}", short(value))).collect();
    columns.join(" ")
}

/// A JSON text for the eye: without quotes and line ends, and not too long.
fn short(value: &str) -> String {
    let bare = serde_json::from_str::<String>(value).unwrap_or_else(|_| value.to_owned());
    // A value must not move the cursor or change colours.
    let tame: String =
        bare.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    cut(&tame, VALUE_CHARACTERS_MAX)
}

fn cut(text: &str, characters_max: usize) -> String {
    if text.chars().count() <= characters_max {
        return text.to_owned();
    }
    text.chars().take(characters_max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(events: &[Event]) -> String {
        let mut screen = Screen::new(anstream::StripStream::new(Vec::new()), || Some(80));
        // Not yet listening: nothing to worry about, and nothing to show.
        let delay = std::time::Duration::from_secs(1);
        let first = Event::Reconnecting {
            delay,
            attempt: 1,
            reason: "refused".to_owned(),
            reached: false,
            answered: false,
        };
        let now: Timestamp = "2026-11-21T03:00:00.004Z".parse().unwrap();
        for event in std::iter::once(&first).chain(events) {
            screen.show(event, now).unwrap();
        }
        String::from_utf8(screen.out.into_inner()).unwrap()
    }

    fn events() -> Vec<Event> {
        let relation = r#"{"id": "demo", "table": "public.products", "replica_identity": "default", "columns": [
            {"name": "id", "type": "integer", "key": true, "nullable": false},
            {"name": "name", "type": "text", "key": false, "nullable": false},
            {"name": "stock", "type": "integer", "key": false, "nullable": false}]}"#;
        let rows = r#"{"id": "demo", "table": "public.products", "progress": {"done": 1, "estimate": 1},
            "rows": [{"id": 1, "name": "Mug", "stock": 41}]}"#;
        let complete = r#"{"id": "demo", "cursor": "0/10"}"#;
        let transaction = r#"{"id": "demo", "cursor": "0/30", "lsn": "0/20", "xid": 742,
            "committed_at": "2026-11-21T03:00:00Z", "changes": [
            {"op": "update", "table": "public.products", "key": {"id": 1}, "row": {"id": 1, "name": "Mug", "stock": 39}},
            {"op": "insert", "table": "public.products", "row": {"id": 2, "name": "Pan\n\u001b[31m", "stock": 1}},
            {"op": "delete", "table": "public.products", "key": {"id": 2}}]}"#;
        vec![
            Event::Relation(serde_json::from_str(relation).unwrap()),
            Event::Snapshot(serde_json::from_str(rows).unwrap()),
            Event::SnapshotComplete(serde_json::from_str(complete).unwrap()),
            Event::Transaction(serde_json::from_str(transaction).unwrap()),
        ]
    }

    #[test]
    fn a_transaction_is_shown_by_what_it_did() {
        let expected = "    client  has 1 row by its initial sync, at cursor 0/10
0/20  transaction 742, 3 changes, 4 ms after its commit
  ~ products     id=1  stock 41 → 39
  + products     id=2 name=Pan  [31m stock=1
  - products     id=2 name=Pan  [31m stock=1
";
        assert_eq!(shown(&events()), expected);
    }

    #[test]
    fn long_transactions_and_values_are_cut() {
        let Some(Event::Transaction(mut transaction)) = events().pop() else {
            panic!("the last is a transaction")
        };
        let mut change = transaction.changes.remove(1);
        let row = format!(r#"{{"id": 3, "name": "{}"}}"#, "x".repeat(500));
        change.row = Some(serde_json::value::RawValue::from_string(row).unwrap());
        transaction.changes = vec![change; 20];
        let text = shown(&[Event::Transaction(transaction)]);
        assert_eq!(text.lines().count(), 1 + CHANGES_MAX + 1, "{text}");
        assert!(text.ends_with("… and 12 more\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
