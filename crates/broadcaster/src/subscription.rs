//! Drives one session: asks its questions, waits for what it waits for.

mod acknowledging;
mod client;
mod questions;
mod syncing;

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use walcast_feed::Barriers;
use walcast_model::{Cursor, RelationName};
use walcast_policy::Rights;
use walcast_protocol::{ServerMessage, SubscriptionId, Waiting};
use walcast_snapshot::SnapshotEvent;

use crate::acks::Acks;
use crate::catalog::Catalog;
use crate::encode::Frame;
use crate::metrics::{self as names, InGauge};
use crate::past::{InitialSync, PastPages};
use crate::reach::Reach;
use crate::reading::NOT_READ;
use crate::refusal::Refusal;
use crate::request::Request;
use crate::session::{Answer, Question, Session, Step, Wait, World};
use crate::turns::Turns;
use acknowledging::Acknowledging;
pub(crate) use client::Client;
pub(crate) use questions::crashed;
use syncing::Syncing;

/// What sessions ask.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) past: Arc<dyn PastPages>,
    pub(crate) source: Arc<dyn InitialSync>,
    pub(crate) turns: Turns,
    /// Places for look-ups of rows by key.
    pub(crate) lookups: Turns,
    pub(crate) catalog: Catalog,
    pub(crate) reach: Reach,
    pub(crate) barriers: Barriers,
    pub(crate) acks: Acks,
    /// Places for net effects in memory: `Limits::folds_max`.
    pub(crate) folds: Arc<Semaphore>,
    /// Where questions and initial syncs run: not in the connection's task, which is not looked at while its client
    /// does not read, and would hold a session of history or a snapshot of the source meanwhile.
    pub(crate) tasks: TaskTracker,
}

/// A session and what it waits for.
pub(crate) struct Subscription {
    session: Session,
    /// What its client is to be told before anything else.
    first: Option<Waiting>,
    /// It was told that it waits for history.
    away_told: bool,
    world: Arc<World>,
    services: Arc<Services>,
    wait: Option<Wait>,
    /// What it waits for, where that is not its shape.
    waited: Option<BoxFuture<'static, ()>>,
    question: Option<AbortOnDropHandle<Answer>>,
    barrier: Option<BoxFuture<'static, Option<Cursor>>>,
    syncing: Option<Syncing>,
    acknowledging: Option<Acknowledging>,
    _counted: InGauge,
}

impl Subscription {
    /// A subscription that was just asked for: its barrier counts from now.
    ///
    /// # Errors
    /// When it is refused at once.
    pub(crate) fn new(
        mut request: Request,
        rights: &Arc<Rights>,
        client: &Client<'_>,
        world: &Arc<World>,
        services: &Arc<Services>,
    ) -> Result<Self, Refusal> {
        let key = client.key(&mut request)?;
        let (tables, start) = (client::named(&request), request.start);
        let session = Session::new(request, rights, client.applicant.clone(), Arc::clone(world))?;
        let acknowledging = key.map(|key| {
            Acknowledging::new(services.acks.claim(key, tables), start, session.rights().as_deref())
        });
        let barriers = services.barriers.clone();
        Ok(Self {
            session,
            acknowledging,
            first: None,
            away_told: false,
            world: Arc::clone(world),
            services: Arc::clone(services),
            wait: None,
            waited: None,
            question: None,
            barrier: Some(Box::pin(async move { barriers.pass().await })),
            syncing: None,
            _counted: InGauge::enter(names::SUBSCRIPTIONS),
        })
    }

    pub(crate) const fn id(&self) -> &SubscriptionId {
        self.session.id()
    }

    pub(crate) const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The client has other rights from now on: a subscription that they make another one starts over, one that they
    /// forbid ends.
    pub(crate) fn change_rights(&mut self, rights: &Arc<Rights>) {
        if self.session.change_rights(rights) {
            // What it asked is dropped, and what it waited for is another thing now.
            (self.question, self.syncing, self.wait, self.waited) = (None, None, None, None);
            if let Some(acknowledging) = &mut self.acknowledging {
                acknowledging.start_over(self.session.rights().as_deref());
            }
        }
    }

    /// The client says what it has stored.
    ///
    /// # Errors
    /// When it cannot have stored that, and when it has no name under which that could be kept.
    pub(crate) fn acknowledge(&mut self, cursor: Cursor) -> Result<(), Refusal> {
        let Some(acknowledging) = &mut self.acknowledging else {
            let refusal = Refusal::bad("the subscription has no client_id, so nothing is kept for it");
            return Err(refusal.hint("subscribe with a client_id, and with a token that has a subject (sub)"));
        };
        acknowledging.acknowledge(cursor, self.session.storable())
    }

    /// Lets go of what was read for a client that does not read, also of a page that is not even taken yet.
    pub(crate) fn let_go(&mut self) {
        if self.session.let_go() {
            self.question = None;
        }
    }

