//! A client that goes on through anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use walcast_model::Lsn;

use super::copies::Copies;
use super::ledger::{Account, Ledger};
use super::observer::subscribe_message;
use super::socket::{Socket, connect, next_text};
use super::subscription::{Checkpoint, Subscription};
use super::taken::{Storing, Taken};
use super::verdict::Violation;

/// How long connecting, with TLS and upgrade, may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Transactions between two checkpoints that a client may later go back to.
const CHECKPOINT_EVERY: u64 = 200;
/// Delivered and not yet compared: beyond it the client waits for the witness.
const WAITING_MAX: usize = 20_000;

/// What a client is told to do.
#[derive(Debug)]
pub enum Command {
    /// Drop the connection without a word, and resume.
    Cut,
    /// Read nothing for so long.
    Stall(Duration),
    /// Drop the connection, and resume where it was some time ago, with the copies as of then.
    GoBack,
    /// Drop the connection and everything else, and begin with an initial sync.
    BeginAnew,
    /// Hand out the copies as they are.
    Copies(oneshot::Sender<Copies>),
}

/// What a client has seen.
#[derive(Debug, Default)]
pub struct ClientTally {
    /// Transactions delivered.
    pub transactions: AtomicU64,
    /// Changes delivered.
    pub changes: AtomicU64,
    /// Messages of transactions and of initial syncs.
    pub parts: AtomicU64,
    /// Bytes of messages.
    pub bytes: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Initial syncs that were completed.
    pub syncs: AtomicU64,
    /// Times that it was told `caught_up`.
    pub caught_up: AtomicU64,
    /// Errors that pass by themselves: `not_ready`.
    pub refusals: AtomicU64,
}

/// Describes a client.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    /// For messages.
    pub name: String,
    /// Where the daemon is, or a proxy before it.
    pub url: String,
    /// What it subscribes to.
    pub tables: Vec<String>,
    /// What it stores.
    pub storing: Storing,
    /// For its pauses.
    pub seed: u64,
    /// After so long without a byte the connection is given up.
    pub silence_max: Duration,
}

/// A running client; ends when dropped.
#[derive(Debug)]
pub struct Client {
    name: String,
    commands: mpsc::UnboundedSender<Command>,
    tally: Arc<ClientTally>,
    position: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl ClientBuilder {
    /// Starts it. The first violation is sent to `violations`, and ends it.
    #[must_use]
    pub fn start(self, ledger: &Arc<Ledger>, violations: mpsc::UnboundedSender<Violation>) -> Client {
        let (commands, orders) = mpsc::unbounded_channel();
        let (progress, position) = watch::channel(0);
        let tally = Arc::new(ClientTally::default());
        let tables: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        let mut driver = Driver {
            subscription: Subscription::new(self.storing, self.tables == ["*"]),
            account: ledger.open(&tables),
            ledger: Arc::clone(ledger),
            tally: Arc::clone(&tally),
            random: StdRng::seed_from_u64(self.seed),
            checkpoint: None,
            asked: Lsn::ZERO,
            progress,
            orders,
            builder: self.clone(),
        };
        let name = self.name.clone();
        let task = tokio::spawn(async move {
            let Err(violation) = Box::pin(driver.run()).await else { return };
            let _over = violations.send(violation.seen_by(&driver.builder.name));
        });
        Client { name, commands, tally, position, task }
    }
}

impl Client {
    /// For messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells it to do something.
    pub fn command(&self, command: Command) {
        let _ended = self.commands.send(command);
    }

    /// What it has seen.
    pub fn tally(&self) -> &ClientTally {
        &self.tally
    }

    /// How many committed transactions it is past, by what was compared.
    pub fn position(&self) -> usize {
        *self.position.borrow()
    }

    /// Grows whenever something that counts comes: a message of a transaction, or a step in the comparison.
    pub fn progress(&self) -> u64 {
        self.tally.parts.load(Ordering::Relaxed) + self.position() as u64
    }

    /// Its copies as they are; `None` when it has ended, or does not answer within 60 s.
    pub async fn copies(&self) -> Option<Copies> {
        let (sender, receiver) = oneshot::channel();
        self.command(Command::Copies(sender));
        timeout(Duration::from_secs(60), receiver).await.ok()?.ok()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Driver {
    builder: ClientBuilder,
    subscription: Subscription,
    account: Account,
    ledger: Arc<Ledger>,
    tally: Arc<ClientTally>,
    random: StdRng,
    checkpoint: Option<Checkpoint>,
    asked: Lsn,
    progress: watch::Sender<usize>,
    orders: mpsc::UnboundedReceiver<Command>,
}

/// Why a connection is over.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// Connect again.
    Connection,
    /// The owner is gone.
    Owner,
}

impl Driver {
    async fn run(&mut self) -> Result<(), Violation> {
        loop {
            let ended = self.connection().await?;
            if ended == Ended::Owner {
                self.ledger.close(&self.account);
                return Ok(());
            }
            sleep(Duration::from_millis(self.random.random_range(20..400))).await;
        }
    }

