//! A server that was started again is compared with what history has of it.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use walcast_feed::{Read, SourceState};
use walcast_model::{Cursor, Lsn, Transaction};
use walcast_replication::identity::Origin;
use walcast_replication::{FeedEnd, Keeper, LastingHole, StoredTransactions, Tenure};
use walcast_testkit::{LIMIT, StopMode, installations, own_cluster, within};

use crate::source::{Options, Source};

/// A history that has what a test says, and remembers what it was told.
struct History {
    kept: Mutex<Result<StoredTransactions, String>>,
    told: watch::Sender<Vec<String>>,
    /// Whether questions about the end of a stream are never answered.
    is_silent: AtomicBool,
}

impl History {
    fn keeps(&self, transactions: &[Transaction], oldest: Lsn) {
        let transactions = transactions.to_vec();
        *self.kept.lock().unwrap() = Ok(StoredTransactions { transactions, oldest });
    }

    async fn until_told(&self, count: usize) -> Vec<String> {
        let mut told = self.told.subscribe();
        within("what history is told", LIMIT, told.wait_for(|told| told.len() >= count))
            .await
            .unwrap()
            .clone()
    }

    fn answer<T: Send + 'static>(&self, answer: Result<T, String>) -> BoxFuture<'static, Result<T, String>> {
        if self.is_silent.load(Ordering::Relaxed) { pending().boxed() } else { async { answer }.boxed() }
    }
}

impl Keeper for History {
    fn adopt(&self, _origin: Origin) -> BoxFuture<'static, Result<(), String>> {
        self.told.send_modify(|told| told.push("adopted".to_owned()));
        async { Ok(()) }.boxed()
    }

    fn transactions(
        &self,
        _from: Lsn,
        _to: Lsn,
        _count_max: u32,
    ) -> BoxFuture<'static, Result<StoredTransactions, String>> {
        let kept = self.kept.lock().unwrap().clone();
        async { kept }.boxed()
    }

    fn holds_slot(&self) {}

    fn keep_hole(&self, hole: LastingHole) -> BoxFuture<'static, Result<(), String>> {
        self.told.send_modify(|told| told.push(format!("keep: {} {}", hole.publication, hole.reason)));
        let kept = self.kept.lock().unwrap().as_ref().map(drop).map_err(Clone::clone);
        self.answer(kept)
    }

    fn tenure(&self) -> BoxFuture<'static, Result<Tenure, String>> {
        self.answer(Ok(Tenure::Own))
    }

    fn ended(&self, end: FeedEnd) {
        self.told.send_modify(|told| told.push(format!("{end:?}")));
    }
}

/// A source of which history has stored four transactions, none of them acknowledged, and the four.
async fn stored(cluster: &walcast_testkit::Cluster) -> (Source, Arc<History>, Vec<Transaction>) {
    let history = Arc::new(History {
        kept: Mutex::new(Err("it is away".to_owned())),
        told: watch::Sender::default(),
        is_silent: AtomicBool::new(false),
    });
    let options = Options { keeper: Some(Arc::clone(&history) as Arc<dyn Keeper>), ..Options::default() };
    let mut source = Source::with(cluster, "CREATE TABLE t (id int PRIMARY KEY)", options).await;
    for id in 0..4 {
        source.database.run(&format!("INSERT INTO t VALUES ({id})")).await;
    }
    let from = Cursor::from(*source.acknowledge.borrow());
    source.read().await;
    let Read::Parts { parts, .. } = source.feed.read(from, usize::MAX) else { panic!("no parts") };
    let all: Vec<_> = parts.iter().map(|part| part.transaction().as_ref().clone()).collect();
    assert_eq!(all.len(), 4);
    source.feed.mark_stored(source.feed.head());
    assert_eq!(history.until_told(1).await, ["adopted"]);
    (source, history, all)
}

