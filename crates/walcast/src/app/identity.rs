//! Whether the feed can go on from the source as it is found, and as which feed.
//!
//! ```text
//!   the server has run all the time            the feed goes on
//!   promoted at X                              another feed from X; cursors up to X are good in it
//!   its WAL ends before what the feed has had  another feed from what its slot was acknowledged up to
//!   it sends other transactions than before    another feed from the first that differs
//!   started again while nobody watched         another feed; cursors up to where the server stood then are good in it
//! ```
//!
//! In none of them is anything passed over: a client either goes on where source and feed are known to be the same, or
//! is told `feed_changed`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use walcast_broadcaster::Lineage;
use walcast_history::{Branch, BranchReason, FeedRecord, Hole, Line, setup_lock};
use walcast_model::Lsn;
use walcast_postgres::{ConnectionConfig, Session};
use walcast_replication::identity::{self, Continuity, Origin, Standing};
use walcast_replication::metrics::{ENDED_TOTAL, LOST_CHANGES_TOTAL};
use walcast_replication::{
    FeedEnd, Keeper, LastingHole, ReplicationConnection, ReplicationSettings, StoredTransactions, Tenure,
    slot,
};

use super::ServeError;
use super::again::{Again, Ending, Why};
use crate::commands::setup::{SetupError, Target};
use crate::settings::OnHole;

const APPLICATION_NAME: &str = "walcast identity";

/// A feed that can be served.
pub(super) struct Settled {
    pub(super) record: FeedRecord,
    pub(super) origin: Origin,
    pub(super) lineage: Lineage,
    /// The server was started while nobody watched, and is still to prove itself.
    pub(super) unproven: Option<Unproven>,
}

/// A server that was started while nobody watched.
#[derive(Clone, Debug)]
pub(super) struct Unproven {
    /// Where the feed was then.
    from: Lsn,
    line: Line,
    /// What the slot is read past, if it is no part of the life that the server lives now.
    hole: Option<Hole>,
}

impl Settled {
    /// The hole for which this feed cannot be served: what a server that is still to prove itself lacks is shown by its slot.
    pub(super) fn hole(&self, target: &Target) -> Option<&Hole> {
        let is_read_again = self.unproven.as_ref().is_some_and(|unproven| unproven.hole.is_some());
        self.record.hole_with(&target.publication.names()).filter(|_| !is_read_again)
    }
}

/// What a record says of its source.
pub(crate) fn origin(record: &FeedRecord) -> Origin {
    Origin {
        system_identifier: record.system_identifier.clone(),
        timeline: u32::try_from(record.line.timeline).unwrap_or(u32::MAX),
        began: record.line.began,
        server_run: record.line.server_run,
    }
}

/// Whether what the record says to be missing may be so in the life that the source lives now. Where that is another one the
/// feed is continued, and what is missing in that one too is found again.
pub(crate) fn may_have_hole(record: &FeedRecord, standing: &Standing) -> bool {
    match identity::judge(&origin(record), standing, record.position) {
        Ok(Continuity::Promoted { .. } | Continuity::WentBack { .. }) => false,
        // Which life a server lives that was started again is shown by its slot alone. Also when it is another server
        // altogether, which is said by others.
        Ok(Continuity::Unbroken | Continuity::Restarted) | Err(_) => true,
    }
}

fn line(origin: &Origin) -> Line {
    Line { timeline: origin.timeline.into(), began: origin.began, server_run: origin.server_run }
}

