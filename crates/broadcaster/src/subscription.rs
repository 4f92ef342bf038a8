//! Drives one session: asks its questions, waits for what it waits for.

use std::future::{Future, pending};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use walcast_feed::Barriers;
use walcast_history::{ClientKey, ClientName, PageLimits};
use walcast_model::{Cursor, RelationName};
use walcast_policy::Rights;
use walcast_protocol::{Acked, ErrorCode, ServerMessage, StartAt, SubscriptionId, Waiting};
use walcast_snapshot::{SnapshotEvent, SnapshotTable};

use crate::acks::{Acks, Claim, Outcome};
use crate::catalog::Catalog;
use crate::encode::Frame;
use crate::metrics::{self as names, InGauge};
use crate::past::{InitialSync, PastPages, Unanswered, WantsTable};
use crate::refusal::Refusal;
use crate::request::{Request, has_control};
use crate::session::{Answer, Folded, Question, Session, Step, Wait, World};
use crate::turns::{Applicant, Ticket, Turns};
use crate::wanted::Wanted;

/// The pause before a question is asked again, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause before a question is asked again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The longest subject for which something is kept, in bytes: an index has to hold it.
const USER_BYTES_MAX: usize = 512;
/// Names of tables that are kept for people, in bytes; more are left out.
const NAMED_BYTES_MAX: usize = 200;

/// What sessions ask.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) past: Arc<dyn PastPages>,
    pub(crate) source: Arc<dyn InitialSync>,
    pub(crate) turns: Turns,
    /// Places for look-ups of rows by key.
    pub(crate) lookups: Turns,
    pub(crate) catalog: Catalog,
    pub(crate) barriers: Barriers,
    pub(crate) acks: Acks,
    /// Places for net effects in memory: `Limits::folds_max`.
    pub(crate) folds: Arc<Semaphore>,
    /// Where questions and initial syncs run: not in the connection's task, which is not looked at while its client
    /// does not read, and would hold a session of history or a snapshot of the source meanwhile.
    pub(crate) tasks: TaskTracker,
}

/// An initial sync that waits for a place or is under way: its events, and how it ends.
struct Syncing {
    /// Its place in the queue, and what was said of it.
    ticket: Ticket,
    told: Option<usize>,
    events: mpsc::Receiver<SnapshotEvent>,
    end: AbortOnDropHandle<Result<(), Unanswered>>,
}

/// What a client acknowledges, and what becomes of it.
struct Acknowledging {
    claim: Arc<Claim>,
    /// Comes with the next outcome.
    outcome: BoxFuture<'static, watch::Receiver<Outcome>>,
    /// What it acknowledged last since its session started.
    last: Cursor,
    /// Whether it begins where the client says, which counts for more than what was acknowledged before.
    corrects: bool,
    /// A name for what policies give the client.
    rights: Option<Arc<str>>,
}

/// A session and what it waits for.
pub(crate) struct Subscription {
    session: Session,
    /// What its client is to be told before anything else.
    first: Option<Waiting>,
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
        let tables = named(&request);
        let corrects = matches!(request.start, StartAt::At(_) | StartAt::Latest);
        let session = Session::new(request, rights, client.applicant.clone(), Arc::clone(world))?;
        let acknowledging = key.map(|key| {
            let claim = services.acks.claim(key, tables);
            let rights = session.rights().map(Arc::from);
            Acknowledging {
                outcome: next_outcome(claim.watch()),
                claim,
                last: Cursor::ZERO,
                corrects,
                rights,
            }
        });
        let barriers = services.barriers.clone();
        Ok(Self {
            session,
            acknowledging,
            first: None,
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
                acknowledging.last = Cursor::ZERO;
                acknowledging.corrects = false;
                acknowledging.rights = self.session.rights().map(Arc::from);
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
        let Some((first, last)) = self.session.storable() else {
            let refusal = Refusal::bad("there is no cursor yet that could be acknowledged");
            return Err(refusal.hint("acknowledge cursors that were sent since the last subscribed"));
        };
        let first = first.max(acknowledging.last);
        if cursor < first {
            let message =
                format!("the cursor {cursor} is before {first}: what was acknowledged does not go back");
            return Err(Refusal::bad(message).hint("to start over, subscribe at the cursor that is stored"));
        }
        if cursor > last {
            let message = format!("the cursor {cursor} is ahead of {last}, the last that was sent");
            return Err(
                Refusal::bad(message).hint("acknowledge cursors as they were sent, once they are stored")
            );
        }
        acknowledging.claim.acknowledge(cursor, acknowledging.rights.clone())?;
        (acknowledging.last, acknowledging.corrects) = (cursor, false);
        Ok(())
    }

    /// Once it has begun where its client says that it is.
    fn correct(&mut self) {
        let Some(acknowledging) = self.acknowledging.as_mut().filter(|acknowledging| acknowledging.corrects)
        else {
            return;
        };
        if let Some((first, _)) = self.session.storable()
            // Tried again with the next step when too much waits; when the name is somebody else's it is over.
            && acknowledging.claim.correct(first).map_or_else(|refusal| refusal.code != ErrorCode::NotReady, |()| true)
        {
            acknowledging.corrects = false;
        }
    }

    /// What became of what the client acknowledged, unless it was told. Whoever asks is woken when there is more.
    fn poll_acked(&mut self, cx: &mut Context<'_>) -> Poll<ServerMessage> {
        let Some(acknowledging) = &mut self.acknowledging else { return Poll::Pending };
        loop {
            let mut receiver = ready!(acknowledging.outcome.poll_unpin(cx));
            let is_somebody_elses = receiver.has_changed().is_err();
            let outcome = receiver.borrow_and_update().clone();
            acknowledging.outcome = next_outcome(receiver);
            match outcome {
                _ if is_somebody_elses => {}
                Outcome::Durable(cursor) if cursor > Cursor::ZERO => {
                    return Poll::Ready(Acked { id: self.session.id().clone(), cursor }.into());
                }
                Outcome::Nothing | Outcome::Durable(_) => {}
                Outcome::Refused(refusal) => {
                    metrics::counter!(names::ERRORS, "code" => refusal.code.to_string()).increment(1);
                    return Poll::Ready(refusal.into_message(None, false).into());
                }
            }
        }
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
            if let Poll::Ready(message) = self.poll_acked(cx) {
                return Poll::Ready(Some(message.into()));
            }
            let step = self.session.next();
            self.correct();
            match step {
                Step::Frame(frame) => return Poll::Ready(Some(frame)),
                Step::Ask(question) => self.ask(question),
                Step::Wait(wait) => ready!(self.poll_wait(wait, cx)),
                Step::Over => return Poll::Ready(None),
            }
        }
    }

