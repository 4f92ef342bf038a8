//! `walcast tail`: what happens, as it happens, through a running daemon.

mod again;
mod said;
mod words;

use std::io::{self, Write};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use walcast_client::{
    Change, Client, Error, ErrorCode, Event, Mode, StartAt, Subscription, TransactionMessage,
};
use walcast_model::{Cursor, FeedId};
use walcast_protocol::ServerMessage;

use crate::cli::{TailArgs, TailFrom};
use crate::output::{
    ChangeLine, ChangeLines, Clock, DIM, Failure, Form, YELLOW, json_line, terminal_columns,
};
use again::Again;
use words::Words;

/// The subscription's name on the wire.
const ID: &str = "tail";

/// A table as it is written on a command line: without a schema it is in `public`.
pub(crate) fn qualified(table: &str) -> String {
    let plain = table == "*" || table.contains('.');
    if plain { table.to_owned() } else { format!("public.{table}") }
}

/// Prints until `stop`, or until `--limit` is reached.
///
/// # Errors
/// When the arguments do not fit, the token's file cannot be read at first, the daemon refuses, or standard output is gone;
/// when nobody listens there at first, unless that is waited for. A daemon that goes away later is waited for in any case, and so is a token's file.
pub(crate) async fn run(args: TailArgs, stop: CancellationToken) -> Result<(), Failure> {
    let words = Words::of(&args);
    let subscription = subscription(&args).map_err(|error| words.failure(&error))?;
    let mut builder = Client::builder(&args.url);
    if let Some(token) = &args.token {
        builder = builder.token(token);
    }
    if let Some(path) = args.token_file.clone() {
        // One that is gone later is waited for: whoever renews it may be writing it.
        read_token(path.clone()).await.map_err(words::no_token)?;
        builder = builder.token_from(move || read_token(path.clone()));
    }
    let mut client = builder.build().map_err(|error| words.failure(&error))?;
    let mut tail = Tail::new(Form::choose(args.form), args.limit, words);
    (tail.waits, tail.again) = (args.wait, Again::of(&args));
    let outcome = stop.run_until_cancelled(tail.follow(&mut client, subscription, &args)).await;
    client.close().await;
    tail.say_where_it_stopped();
    outcome.unwrap_or(Ok(()))
}

/// `None` for who listens to channels.
fn subscription(args: &TailArgs) -> Result<Option<Subscription>, Error> {
    if !args.channels.is_empty() {
        return Ok(None);
    }
    let mut tables: Vec<String> = args.tables.iter().map(|table| qualified(table)).collect();
    if tables.is_empty() {
        tables.push("*".to_owned());
    }
    let mut subscription = Subscription::new(ID, tables)?;
    if !args.columns.is_empty() {
        subscription = subscription.columns(args.columns.clone());
    }
    if let Some(client_id) = &args.client_id {
        subscription = subscription.client_id(client_id);
    }
    Ok(Some(subscription))
}

async fn read_token(path: PathBuf) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let text = tokio::fs::read_to_string(&path).await;
    let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.trim().to_owned())
}

struct Tail {
    form: Form,
    words: Words,
    lines: ChangeLines<anstream::Stdout>,
    again: Again,
    /// Also for a daemon that was not there from the beginning.
    waits: bool,
    /// Transactions still to be printed.
    left: Option<u64>,
    /// The feed of the connection.
    feed: Option<FeedId>,
    /// After what was printed, and the feed that this is of.
    stopped: Option<(Cursor, FeedId)>,
}

impl Tail {
    fn new(form: Form, limit: Option<u64>, words: Words) -> Self {
        Self {
            form,
            words,
            lines: ChangeLines::new(anstream::stdout(), Clock::Time, terminal_columns),
            again: Again::default(),
            waits: false,
            left: limit,
            feed: None,
            stopped: None,
        }
    }