/// Continues the feed as what the source allows. Nobody may read its slot meanwhile.
///
/// # Errors
/// When source and feed have nothing to do with each other, or one of the servers fails.
pub(super) async fn settle(
    target: &Target,
    mut record: FeedRecord,
    again: Option<&Again>,
) -> Result<Settled, SetupError> {
    let mut history = Session::connect(&target.history, APPLICATION_NAME).await?;
    let why = again.and_then(|again| again.of(&record));
    if !record.is_whole(&history).await? {
        tracing::error!(
            last = record.last.map(tracing::field::display),
            position = %record.position,
            "rows of change_history are missing that were stored: they were deleted, or a partition was dropped by hand; \
             clients that lack any of them get cursor_too_old"
        );
        record.forget_past(&mut history).await?;
    }
    let settings = ReplicationSettings::default();
    let mut connection = ReplicationConnection::connect(&target.source, APPLICATION_NAME, &settings).await?;
    let standing = connection.standing().await?;
    let found = standing.origin();
    let continuity = identity::judge(&origin(&record), &standing, record.position)?;
    let mut unproven = None;
    match branch(target, &record, &standing, continuity, why).await? {
        Some(branch) => {
            if branch.reason == BranchReason::Restarted {
                let from = record.position.lsn();
                let hole = record.hole_with(&target.publication.names()).cloned();
                let hole = hole.filter(|hole| hole.complete_to >= from);
                unproven = Some(Unproven { from, line: line(&found), hole });
            }
            record = continued(&mut history, &record, branch).await?;
        }
        None if record.line != line(&found) => record.adopt(&history, line(&found)).await?,
        None => {}
    }
    let ancestors = FeedRecord::ancestors(&history).await?;
    let lineage =
        Lineage::new(ancestors.into_iter().map(|ancestor| (ancestor.feed, ancestor.valid_to.into())));
    Ok(Settled { record, origin: found, lineage, unproven })
}

/// Where the feed has to end, if it has to.
async fn branch(
    target: &Target,
    record: &FeedRecord,
    standing: &Standing,
    continuity: Continuity,
    why: Option<Why>,
) -> Result<Option<Branch>, SetupError> {
    let line = line(&standing.origin());
    let at = |at, reason| Branch { at, valid_to: at, line, reason };
    Ok(match (continuity, why) {
        (Continuity::Promoted { at: left }, _) => Some(at(left, BranchReason::Promoted)),
        (Continuity::WentBack { .. }, _) => {
            Some(at(acknowledged(target, record).await?, BranchReason::WentBack))
        }
        // Before that there is nothing in either life that is not in the other.
        (_, Some(Why::Differs { at: differs })) => Some(at(differs, BranchReason::Differs)),
        // The history is among the files that went back, and so was the server at least at its position.
        (Continuity::Restarted, Some(Why::History)) => {
            let valid_to = record.position.lsn();
            Some(Branch { at: Lsn::MAX, ..at(valid_to, BranchReason::WentBack) })
        }
        // Nothing was delivered that the server had not flushed before it was started. It stays recorded as the one that it was until it has
        // proven itself.
        (Continuity::Restarted, _) => {
            let line = Line { server_run: record.line.server_run, ..line };
            let flushed = standing.system.flushed;
            let valid_to = standing.run_began.map_or(flushed, |began| began.min(flushed));
            Some(Branch { at: Lsn::MAX, line, ..at(valid_to, BranchReason::Restarted) })
        }
        (Continuity::Unbroken, _) => None,
    })
}

/// Up to where the slot was acknowledged: files that have the slot have everything before that.
async fn acknowledged(target: &Target, record: &FeedRecord) -> Result<Lsn, SetupError> {
    let source = Session::connect(&target.source, APPLICATION_NAME).await?;
    let facts = slot::inspect(&source, &record.slot).await?;
    let missing =
        || walcast_replication::Error::SlotMissing { slot: record.slot.clone(), position: record.position };
    Ok(facts.and_then(|facts| facts.confirmed_flush).ok_or_else(missing)?)
}

async fn continued(
    history: &mut Session,
    record: &FeedRecord,
    branch: Branch,
) -> Result<FeedRecord, SetupError> {
    let (next, lost) = record.branch(history, branch).await?;
    let (before, after, valid_to, reason) = (&record.id, &next.id, branch.valid_to, branch.reason.as_str());
    metrics::counter!(ENDED_TOTAL, "reason" => reason).increment(1);
    metrics::counter!(LOST_CHANGES_TOTAL).increment(lost);
    if lost > 0 {
        tracing::error!(
            %before, %after, %valid_to, reason, lost,
            "the source has lost changes that were delivered: they are set aside in walcast.lost_change, and clients \
             that have any of them get feed_changed and sync again"
        );
    } else if branch.reason == BranchReason::Restarted {
        // As after every start of the machine: the cursors that clients have are good.
        tracing::info!(
            %before, %after, %valid_to, reason,
            "the source was started again while no walcast ran: the feed goes on as another one, in which cursors up to \
             here are good"
        );
    } else {
        tracing::warn!(
            %before, %after, %valid_to, reason,
            "the feed goes on as another one: cursors up to here are good in it, clients beyond get feed_changed"
        );
    }
    Ok(next)
}