/// The slot of a server that crashed stands where the disk had it last: before what retention has left.
#[tokio::test]
async fn what_history_has_dropped_is_not_missed_when_it_is_sent_again_and_what_it_has_is() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let (mut source, history, all) = stored(&cluster).await;
        history.keeps(&all[2..], all[2].start.lsn());
        cluster.restart(StopMode::Immediate).await.unwrap();
        assert_eq!(history.until_told(2).await, ["adopted", "adopted"]);
        source.database.run("INSERT INTO t VALUES (4)").await;
        assert_eq!(source.read().await, [[r#"insert public.t key {"id":4} row {"id":4}"#]]);
        // All of it was dropped, or given up.
        history.keeps(&[], Lsn::new(all[3].start.lsn().get() + 1));
        cluster.restart(StopMode::Immediate).await.unwrap();
        assert_eq!(history.until_told(3).await.last().unwrap(), "adopted");
        // One is not there although nothing was dropped.
        history.keeps(&all[..3], all[0].start.lsn());
        cluster.restart(StopMode::Immediate).await.unwrap();
        let differs = format!("{:?}", FeedEnd::Differs { at: all[3].start.lsn() });
        assert_eq!(history.until_told(4).await[3], differs);
    }
}

#[tokio::test]
async fn a_history_that_is_away_is_not_called_an_error_of_the_source() {
    let installation = installations().pop().expect("a Postgres");
    let cluster = own_cluster(&installation).await;
    let (source, history, all) = stored(&cluster).await;
    cluster.restart(StopMode::Immediate).await.unwrap();
    let away = "the server was started again, and history does not say what it has of it, so the two cannot be compared: \
                it is away";
    source
        .until_source(
            "why it does not stream",
            |state| matches!(state, SourceState::Interrupted { reason, .. } if reason == away),
        )
        .await;
    history.keeps(&all, Lsn::ZERO);
    assert_eq!(history.until_told(2).await, ["adopted", "adopted"]);
}

/// What the slot alone shows is given to the history to keep, again until it is kept, and not again after that.
#[tokio::test]
async fn a_hole_in_the_stream_is_kept_as_soon_as_history_is_there() {
    for installation in installations() {
        let cluster = own_cluster(&installation).await;
        let (source, history, _) = stored(&cluster).await;
        *history.kept.lock().unwrap() = Err("it is away".to_owned());
        for sql in
            ["DROP PUBLICATION feed", "INSERT INTO t VALUES (9)", "CREATE PUBLICATION feed FOR TABLE t"]
        {
            source.database.run(sql).await;
        }
        let told = history.until_told(5).await;
        let (keep, hole) = (&told[1], format!("{:?}", FeedEnd::Hole));
        assert!(
            keep.starts_with("keep: feed a publication was missing when they were written ("),
            "{told:?}"
        );
        // It is told all the same, and only after that.
        assert_eq!([&told[2], &told[3], &told[4]], [&hole, keep, &hole]);
        history.keeps(&[], Lsn::new(0));
        let known = history.told.borrow().len();
        let told = history.until_told(known + 4).await;
        let kept: Vec<_> = told[known..].iter().filter(|told| told.starts_with("keep: ")).collect();
        assert!(kept.len() <= 1 && *told.last().unwrap() == hole, "{told:?}");
    }
}

/// A lock on the feed's record, or a host that drops packets: neither may hide that the source does not stream.
#[tokio::test]
async fn a_history_that_never_answers_hides_no_interruption_and_keeps_no_slot_from_being_tried_again() {
    let installation = installations().pop().expect("a Postgres");
    let cluster = own_cluster(&installation).await;
    let (source, history, _) = stored(&cluster).await;
    history.is_silent.store(true, Ordering::Relaxed);
    for sql in ["DROP PUBLICATION feed", "INSERT INTO t VALUES (9)", "CREATE PUBLICATION feed FOR TABLE t"] {
        source.database.run(sql).await;
    }
    let interrupted = |state: &SourceState| matches!(state, SourceState::Interrupted { .. });
    let state = source.until_source("that it does not stream", interrupted).await;
    assert_eq!(history.told.borrow()[1..], [] as [String; 0], "{state:?}");
    let hole = format!("{:?}", FeedEnd::Hole);
    let told = history.until_told(4).await;
    assert!(told[1].starts_with("keep: feed "), "{told:?}");
    assert_eq!([&told[2], &told[3]], [&hole, &told[1]], "not tried again");
    let told_what_to_do =
        |state: &SourceState| matches!(state, SourceState::Interrupted { hint: Some(_), .. });
    source.until_source("what is to be done", told_what_to_do).await;
    history.is_silent.store(false, Ordering::Relaxed);
    history.keeps(&[], Lsn::ZERO);
    let known = history.told.borrow().len();
    let told = history.until_told(known + 2).await;
    assert_eq!(told.last(), Some(&hole), "{told:?}");
}
