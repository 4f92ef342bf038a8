//! `walcast replay`: past changes, read from `change_history` directly.

mod selection;

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::str::FromStr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use walcast_history::{FeedRecord, PageLimits, Reader, schema};
use walcast_model::{Change, Cursor, Part, RelationName, Timestamp};
use walcast_postgres::{Pool, Session};
use walcast_protocol::{SubscriptionId, TablePattern, encode};

use crate::cli::ReplayArgs;
use crate::output::{ChangeLine, ChangeLines, Clock, Failure, Form, YELLOW, tell, terminal_columns};
use crate::settings::{ServeSettings, suggestion};
use selection::Selection;

const APPLICATION_NAME: &str = "walcast replay";
/// The `id` of the lines, where a stream has the subscription's.
const ID: &str = "replay";
/// How often `--follow` looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// A place in history, as it is written on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Before this change.
    Cursor(Cursor),
    /// Before what committed then or later.
    Time(Timestamp),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cursor(cursor) => cursor.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = || text.parse().map(Self::Time);
        text.parse().map(Self::Cursor).or_else(|_| time()).map_err(|_| {
            "expected a cursor such as 16/B374D848 or a time such as 2026-11-21T14:05:00Z".to_owned()
        })
    }
}

/// Prints what was asked for; with `--follow` until `stop`.
///
/// # Errors
/// When the arguments do not fit, history cannot be read, or standard output is gone.
pub(crate) async fn run(
    args: ReplayArgs,
    settings: &ServeSettings,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let selection = Selection::new(&args)?;
    let id = ID.parse().map_err(|error| Failure::because(&error))?;
    let printer = match Form::choose(args.form) {
        Form::Human => Printer::Human(ChangeLines::new(
            BufWriter::new(anstream::stdout()),
            Clock::Date,
            terminal_columns,
        )),
        Form::Json => Printer::Json { out: BufWriter::new(io::stdout()), id, line: Vec::new() },
    };
    let work = async {
        let session = Session::connect(&settings.history, APPLICATION_NAME).await;
        let session = session.map_err(|error| Failure::away("the history", &error))?;
        let pool = Pool::new(settings.history.clone(), APPLICATION_NAME, 1);
        let mut replay = Replay { session, pool, slot: settings.slot.name.clone(), selection, printer };
        replay.print(args.follow).await
    };
    let printed = stop.run_until_cancelled(work).await;
    // Following has no other end.
    printed.unwrap_or_else(|| if args.follow { Ok(()) } else { Err(Failure::interrupted()) })
}

struct Replay {
    session: Session,
    pool: Pool,
    slot: String,
    selection: Selection,
    printer: Printer,
}

