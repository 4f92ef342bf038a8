//! Why a running daemon sets its feed up anew, and for how long that is true.
//!
//! ```text
//!   replicator: FeedEnd ─┐
//!                        ├─► Ending ─► Again ── somebody may have the feed for weeks ──► does it still hold? ─► setup
//!   appender: Error ─────┘
//! ```

use tokio::sync::watch;
use walcast_history::FeedRecord;
use walcast_model::Lsn;
use walcast_replication::FeedEnd;

use crate::settings::OnHole;

/// What a daemon has found out about its feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Nothing that servers and record do not say to whoever reads them again.
    Changed,
    /// Changes are missing, or may be.
    Hole,
    /// The source sends other transactions than it sent before.
    Differs {
        /// From here on.
        at: Lsn,
    },
    /// The history stands before where this process had brought it, or has another feed.
    History,
}

/// A feed as this process knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// As this process has read it.
    pub(super) record: FeedRecord,
    /// By which this process claims it.
    pub(super) writer: i64,
}

impl Known {
    /// Whether it is what is recorded now, and nobody else has claimed it since.
    pub(super) fn is(&self, now: &FeedRecord) -> bool {
        let is_unclaimed = now.writer == self.record.writer && now.position == self.record.position;
        now.id == self.record.id && (now.writer == self.writer || is_unclaimed)
    }
}

/// Why a daemon sets its feed up anew, and of which feed that is true.
#[derive(Clone, Debug)]
pub(super) struct Again {
    why: Why,
    feed: Known,
}

impl Again {
    /// What is still true of the feed as it is recorded now. Whoever had it since has found out for himself how it goes
    /// on, and went on so; after that, what this process knew of it would undo that. What is true all the same is found
    /// again.
    pub(super) fn of(&self, now: &FeedRecord) -> Option<Why> {
        match self.why {
            // Of a history that went back the record went back too. It undoes nothing: fewer earlier cursors are good.
            Why::History => Some(Why::History),
            why => self.feed.is(now).then_some(why),
        }
    }
}

/// Tells whoever runs the daemon that its feed cannot go on as it is. What is told first counts.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    feed: Known,
    again: watch::Sender<Option<Again>>,
}

impl Ending {
    /// Of the feed that was read as `record` and is claimed as `writer`.
    pub(super) fn new(record: FeedRecord, writer: i64) -> (Self, watch::Receiver<Option<Again>>) {
        let (again, told) = watch::channel(None);
        (Self { feed: Known { record, writer }, again }, told)
    }

    /// The feed.
    pub(super) const fn feed(&self) -> &Known {
        &self.feed
    }

    /// What the replicator says. A hole is left to a person where that is asked for.
    pub(super) fn source(&self, end: FeedEnd, on_hole: OnHole) {
        let why = match end {
            FeedEnd::Hole if on_hole == OnHole::Stop => return,
            FeedEnd::Hole => Why::Hole,
            FeedEnd::Differs { at } => Why::Differs { at },
            FeedEnd::Branched | FeedEnd::Overtaken => Why::Changed,
        };
        if end == FeedEnd::Overtaken {
            tracing::info!("another walcast has the slot, or had it; the feed's record is read again");
        } else {
            tracing::warn!(?end, "the feed is set up anew");
        }
        self.tell(why);
    }

    /// What ended the appender. Whether the feed goes on when it is set up anew.
    pub(super) fn history(&self, error: &walcast_history::Error) -> bool {
        use walcast_history::Error;
        let why = match error {
            Error::WentBack { .. } | Error::FeedGone { .. } => Why::History,
            Error::MovedOn { .. } | Error::Missing { .. } => Why::Changed,
            _ => return false,
        };
        tracing::warn!(%error, "the feed is set up anew");
        self.tell(why);
        true
    }

    fn tell(&self, why: Why) {
        self.again.send_if_modified(|again| {
            let is_first = again.is_none();
            again.get_or_insert_with(|| Again { why, feed: self.feed.clone() });
            is_first
        });
    }
}