    async fn connection(&mut self) -> Result<Ended, Violation> {
        let Ok(Ok(mut socket)) = timeout(CONNECT_MAX, connect(&self.builder.url)).await else {
            return self.while_away().await;
        };
        self.subscription.cut();
        // Flushed before the question: it has to be delivered before caught_up.
        self.asked = self.ledger.horizon();
        let tables: Vec<&str> = self.builder.tables.iter().map(String::as_str).collect();
        let message = subscribe_message(&tables, self.subscription.cursor()).to_string();
        if timeout(CONNECT_MAX, socket.send(Message::text(message))).await.is_ok_and(|sent| sent.is_ok()) {
            self.tally.connections.fetch_add(1, Ordering::Relaxed);
            if let Some(cursor) = self.subscription.cursor() {
                self.account.begins(cursor);
            }
            return self.listen(&mut socket).await;
        }
        Ok(Ended::Connection)
    }

    /// Commands are heard without a connection too.
    async fn while_away(&mut self) -> Result<Ended, Violation> {
        while let Ok(command) = self.orders.try_recv() {
            self.obey(command).await;
        }
        self.settle()?;
        if self.orders.is_closed() { Ok(Ended::Owner) } else { Ok(Ended::Connection) }
    }

    async fn listen(&mut self, socket: &mut Socket) -> Result<Ended, Violation> {
        let mut growth = self.ledger.watch();
        loop {
            let is_full = self.account.waiting() > WAITING_MAX;
            tokio::select! {
                message = timeout(self.builder.silence_max, next_text(socket)), if !is_full => match message {
                    Ok(Some(text)) => {
                        self.tally.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
                        for taken in self.subscription.take(&text)? {
                            if self.on(taken)? == Ended::Connection {
                                return Ok(Ended::Connection);
                            }
                        }
                        self.settle()?;
                    }
                    Ok(None) | Err(_) => return Ok(Ended::Connection),
                },
                command = self.orders.recv() => match command {
                    Some(command) => {
                        if self.obey(command).await {
                            return Ok(Ended::Connection);
                        }
                    }
                    None => return Ok(Ended::Owner),
                },
                changed = growth.changed() => {
                    self.settle()?;
                    if changed.is_err() {
                        return Ok(Ended::Owner);
                    }
                }
            }
        }
    }

    /// `Ended::Connection` when the subscription is over; `Ended::Owner` stands for going on.
    fn on(&mut self, taken: Taken) -> Result<Ended, Violation> {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match taken {
            Taken::Transaction(delivered) => {
                let number = count(&self.tally.transactions);
                self.tally.changes.fetch_add(delivered.changes.len() as u64, Ordering::Relaxed);
                if self.subscription.cursor().is_some() {
                    self.account.delivered(delivered);
                }
                if number % CHECKPOINT_EVERY == 0 && self.random.random_bool(0.3) {
                    self.checkpoint = self.subscription.checkpoint().or(self.checkpoint.take());
                }
            }
            Taken::Passed(cursor) => self.account.passed(cursor.lsn(), "a heartbeat"),
            Taken::Synced(cursor) => {
                count(&self.tally.syncs);
                self.account.begins(cursor);
            }
            Taken::CaughtUp(cursor) => {
                count(&self.tally.caught_up);
                self.account.passed(cursor.lsn().max(self.asked), "caught_up");
            }
            Taken::Refused(refusal) => {
                // `internal` does not: it is for a history that has a hole or cannot be read, which no fault here leads to.
                if refusal.code != "not_ready" {
                    let cursor = self.subscription.cursor();
                    let text = format!("refused at {cursor:?}: {}: {}", refusal.code, refusal.message);
                    return Err(Violation::wrong(text));
                }
                count(&self.tally.refusals);
                return Ok(Ended::Connection);
            }
            Taken::Other("part" | "snapshot") => {
                count(&self.tally.parts);
            }
            Taken::Subscribed(_) | Taken::Other(_) => {}
        }
        Ok(Ended::Owner)
    }

    fn settle(&mut self) -> Result<(), Violation> {
        self.ledger.settle(&mut self.account)?;
        self.progress.send_replace(self.account.position());
        Ok(())
    }

    /// Whether the connection is to be dropped.
    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Cut => true,
            Command::Stall(time) => {
                sleep(time).await;
                false
            }
            Command::GoBack => {
                // What was committed is kept in full for those alone who are not past it.
                let checkpoint = self.checkpoint.take().filter(|_| self.builder.tables == ["*"]);
                let Some(checkpoint) = checkpoint else { return false };
                self.subscription.go_back(checkpoint);
                true
            }
            Command::BeginAnew => {
                self.subscription.begin_anew();
                true
            }
            Command::Copies(answer) => {
                let _gone = answer.send(self.subscription.copies().clone());
                false
            }
        }
    }
}