    /// The next frame; `None` when it is over. Whoever asks is woken when there may be one.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        loop {
            if let Some(waiting) = self.first.take() {
                return Poll::Ready(Some(ServerMessage::from(waiting).into()));
            }
            if let Some(acknowledging) = &mut self.acknowledging
                && let Poll::Ready(message) = acknowledging.poll_outcome(self.session.id(), cx)
            {
                return Poll::Ready(Some(message.into()));
            }
            let step = self.session.next();
            if let Some(acknowledging) = &mut self.acknowledging {
                acknowledging.correct(|| self.session.storable());
            }
            match step {
                Step::Frame(frame) => return Poll::Ready(Some(frame)),
                Step::Ask(question) => self.ask(question),
                Step::Sync(tables) => self.sync(tables),
                Step::Wait(wait) => ready!(self.poll_wait(wait, cx)),
                Step::Over => return Poll::Ready(None),
            }
        }
    }

    fn ask(&mut self, question: Question) {
        let claim = self.acknowledging.as_ref().map(|acknowledging| Arc::clone(acknowledging.claim()));
        let shape = self.session.shape().shape();
        let (services, world) = (Arc::clone(&self.services), Arc::clone(&self.world));
        let answer = questions::answer(question, claim, shape, services, world);
        self.question = Some(AbortOnDropHandle::new(self.services.tasks.spawn(answer)));
    }

    fn sync(&mut self, tables: Vec<RelationName>) {
        self.syncing = Some(Syncing::start(&self.session, &self.services, tables));
        self.first = self.waiting();
    }

    /// What it waits for, unless that was told already: its place in the queue for an initial sync, or history.
    pub(crate) fn waiting(&mut self) -> Option<Waiting> {
        if let Some(syncing) = &mut self.syncing {
            return syncing.waiting(self.session.id(), self.world.limits.snapshots_max);
        }
        let lasts = self.question.as_ref().and_then(|_| self.world.feed.outages().of(NOT_READ));
        let was_told = std::mem::replace(&mut self.away_told, lasts.is_some());
        let (lasts, _) = lasts.filter(|_| !was_told)?;
        let message =
            format!("{NOT_READ}, for {} s now; this goes on by itself once it is again", lasts.as_secs());
        Some(Waiting { id: self.session.id().clone(), message: Some(message), position: None })
    }

    /// Until the session may have something. What it waits for keeps its place between two calls.
    fn poll_wait(&mut self, wait: Wait, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(question) = &mut self.question
            && let Poll::Ready(answer) = question.poll_unpin(cx)
        {
            self.question = None;
            match answer {
                Ok(answer) => self.session.answer(answer),
                Err(_) => self.session.answer(Answer::Oldest(Err(crashed()))),
            }
            return Poll::Ready(());
        }
        if let Some(barrier) = &mut self.barrier
            && let Poll::Ready(position) = barrier.poll_unpin(cx)
        {
            self.barrier = None;
            // `None`: the daemon goes down, and no barrier will ever pass.
            if let Some(position) = position {
                self.session.barrier(position);
            }
            return Poll::Ready(());
        }
        if let Some(syncing) = &mut self.syncing
            && let Poll::Ready(event) = syncing.poll_event(self.world.feed.outages(), cx)
        {
            if matches!(event, Ok(SnapshotEvent::Done { .. }) | Err(_))
                && let Some(syncing) = self.syncing.take()
            {
                syncing.detach();
            }
            self.session.answer(Answer::Sync(event));
            return Poll::Ready(());
        }
        if let Wait::Shape(cursor) = wait {
            return self.session.shape().poll_concerned(cursor, cx);
        }
        if self.wait != Some(wait) {
            (self.wait, self.waited) = (Some(wait), waited(wait, &self.world));
        }
        let Some(waited) = &mut self.waited else { return Poll::Pending };
        ready!(waited.poll_unpin(cx));
        (self.wait, self.waited) = (None, None);
        Poll::Ready(())
    }
}

/// What a session waits for, where that is neither its shape nor an answer.
fn waited(wait: Wait, world: &Arc<World>) -> Option<BoxFuture<'static, ()>> {
    let world = Arc::clone(world);
    // The senders live as long as the world, so none of these fails.
    Some(match wait {
        Wait::Answer | Wait::Sync | Wait::Shape(_) => return None,
        Wait::Gate => async move { world.gate.opened().await }.boxed(),
        Wait::Head(cursor) => {
            async move { drop(world.feed.watch_head().wait_for(|head| *head >= cursor).await) }.boxed()
        }
        Wait::Seen(cursor) => {
            async move { drop(world.router.watch_seen().wait_for(|seen| *seen > cursor).await) }.boxed()
        }
    })
}
