//! walcast in a process of its own: the daemon's own parts, composed as in `crates/walcast/src/app.rs`, as far as a
//! measurement needs them.
//!
//! Prints `ready <port>` when everything but the replicator runs, and starts that when a line `go` comes in. Ends when
//! what was asked for is done: prints `done <changes> <seconds> <CPU seconds> <peak KiB>`, waits for its input to close
//! and is gone. The gate is opened at once: a real daemon would first store the whole backlog and then serve it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_broadcaster::{
    Broadcaster, ClientPositions, Gate, InitialSync, PastPages, Sources, Unanswered, doors,
};
use walcast_feed::{Barriers, Feed, FeedLimits, Read};
use walcast_history::{
    Acknowledged, AppendLimits, Appender, ClientKey, FeedRecord, KnownClient, NewFeed, Page, PageLimits,
    Reader, Without, schema,
};
use walcast_model::{Cursor, Lsn, Relation, RelationDigest, Snapshot};
use walcast_postgres::{ConnectionConfig, Pool, Session};
use walcast_replication::{BarrierEmitter, Replicator, ReplicatorSettings};
use walcast_snapshot::{SnapshotLimits, Snapshots};

use crate::Outcome;
use crate::process::Usage;
use crate::source::PUBLICATION;

/// The hidden subcommand: `pipeline <url> <slot> <from> <to> <changes> <system identifier> history|none socket|none`.
pub(crate) const COMMAND: &str = "pipeline";

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) url: String,
    pub(crate) slot: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) changes: u64,
    pub(crate) system_identifier: String,
    /// Whether the real appender stores what comes.
    pub(crate) history: bool,
    /// Whether a client is served.
    pub(crate) socket: bool,
}

impl Task {
    /// As arguments of this binary.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let word = |yes: bool, word: &str| if yes { word.to_owned() } else { "none".to_owned() };
        vec![
            COMMAND.to_owned(),
            self.url.clone(),
            self.slot.clone(),
            self.from.clone(),
            self.to.clone(),
            self.changes.to_string(),
            self.system_identifier.clone(),
            word(self.history, "history"),
            word(self.socket, "socket"),
        ]
    }

    fn parse(arguments: &[String]) -> Outcome<Self> {
        let [url, slot, from, to, changes, system_identifier, history, socket] = arguments else {
            return Err("pipeline: eight arguments".into());
        };
        Ok(Self {
            url: url.clone(),
            slot: slot.clone(),
            from: from.clone(),
            to: to.clone(),
            changes: changes.parse()?,
            system_identifier: system_identifier.clone(),
            history: history == "history",
            socket: socket == "socket",
        })
    }
}

/// Runs a task.
pub(crate) fn main(arguments: &[String]) -> Outcome<()> {
    let task = Task::parse(arguments)?;
    // As the daemon: one worker for each CPU.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(run(&task)))
}