    fn ask(&mut self, question: Question) {
        if let Question::Sync(tables) = question {
            self.syncing = Some(self.start_sync(tables));
            self.first = self.waiting();
            return;
        }
        let (services, world) = (Arc::clone(&self.services), Arc::clone(&self.world));
        let shape = Arc::clone(self.session.shape().key());
        let claim = self.acknowledging.as_ref().map(|acknowledging| Arc::clone(&acknowledging.claim));
        let answer = async move {
            match question {
                Question::Acked => match claim {
                    Some(claim) => Answer::Acked(insist(|| claim.position()).await),
                    None => Answer::Acked(Ok(None)),
                },
                Question::Tables { now: true } => {
                    // An initial sync follows, at whose beginning the client discards what it has acknowledged.
                    if let Some(claim) = claim
                        && let Err(refusal) = insist(|| claim.forget()).await
                    {
                        return Answer::Tables(Err(refusal));
                    }
                    Answer::Tables(insist(|| services.catalog.now()).await)
                }
                // Asked once: a source that is away keeps nobody from history.
                Question::Tables { now: false } => {
                    let tables = services.catalog.for_shape(&shape).await;
                    Answer::Tables(tables.map_err(|_| Refusal::bad("the published tables are not known now")))
                }
                Question::Oldest => Answer::Oldest(insist(|| services.past.oldest()).await),
                Question::Page { from, to } => {
                    let limits = page_limits(&world);
                    Answer::Page(insist(|| services.past.page(from, to, limits)).await)
                }
                Question::Latest { from, to } => {
                    let limits = page_limits(&world);
                    let fold_bytes_max = world.limits.fold_bytes_max;
                    // Never closed.
                    let place = Arc::clone(&services.folds).acquire_owned().await.ok();
                    let wants = || -> WantsTable {
                        let wanted = Wanted::new(Arc::clone(&shape));
                        Box::new(move |name| wanted.of(name).is_some())
                    };
                    let page =
                        insist(|| services.past.latest(from, to, limits, fold_bytes_max, wants())).await;
                    Answer::Latest(page.map(|page| Folded { page, place }))
                }
                Question::FirstInvisible { snapshot, before } => {
                    let first = insist(|| services.past.first_invisible(&snapshot, before)).await;
                    Answer::FirstInvisible(first)
                }
                Question::Schemas { tables, freshness, insist: true } => {
                    let schemas = insist(|| services.catalog.schemas(&tables, freshness)).await;
                    Answer::Schemas(schemas)
                }
                Question::Schemas { tables, freshness, insist: false } => {
                    let schemas = services.catalog.schemas(&tables, freshness).await;
                    Answer::Schemas(schemas.map_err(|_| Refusal::bad("the tables are not known now")))
                }
                Question::Schema { relation, freshness } => {
                    let schema = insist(|| services.catalog.schema_of(&relation, freshness)).await;
                    Answer::Schema(schema)
                }
                Question::Sync(_) => Answer::Sync(Err(Refusal::bad("asked elsewhere"))),
            }
        };
        self.question = Some(AbortOnDropHandle::new(self.services.tasks.spawn(answer)));
    }

