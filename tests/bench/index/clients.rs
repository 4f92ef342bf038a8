//! Clients in this process, and what they were given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use walcast_broadcaster::Broadcaster;
use walcast_broadcaster::inside::Client;
use walcast_model::RelationName;
use walcast_protocol::{StartAt, Subscribe, TablePattern};

use crate::Outcome;

/// As many as a connection may have.
pub(crate) const SUBSCRIPTIONS: usize = 64;

/// Clients that subscribe side by side.
const COMING: usize = 32;

/// When changes were written and how long they took, by their number.
pub(crate) struct Journal {
    began: Instant,
    /// Whether a subscription is called as the owner of its rows.
    is_distinct: bool,
    sent: Vec<AtomicU64>,
    /// Microseconds; 0 for what has not arrived.
    took: Vec<AtomicU32>,
    pub(crate) delivered: AtomicUsize,
    pub(crate) caught_up: AtomicUsize,
    pub(crate) wrong: AtomicUsize,
}

impl Journal {
    pub(crate) fn new(changes: usize, is_distinct: bool) -> Self {
        Self {
            began: Instant::now(),
            is_distinct,
            sent: (0..changes).map(|_| AtomicU64::new(0)).collect(),
            took: (0..changes).map(|_| AtomicU32::new(0)).collect(),
            delivered: AtomicUsize::new(0),
            caught_up: AtomicUsize::new(0),
            wrong: AtomicUsize::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn sent(&self, number: usize) {
        self.sent[number].store(self.now(), Ordering::Relaxed);
    }

    /// Milliseconds that these changes took, of those that arrived.
    pub(crate) fn latencies(&self, numbers: std::ops::Range<usize>) -> Vec<f64> {
        let took = self.took[numbers].iter().map(|took| took.load(Ordering::Relaxed));
        took.filter(|took| *took > 0).map(|took| f64::from(took) / 1000.0).collect()
    }

    pub(crate) fn take(&self, [head, tail]: &[Bytes; 2]) {
        if head.starts_with(br#"{"type":"transaction""#) {
            let subscription = number_after(head, br#""id":"s"#);
            if self.is_distinct && subscription != number_after(tail, br#""owner_id":"#) {
                self.wrong.fetch_add(1, Ordering::Relaxed);
            }
            // The key of the first change.
            if let Some(number) = number_after(tail, br#""key":{"id":"#) {
                let number = number as usize;
                let took = self.now().saturating_sub(self.sent[number].load(Ordering::Relaxed));
                let took = u32::try_from(took).unwrap_or(u32::MAX).max(1);
                // Of several who are told of it, the last counts.
                self.took[number].store(took, Ordering::Relaxed);
            }
            self.delivered.fetch_add(1, Ordering::Relaxed);
        } else if head.starts_with(br#"{"type":"caught_up""#) {
            self.caught_up.fetch_add(1, Ordering::Relaxed);
        } else if head.starts_with(br#"{"type":"error""#) {
            eprintln!("{}", String::from_utf8_lossy(head));
            self.wrong.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn number_after(text: &[u8], what: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(text, what)? + what.len();
    let digits = text.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A subscription to the rows of one owner.
pub(crate) fn subscribe(owner: usize, id: usize) -> Outcome<Subscribe> {
    let table = TablePattern::Table(RelationName::new("public", "files"));
    let mut message = Subscribe::new(format!("s{id}").parse()?, vec![table]);
    message.cursor = StartAt::Latest;
    for table in &mut message.tables {
        table.filter = Some(format!("owner_id = {owner}"));
    }
    Ok(message)
}

/// Tasks that read what comes.
pub(crate) struct Clients {
    tasks: TaskTracker,
    gone: CancellationToken,
    journal: Arc<Journal>,
}

impl Clients {
    pub(crate) fn new(journal: &Arc<Journal>) -> Self {
        Self { tasks: TaskTracker::new(), gone: CancellationToken::new(), journal: Arc::clone(journal) }
    }

    /// Subscribes to the rows of these owners, 64 in each client, some clients at a time.
    pub(crate) fn come(&self, broadcaster: &Broadcaster, owners: &[usize]) -> Outcome<()> {
        let coming = Arc::new(Semaphore::new(COMING));
        for (number, owners) in owners.chunks(SUBSCRIPTIONS).enumerate() {
            let mut client = Client::new(broadcaster, number as u64);
            let id = |place: usize, owner: usize| if self.journal.is_distinct { owner } else { place };
            let messages = owners.iter().enumerate();
            let messages: Vec<Subscribe> = messages
                .map(|(place, owner)| subscribe(*owner, id(place, *owner)))
                .collect::<Result<_, _>>()?;
            let (journal, gone) = (Arc::clone(&self.journal), self.gone.clone());
            let coming = Arc::clone(&coming);
            self.tasks.spawn(async move {
                let place = coming.acquire_owned().await;
                for message in messages {
                    if let Err(refusal) = client.subscribe(message) {
                        eprintln!("{refusal}");
                        return;
                    }
                    // As between two messages of a connection.
                    tokio::task::yield_now().await;
                }
                drop(place);
                loop {
                    tokio::select! {
                        frame = client.next() => journal.take(&frame),
                        () = gone.cancelled() => break,
                    }
                    tokio::task::consume_budget().await;
                }
                client.leave().await;
            });
        }
        Ok(())
    }

    pub(crate) async fn until_caught_up(&self, count: usize) -> Outcome<()> {
        let began = Instant::now();
        while self.journal.caught_up.load(Ordering::Relaxed) < count {
            if began.elapsed() > Duration::from_secs(300) {
                let caught_up = self.journal.caught_up.load(Ordering::Relaxed);
                return Err(format!("{caught_up} of {count} subscriptions caught up").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Everybody goes at once.
    pub(crate) async fn go(self) {
        self.gone.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