impl Replay {
    async fn print(&mut self, follow: bool) -> Result<(), Failure> {
        let feed = self.feed().await?;
        let reader = Reader::new(self.pool.clone(), feed.id.clone());
        if let Some(from) = self.selection.from().filter(|from| *from < feed.oldest) {
            let message = format!("history begins at {}, after {from}", feed.oldest);
            return Err(Failure::new(message).hint(Some("replay without --from to begin there".into())));
        }
        let mut next = self.selection.from().unwrap_or(feed.oldest).max(feed.oldest);
        let (from, mut stored, mut told) = (next, feed.position, false);
        loop {
            while next < stored.min(self.selection.to()) {
                let to = stored.min(self.selection.to());
                let page = reader.read_kept(next, to, PageLimits::default()).await;
                let page = page.map_err(|error| Failure::history(&error))?;
                for part in &page.parts {
                    self.part(part)?;
                    if self.selection.is_done() {
                        return Ok(self.printer.flush()?);
                    }
                }
                next = page.next;
            }
            self.printer.flush()?;
            if !std::mem::replace(&mut told, true) {
                let end = if from > stored { format!(" (history ends at {stored})") } else { String::new() };
                self.tell_absent(&format!("{}{end}", self.selection.range(from, next))).await?;
            }
            if !follow || next >= self.selection.to() {
                return Ok(());
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
            let now = self.feed().await?;
            if now.id != feed.id {
                return Err(Failure::new(format!(
                    "the feed was started over: it is {} now, not {}",
                    now.id, feed.id
                )));
            }
            stored = now.position;
        }
    }

    /// Says of each table that was asked for by name and has no change in the range that it has none: a name that is
    /// misspelt is no empty history. Where none was named, that nothing was there at all.
    async fn tell_absent(&self, range: &str) -> Result<(), Failure> {
        if self.selection.is_empty() {
            aside(&format!("history has no change in the range, {range}"));
        }
        let absent: Vec<&TablePattern> = self.selection.absent().collect();
        if absent.is_empty() {
            return Ok(());
        }
        let known = FeedRecord::tables(&self.session).await.map_err(|error| Failure::history(&error))?;
        for table in absent {
            aside(&without(table, range, &known));
        }
        Ok(())
    }

    async fn feed(&self) -> Result<FeedRecord, Failure> {
        let found = match FeedRecord::load(&self.session, &self.slot).await {
            Ok(found) => found,
            Err(error) => {
                // Says what to do when there is no history at all.
                schema::check(&self.session).await.map_err(|error| Failure::history(&error))?;
                return Err(Failure::history(&error));
            }
        };
        found.ok_or_else(|| {
            Failure::new(format!("history has no feed of slot {}", self.slot))
                .hint(Some("start walcast serve, or name the slot with --slot".into()))
        })
    }

    fn part(&mut self, part: &Part) -> Result<(), Failure> {
        if let Some(changes) = self.selection.take(part) {
            self.printer.part(part, &changes)?;
        }
        Ok(())
    }
}

/// On standard error: standard output has the changes alone.
fn aside(text: &str) {
    tell(YELLOW, text);
}

/// That there is no change of `table` in `range`; `known`: the tables of which history has had any.
fn without(table: &TablePattern, range: &str, known: &[RelationName]) -> String {
    if known.iter().any(|known| table.matches(known)) {
        return format!(
            "history has no change of {table} in the range, {range}; it has had some in another one"
        );
    }
    let names: Vec<String> = known.iter().map(ToString::to_string).collect();
    let near = suggestion(&table.to_string(), names.iter().map(String::as_str));
    let hint = match near {
        Some(near) => format!("did you mean {near}?"),
        None => "walcast doctor says what is published".to_owned(),
    };
    format!("history has never had a change of {table}; {hint}")
}

enum Printer {
    Human(ChangeLines<BufWriter<anstream::Stdout>>),
    Json { out: BufWriter<io::Stdout>, id: SubscriptionId, line: Vec<u8> },
}

impl Printer {
    fn part(&mut self, part: &Part, changes: &[&Change]) -> io::Result<()> {
        let transaction = part.transaction();
        match self {
            Self::Human(lines) => {
                let line = |change: &&Change| {
                    let (table, op) = (change.relation.name(), change.op);
                    // The borrow is of the part, not of the change.
                    (op, table.clone(), part.key(change), part.row(change), part.old(change))
                };
                let views: Vec<_> = changes.iter().map(line).collect();
                let views = views.iter().map(|(op, table, key, row, old)| ChangeLine {
                    op: *op,
                    table,
                    key: *key,
                    row: *row,
                    old: *old,
                });
                let meta = part.meta().map(|meta| meta.json());
                lines.transaction(transaction.xid, transaction.committed_at, meta, views)
            }
            Self::Json { out, id, line } => {
                line.clear();
                encode::head(line, "transaction", id);
                let write = |line: &mut Vec<u8>| {
                    for (index, change) in changes.iter().enumerate() {
                        if index > 0 {
                            line.push(b',');
                        }
                        line.extend_from_slice(part.change_json(change));
                    }
                };
                encode::transaction_tail(
                    line,
                    Some(part.next_cursor()),
                    transaction,
                    part.meta().map(|meta| &**meta),
                    write,
                    part.end().is_none(),
                );
                line.push(b'\n');
                out.write_all(line)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            // Flushed with each transaction.
            Self::Human(_) => Ok(()),
            Self::Json { out, .. } => out.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, without};

    #[test]
    fn a_table_without_a_change_is_told_from_one_that_is_misspelt() {
        let known = ["public.orders".parse().unwrap()];
        let said = |table: &str| without(&table.parse().unwrap(), "from 0/1 to 0/9", &known);
        assert!(said("public.orders").contains("in the range, from 0/1 to 0/9"), "{}", said("public.orders"));
        assert!(
            said("public.order").ends_with("never had a change of public.order; did you mean public.orders?")
        );
        assert!(
            said("shop.*").ends_with("never had a change of shop.*; walcast doctor says what is published")
        );
    }

    #[test]
    fn places_are_cursors_or_times() {
        assert_eq!("16/B374D848:3".parse(), Ok(Place::Cursor("16/B374D848:3".parse().unwrap())));
        assert_eq!("2026-11-21T14:05:00Z".parse(), Ok(Place::Time("2026-11-21T14:05:00Z".parse().unwrap())));
        for text in ["", "yesterday", "2026-11-21", "latest"] {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }
}