async fn run(task: &Task) -> Outcome<()> {
    let config = ConnectionConfig::parse(&task.url, &|_| None)?;
    let record = record(task, &config).await?;
    let position = record.as_ref().map_or(task.from.parse()?, |record| record.position);
    let secret =
        record.as_ref().map_or_else(|| "none".to_owned(), |record| record.secret.reveal().to_owned());
    let feed_id = record.as_ref().map_or("bench".parse()?, |record| record.id.clone());
    let (writer, feed) = Feed::new(position, FeedLimits::default());
    let (barriers, requests) = Barriers::new();
    let (acknowledge, acknowledged) = watch::channel(Lsn::ZERO);
    let cancel = CancellationToken::new();
    let mut input = BufReader::new(tokio::io::stdin()).lines();

    tokio::spawn(BarrierEmitter::new(config.clone(), requests).run(cancel.clone()));
    if let Some(record) = record {
        let appender =
            Appender::new(config.clone(), record, feed.clone(), AppendLimits::default(), acknowledge.clone());
        let cancel = cancel.clone();
        tokio::spawn(async move {
            appender.run(std::future::ready(()), cancel).await.map_err(|error| eprintln!("appender: {error}"))
        });
    }
    let mut port = 0;
    if task.socket {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        port = listener.local_addr()?.port();
        let gate = Gate::closed();
        gate.open();
        let past: Arc<dyn PastPages> = match task.history {
            true => Arc::new(Reader::new(Pool::new(config.clone(), "walcast history", 4), feed_id.clone())),
            false => Arc::new(NoPast { oldest: position }),
        };
        let snapshots = Snapshots::new(
            config.clone(),
            barriers.clone(),
            vec![PUBLICATION.into()],
            SnapshotLimits::default(),
        );
        let source: Arc<dyn InitialSync> = Arc::new(snapshots);
        let lineage = walcast_broadcaster::Lineage::default();
        let clients = Arc::new(NoClients);
        let sources = Sources {
            feed_id,
            lineage,
            feed: feed.clone(),
            barriers: barriers.clone(),
            past,
            source,
            clients,
            gate,
        };
        let broadcaster = Broadcaster::new(sources, walcast_broadcaster::Limits::default());
        tokio::spawn(doors::serve(
            vec![listener.into()],
            broadcaster,
            doors::EntranceSettings::open(),
            None,
            cancel.clone(),
        ));
    }
    println!("ready {port}");
    line(&mut input, "go").await?;

    let started = Instant::now();
    let mut settings =
        ReplicatorSettings::new(&task.slot, vec![PUBLICATION.into()], secret, &task.system_identifier, 1);
    settings.part_bytes_max = 1 << 20;
    let replicator = Replicator::new(config, settings, writer, barriers, acknowledged);
    tokio::spawn(replicator.run(cancel.clone()));

    let goal: Cursor = task.to.parse()?;
    match (task.history, task.socket) {
        (false, false) => drain(&feed, position, task.changes, &acknowledge).await,
        (false, true) => follow_client(&feed, &mut input, &acknowledge).await?,
        (true, _) => {
            feed.watch_stored().wait_for(|stored| *stored >= goal).await?;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    if task.history && task.socket {
        while input.next_line().await?.is_some_and(|line| line != "end") {}
    }
    let usage = Usage::of(std::process::id()).unwrap_or_default();
    println!("done {} {seconds} {} {}", task.changes, usage.cpu_seconds, usage.peak_kib);
    while input.next_line().await?.is_some() {}
    // Nobody waits for a farewell: the slot is dropped.
    std::process::exit(0);
}

async fn line(input: &mut Lines<BufReader<Stdin>>, wanted: &str) -> Outcome<()> {
    let line = input.next_line().await?;
    if line.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{line:?} instead of {wanted}").into()) }
}

/// A fresh history, if the task wants one.
async fn record(task: &Task, config: &ConnectionConfig) -> Outcome<Option<FeedRecord>> {
    if !task.history {
        return Ok(None);
    }
    let mut session = Session::connect(config, "walcast bench").await?;
    schema::remove(&mut session).await?;
    schema::apply(&mut session).await?;
    let new = NewFeed {
        slot: task.slot.clone(),
        database: config.database().into(),
        system_identifier: task.system_identifier.clone(),
        timeline: 1,
        position: task.from.parse()?,
    };
    Ok(Some(FeedRecord::create(&mut session, &new).await?))
}

/// Takes everything out of the feed and marks it stored at once, until so many changes were there.
async fn drain(feed: &Feed, mut from: Cursor, changes: u64, acknowledge: &watch::Sender<Lsn>) {
    let (mut head, mut count) = (feed.watch_head(), 0);
    while count < changes {
        head.borrow_and_update();
        match feed.read(from, 1 << 20) {
            Read::Parts { parts, next } => {
                count += parts.iter().map(|part| part.changes().len() as u64).sum::<u64>();
                stored(feed, next, acknowledge);
                from = next;
            }
            Read::AtHead { .. } if head.changed().await.is_err() => return,
            Read::AtHead { .. } => {}
            Read::Behind { oldest } => from = oldest,
        }
    }
}

/// Marks as stored what the client says that it has, so that the feed stays bounded and nothing is read from a
/// history that is not there.
async fn follow_client(
    feed: &Feed,
    input: &mut Lines<BufReader<Stdin>>,
    acknowledge: &watch::Sender<Lsn>,
) -> Outcome<()> {
    while let Some(line) = input.next_line().await? {
        match line.split_once(' ') {
            Some(("cursor", cursor)) => stored(feed, cursor.parse()?, acknowledge),
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn stored(feed: &Feed, position: Cursor, acknowledge: &watch::Sender<Lsn>) {
    feed.mark_stored(position);
    // A position inside a transaction cannot be acknowledged; a later one will be.
    if position.seq() == walcast_model::Seq::FIRST {
        acknowledge.send_replace(position.lsn());
    }
}

/// There is no history: that somebody asks for it is a mistake of the measurement.
#[derive(Debug)]
struct NoPast {
    oldest: Cursor,
}

impl NoPast {
    fn asked() -> ! {
        eprintln!("the client fell behind the feed, and there is no history");
        std::process::exit(1);
    }
}

/// Nobody acknowledges anything.
#[derive(Debug)]
struct NoClients;

impl ClientPositions for NoClients {
    fn store<'a>(&'a self, _: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn position<'a>(&'a self, _: &'a ClientKey) -> BoxFuture<'a, Result<Option<KnownClient>, Unanswered>> {
        Box::pin(async { Ok(None) })
    }

    fn of_user<'a>(&'a self, _: &'a str, _: usize) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn upkeep<'a>(&'a self, _: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>> {
        Box::pin(async { Ok(()) })
    }

    fn expiry(&self) -> Duration {
        Duration::MAX
    }
}

impl PastPages for NoPast {
    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn first_without<'a>(
        &'a self,
        _: &'a [RelationDigest],
        from: Cursor,
        _: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>> {
        Box::pin(std::future::ready(Ok(Without::From(from))))
    }

    fn page(&self, _: Cursor, _: Cursor, _: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        Self::asked()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        let oldest = self.oldest;
        Box::pin(async move { Ok(oldest) })
    }

    fn first_invisible<'a>(
        &'a self,
        _: &'a Snapshot,
        _: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>> {
        Self::asked()
    }
}
