//! An initial sync that waits for a place or is under way.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use walcast_feed::Outages;
use walcast_model::RelationName;
use walcast_protocol::{SubscriptionId, Waiting};
use walcast_snapshot::{SnapshotEvent, SnapshotTable};

use super::Services;
use super::questions::crashed;
use crate::hindrance;
use crate::metrics::{self as names, InGauge};
use crate::past::Unanswered;
use crate::refusal::Refusal;
use crate::session::Session;
use crate::turns::Ticket;

pub(super) struct Syncing {
    /// Its place in the queue, and what was said of it.
    ticket: Ticket,
    told: Option<usize>,
    events: mpsc::Receiver<SnapshotEvent>,
    end: AbortOnDropHandle<Result<(), Unanswered>>,
}

impl Syncing {
    pub(super) fn start(session: &Session, services: &Services, tables: Vec<RelationName>) -> Self {
        // One chunk waits here while one is being written.
        let (sender, events) = mpsc::channel(1);
        let source = Arc::clone(&services.source);
        let wanted = session.shape().wanted();
        let with_rows = |name: RelationName| {
            let rows = wanted.of(&name).and_then(|selection| selection.rows());
            SnapshotTable { rows, ..SnapshotTable::from(name) }
        };
        let tables: Vec<SnapshotTable> = tables.into_iter().map(with_rows).collect();
        let mut turn = services.turns.queue(session.applicant().clone());
        let ticket = turn.ticket();
        let run = async move {
            let place = {
                let _waiting = InGauge::enter(names::SNAPSHOTS_WAITING);
                turn.come().await
            };
            let ended = source.run(tables, sender).await;
            drop(place);
            ended
        };
        Self { ticket, told: None, events, end: AbortOnDropHandle::new(services.tasks.spawn(run)) }
    }

    /// Where it is in the queue, unless that was told already. `snapshots_max` are served at a time.
    pub(super) fn waiting(&mut self, id: &SubscriptionId, snapshots_max: usize) -> Option<Waiting> {
        let position = self.ticket.position().filter(|position| self.told != Some(*position))?;
        self.told = Some(position);
        Some(Waiting {
            id: id.clone(),
            message: Some(format!(
                "initial syncs are served in turn, {snapshots_max} at a time (snapshots_max)"
            )),
            position: u32::try_from(position).ok(),
        })
    }

    /// What comes next. After [`SnapshotEvent::Done`] or an error it is to be asked no more.
    pub(super) fn poll_event(
        &mut self,
        outages: &Outages,
        cx: &mut Context<'_>,
    ) -> Poll<Result<SnapshotEvent, Refusal>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            return Poll::Ready(Ok(event));
        }
        // It ended without its last event.
        Poll::Ready(match ready!(self.end.poll_unpin(cx)) {
            Ok(Err(Unanswered::Never(refusal))) => Err(refusal),
            Ok(Err(Unanswered::Later(away))) => {
                tracing::debug!(?away, "an initial sync cannot be had now");
                Err(hindrance::away(away, outages))
            }
            Ok(Ok(())) | Err(_) => Err(crashed()),
        })
    }

    /// It has said all and is about to end: lets it.
    pub(super) fn detach(self) {
        drop(self.end.detach());
    }
}