    async fn follow(
        &mut self,
        client: &mut Client,
        subscription: Option<Subscription>,
        args: &TailArgs,
    ) -> Result<(), Failure> {
        let words = self.words;
        let id = subscription.as_ref().map(|subscription| subscription.id().clone());
        let mut waiting = match subscription {
            Some(subscription) => {
                begin(client, subscription, args).await.map_err(|error| words.failure(&error))?
            }
            None => {
                args.channels.iter().for_each(|name| client.channel(name).join());
                None
            }
        };
        while self.left != Some(0) {
            let Some(event) = client.next().await else { return Ok(()) };
            let event = event.map_err(|error| words.failure(&error))?;
            if let Event::Connected(welcome) = &event
                && let Some(subscription) = waiting.take()
            {
                let start = subscription.resume(welcome.feed.clone(), welcome.oldest);
                client.subscribe(start).await.map_err(|error| words.failure(&error))?;
            }
            let printed = reached(&event);
            self.event(event, &args.url)?;
            if let (Some(cursor), Some(_), Some(id)) = (printed, &args.client_id, &id) {
                client.ack(id, cursor).map_err(|error| words.failure(&error))?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event, url: &str) -> Result<(), Failure> {
        match &event {
            Event::Reconnecting { reason, reached: false, .. } if self.feed.is_none() && !self.waits => {
                return Err(words::not_there(reason, url));
            }
            Event::Reconnecting { delay, reason, attempt, answered, .. } => {
                let is_known = *answered || self.feed.is_some();
                warn(&words::connecting_again(reason, *delay, *attempt, (self.feed.is_some(), is_known)));
            }
            Event::Retrying { delay, error, .. } => warn(&self.words.asking_again(error, *delay)),
            Event::Failed { error, .. } => {
                if is_of_cursor(&error.code) {
                    self.stopped = None;
                }
                return Err(self.words.refused(error));
            }
            Event::Error(error) if error.channel.is_some() => return Err(self.words.refused(error)),
            Event::Connected(welcome) => self.feed = Some(welcome.feed.clone()),
            Event::Message(_) => self.left = self.left.map(|left| left.saturating_sub(1)),
            Event::Transaction(transaction) if !transaction.more => {
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            _ => {}
        }
        if let (Some(cursor), Some(feed)) = (reached(&event), &self.feed) {
            self.stopped = Some((cursor, feed.clone()));
        }
        match self.form {
            Form::Human => self.show(&event)?,
            Form::Json => print(event)?,
        }
        Ok(())
    }

    fn show(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Connected(welcome) => {
                note(&format!(
                    "connected to {}, feed {} at {}",
                    welcome.server, welcome.feed, welcome.cursor
                ));
            }
            Event::Waiting(waiting) => {
                let place = waiting.position.map(|place| format!(" (place {place})")).unwrap_or_default();
                note(&format!(
                    "waiting{place}: {}",
                    waiting.message.as_deref().unwrap_or("the daemon is not ready")
                ));
            }
            Event::Subscribed(subscribed) if subscribed.mode == Mode::Snapshot => note("initial sync"),
            Event::RightsChanged { .. } => {
                warn("this token is given other rows than before: they come from the start")
            }
            Event::SnapshotComplete(done) => note(&format!("initial sync done at {}", done.cursor)),
            Event::CaughtUp(caught_up) => note(&format!("caught up at {}", caught_up.cursor)),
            Event::Status(status) => note(&words::source(status)),
            Event::Error(error) => warn(&self.words.refused(error).message),
            Event::Snapshot(snapshot) => {
                for row in &snapshot.rows {
                    self.lines.snapshot_row(&snapshot.table, row.get().as_bytes())?;
                }
            }
            Event::Transaction(transaction) => self.transaction(transaction)?,
            Event::Joined(joined) => note(&format!("in the channel {:?}", joined.channel)),
            Event::Message(message) => writeln!(anstream::stdout(), "{}", said::message(message))?,
            Event::Presence(presence) => {
                for line in said::presence(presence) {
                    writeln!(anstream::stdout(), "{DIM}{line}{DIM:#}")?;
                }
            }
            Event::Dropped(dropped) => {
                warn(&format!(
                    "{} messages of {:?} were not sent, since this did not read",
                    dropped.count, dropped.channel
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn transaction(&mut self, transaction: &TransactionMessage) -> io::Result<()> {
        let changes = transaction.changes.iter().map(line);
        let meta = transaction.meta.as_deref().map(|meta| meta.get());
        self.lines.transaction(transaction.xid, transaction.committed_at, meta, changes)
    }

    /// The command that goes on from here; for people only.
    fn say_where_it_stopped(&self) {
        if let (Form::Human, Some((cursor, feed))) = (self.form, &self.stopped) {
            note(&self.again.from(*cursor, feed));
        }
    }
}

/// Nobody can go on from there.
const fn is_of_cursor(code: &ErrorCode) -> bool {
    matches!(code, ErrorCode::CursorTooOld | ErrorCode::CursorAhead | ErrorCode::FeedChanged)
}

/// Subscribes; not yet where only the daemon's welcome says from where.
async fn begin(
    client: &mut Client,
    subscription: Subscription,
    args: &TailArgs,
) -> Result<Option<Subscription>, Error> {
    match (args.from, &args.feed) {
        (TailFrom::Oldest, _) => return Ok(Some(subscription)),
        (TailFrom::Start(StartAt::At(cursor)), Some(feed)) => {
            client.subscribe(subscription.resume(feed.clone(), cursor)).await?;
        }
        (TailFrom::Start(start), _) => client.subscribe(subscription.start(start)).await?,
    }
    Ok(None)
}

fn line(change: &Change) -> ChangeLine<'_> {
    fn bytes(raw: Option<&serde_json::value::RawValue>) -> Option<&[u8]> {
        raw.map(|raw| raw.get().as_bytes())
    }
    ChangeLine {
        op: change.op,
        table: &change.table,
        key: bytes(change.key.as_deref()),
        row: bytes(change.row.as_deref()),
        old: bytes(change.old.as_deref()),
    }
}

/// The cursor after an event.
fn reached(event: &Event) -> Option<Cursor> {
    match event {
        Event::Transaction(transaction) => transaction.cursor,
        Event::SnapshotComplete(done) => Some(done.cursor),
        Event::CaughtUp(caught_up) => Some(caught_up.cursor),
        Event::Heartbeat(heartbeat) => heartbeat.cursor,
        _ => None,
    }
}

/// An event as the daemon sent it; not those about the connection, and not heartbeats.
fn print(event: Event) -> io::Result<()> {
    let message: ServerMessage = match event {
        Event::Waiting(message) => message.into(),
        Event::Subscribed(message) => message.into(),
        Event::Relation(message) => message.into(),
        Event::Snapshot(message) => message.into(),
        Event::SnapshotComplete(message) => message.into(),
        Event::Transaction(message) => message.into(),
        Event::CaughtUp(message) => message.into(),
        Event::Status(message) => message.into(),
        Event::Message(message) => message.into(),
        Event::Presence(message) => message.into(),
        Event::Joined(message) => message.into(),
        Event::Dropped(message) => message.into(),
        Event::Error(message) => message.into(),
        _ => return Ok(()),
    };
    json_line(&message)
}

/// A line aside, on standard error: standard output has the data alone.
fn note(text: &str) {
    aside(DIM, text);
}

/// One that should be looked at.
fn warn(text: &str) {
    aside(YELLOW, text);
}

fn aside(style: anstyle::Style, text: &str) {
    // Nobody to tell when standard error is gone.
    let _ = writeln!(anstream::stderr(), "{style}{text}{style:#}");
}

#[cfg(test)]
mod tests {
    use walcast_client::Event;

    use super::{Tail, Words, qualified};
    use crate::output::Form;

    #[test]
    fn where_it_stopped_is_said_with_the_feed_that_it_is_of() {
        let welcome = |feed: &str| {
            let text = format!(
                r#"{{"protocol":1,"feed":"{feed}","cursor":"0/0","oldest":"0/0","server":"t","heartbeat_ms":1,"limits":{{"message_bytes_max":1,"subscriptions_max":1,"tables_max":1}}}}"#
            );
            Event::Connected(serde_json::from_str(&text).unwrap())
        };
        let caught_up = Event::CaughtUp(serde_json::from_str(r#"{"id":"tail","cursor":"0/20"}"#).unwrap());
        let mut tail = Tail::new(Form::Human, None, Words::default());
        for event in [welcome("f1"), caught_up, welcome("f2")] {
            tail.event(event, "").unwrap();
        }
        assert_eq!(tail.stopped, Some(("0/20".parse().unwrap(), "f1".parse().unwrap())));
    }

    #[test]
    fn nobody_is_sent_to_a_cursor_that_was_refused() {
        for (code, is_good) in [("unknown_table", true), ("cursor_too_old", false), ("feed_changed", false)] {
            let error = format!(r#"{{"id":"tail","code":"{code}","message":"m"}}"#);
            let id = "tail".parse().unwrap();
            let failed = Event::Failed { id, error: serde_json::from_str(&error).unwrap() };
            let mut tail = Tail::new(Form::Human, None, Words::default());
            tail.stopped = Some(("0/20".parse().unwrap(), "f1".parse().unwrap()));
            tail.event(failed, "").unwrap_err();
            assert_eq!(tail.stopped.is_some(), is_good, "{code}");
        }
    }

    #[test]
    fn a_table_without_schema_is_in_public() {
        let cases =
            [("orders", "public.orders"), ("app.orders", "app.orders"), ("*", "*"), ("app.*", "app.*")];
        for (given, expected) in cases {
            assert_eq!(qualified(given), expected);
        }
    }
}