/// The initial poll is done: whatever the server has committed since it was started shows where it stood then at the
/// latest. Then the server is the one that the feed is read from.
pub(super) async fn prove(
    history: &ConnectionConfig,
    mut record: FeedRecord,
    lineage: &Lineage,
    unproven: &Unproven,
) {
    let Some(server_run) = unproven.line.server_run else { return };
    loop {
        let proving = async {
            let session = Session::connect(history, APPLICATION_NAME).await?;
            if let Some(first) = FeedRecord::first_of_run(&session, unproven.from, server_run).await? {
                FeedRecord::narrow(&session, first).await?;
                lineage.narrow(first.into());
            }
            if let Some(hole) = &unproven.hole {
                record.forget_hole(&session, hole).await?;
            }
            // Last: what is left then counts for a server that has proven itself.
            record.adopt(&session, unproven.line).await?;
            Ok::<_, SetupError>(())
        };
        let Err(error) = proving.await else { return };
        let hint = error.hint(ServeError::COMMAND);
        tracing::warn!(%error, hint, "history does not say yet how far earlier cursors are good; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The replicator's way to the feed's record and history.
pub(super) struct HistoryKeeper {
    pub(super) history: ConnectionConfig,
    pub(super) record: FeedRecord,
    /// Recorded when the initial poll is done, and not before.
    pub(super) unproven: Option<Unproven>,
    pub(super) on_hole: OnHole,
    /// Told when the slot is had.
    pub(super) has_slot: watch::Sender<bool>,
    pub(super) ending: Ending,
}

impl Keeper for HistoryKeeper {
    fn adopt(&self, origin: Origin) -> BoxFuture<'static, Result<(), String>> {
        let line = line(&origin);
        let (history, mut record) = (self.history.clone(), self.record.clone());
        let is_later = self.unproven.as_ref().is_some_and(|unproven| unproven.line == line);
        async move {
            if is_later {
                return Ok(());
            }
            let session = Session::connect(&history, APPLICATION_NAME).await.map_err(|e| e.to_string())?;
            record.adopt(&session, line).await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn transactions(
        &self,
        from: Lsn,
        to: Lsn,
        count_max: u32,
    ) -> BoxFuture<'static, Result<StoredTransactions, String>> {
        let (history, record) = (self.history.clone(), self.record.clone());
        async move {
            let session = Session::connect(&history, APPLICATION_NAME).await.map_err(|e| e.to_string())?;
            let found = record.transactions(&session, from, to, count_max).await;
            let (transactions, oldest) = found.map_err(|error| error.to_string())?;
            Ok(StoredTransactions { transactions, oldest })
        }
        .boxed()
    }

    fn holds_slot(&self) {
        self.has_slot.send_replace(true);
    }

    fn keep_hole(&self, hole: LastingHole) -> BoxFuture<'static, Result<(), String>> {
        let (history, feed) = (self.history.clone(), self.ending.feed().clone());
        async move {
            let session = Session::connect(&history, APPLICATION_NAME).await.map_err(|e| e.to_string())?;
            let LastingHole { complete_to, publication, reason } = hole;
            let kept = feed.record.keep_hole(&session, feed.writer, complete_to, &publication, &reason).await;
            if kept.map_err(|error| error.to_string())? {
                return Ok(());
            }
            Err("history does not have the feed as this process's".to_owned())
        }
        .boxed()
    }

    fn tenure(&self) -> BoxFuture<'static, Result<Tenure, String>> {
        let (history, feed) = (self.history.clone(), self.ending.feed().clone());
        async move {
            let asking = async {
                let session = Session::connect(&history, APPLICATION_NAME).await?;
                // In this order: a setup that has ended meanwhile has left its record.
                if setup_lock::is_taken(&session).await? {
                    return Ok(Tenure::BeingSetUp);
                }
                // None at all is for the appender to find.
                let now = FeedRecord::load(&session, &feed.record.slot).await?;
                let is_own = now.is_none_or(|now| feed.is(&now));
                Ok::<_, SetupError>(if is_own { Tenure::Own } else { Tenure::Over })
            };
            asking.await.map_err(|error| error.to_string())
        }
        .boxed()
    }

    fn ended(&self, end: FeedEnd) {
        self.ending.source(end, self.on_hole);
    }
}

/// A shared keeper.
pub(super) fn shared(keeper: HistoryKeeper) -> Arc<dyn Keeper> {
    Arc::new(keeper)
}