    fn start_sync(&self, tables: Vec<RelationName>) -> Syncing {
        // One chunk waits here while one is being written.
        let (sender, events) = mpsc::channel(1);
        let source = Arc::clone(&self.services.source);
        let wanted = self.session.shape().wanted();
        let with_rows = |name: RelationName| {
            let rows = wanted.of(&name).and_then(|selection| selection.rows());
            SnapshotTable { rows, ..SnapshotTable::from(name) }
        };
        let tables: Vec<SnapshotTable> = tables.into_iter().map(with_rows).collect();
        let mut turn = self.services.turns.queue(self.session.applicant().clone());
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
        Syncing { ticket, told: None, events, end: AbortOnDropHandle::new(self.services.tasks.spawn(run)) }
    }

    /// Where its initial sync is in the queue, unless that was told already.
    pub(crate) fn waiting(&mut self) -> Option<Waiting> {
        let snapshots_max = self.world.limits.snapshots_max;
        let syncing = self.syncing.as_mut()?;
        let position = syncing.ticket.position().filter(|position| syncing.told != Some(*position))?;
        syncing.told = Some(position);
        Some(Waiting {
            id: self.session.id().clone(),
            message: Some(format!(
                "initial syncs are served in turn, {snapshots_max} at a time (snapshots_max)"
            )),
            position: u32::try_from(position).ok(),
        })
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
            && let Poll::Ready(event) = syncing.poll_event(cx)
        {
            if matches!(event, Ok(SnapshotEvent::Done { .. }) | Err(_))
                && let Some(syncing) = self.syncing.take()
            {
                // It has said all and is about to end.
                drop(syncing.end.detach());
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

impl Syncing {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<SnapshotEvent, Refusal>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            return Poll::Ready(Ok(event));
        }
        // It ended without its last event.
        Poll::Ready(match ready!(self.end.poll_unpin(cx)) {
            Ok(Err(Unanswered::Never(refusal))) => Err(refusal),
            Ok(Err(Unanswered::Later(reason))) => {
                tracing::debug!(reason, "an initial sync cannot be had now");
                Err(Refusal::of_inside(ErrorCode::NotReady, reason).hint("ask again after a while"))
            }
            Ok(Ok(())) | Err(_) => Err(crashed()),
        })
    }
}

/// Who subscribes.
pub(crate) struct Client<'a> {
    /// In whose line its initial syncs stand.
    pub(crate) applicant: Applicant,
    /// Of whom what it acknowledges is; empty where nobody asks who clients are, `None` where that is not known.
    pub(crate) user: Option<&'a str>,
}

impl Client<'_> {
    /// Under which name it acknowledges; `None` for one who does not.
    fn key(&self, request: &mut Request) -> Result<Option<ClientKey>, Refusal> {
        let Some(client_id) = request.client_id.take() else { return Ok(None) };
        let Some(user) = self.user.filter(|user| user.len() <= USER_BYTES_MAX && !has_control(user)) else {
            if request.start != StartAt::Acked {
                return Ok(None);
            }
            let message = "nothing is kept for a client without a user: others could use the same client_id";
            let refusal = Refusal::new(ErrorCode::Forbidden, message);
            return Err(refusal.hint("send a token with a subject (sub)"));
        };
        let name = ClientName { user: user.to_owned(), client_id: client_id.into_string() };
        Ok(Some(ClientKey { name, subscription: request.id.as_str().to_owned() }))
    }
}

/// What a request is over, for people.
fn named(request: &Request) -> String {
    let mut text = String::new();
    for pattern in request.tables.keys() {
        if text.len() > NAMED_BYTES_MAX {
            text.push_str(" …");
            break;
        }
        // Names of tables may hold anything.
        let name = pattern.to_string().replace(char::is_control, "?");
        text.push_str(if text.is_empty() { "" } else { ", " });
        text.push_str(&name);
    }
    text
}

/// Owns its receiver, so that the place where it waits is kept between two looks.
fn next_outcome(mut outcome: watch::Receiver<Outcome>) -> BoxFuture<'static, watch::Receiver<Outcome>> {
    async move {
        match outcome.changed().await {
            Ok(()) => outcome,
            // It is somebody else's, and nothing comes any more.
            Err(_) => pending().await,
        }
    }
    .boxed()
}

fn page_limits(world: &World) -> PageLimits {
    PageLimits {
        bytes_max: world.limits.page_bytes_max,
        changes_max: world.limits.page_changes_max,
        ..PageLimits::default()
    }
}

pub(crate) fn crashed() -> Refusal {
    let refusal = Refusal::new(ErrorCode::Internal, "the daemon failed to answer a question of its own");
    refusal.hint("ask again; the daemon's log has the cause")
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

/// Asks until there is an answer: a failure that passes by itself is waited out.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Unanswered>>,
{
    let mut pause = RETRY_MIN;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered::Never(refusal)) => return Err(refusal),
            Err(Unanswered::Later(reason)) => {
                tracing::debug!(reason, ?pause, "a session's question is asked again");
                metrics::counter!(names::RETRIED).increment(1);
            }
        }
        // Jitter, so that those who lost the same server do not return together.
        sleep(pause.mul_f64(rand::random_range(0.5..=1.0))).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}
