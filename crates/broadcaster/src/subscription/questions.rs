//! The questions of a session, and who is asked.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use walcast_feed::Backoff;
use walcast_history::PageLimits;
use walcast_protocol::ErrorCode;

use super::Services;
use crate::acks::Claim;
use crate::metrics as names;
use crate::past::{Unanswered, WantsTable};
use crate::refusal::Refusal;
use crate::session::{Answer, Folded, Question, World};
use crate::shape::Shape;
use crate::wanted::Wanted;

/// The first pause before a question is asked again.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// The longest pause before a question is asked again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Asks until there is an answer.
pub(super) async fn answer(
    question: Question,
    claim: Option<Arc<Claim>>,
    shape: Arc<Shape>,
    services: Arc<Services>,
    world: Arc<World>,
) -> Answer {
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
            let tables = services.catalog.for_shape(shape.key()).await;
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
                let wanted = Wanted::new(Arc::clone(shape.key()));
                Box::new(move |name| wanted.of(name).is_some())
            };
            let page = insist(|| services.past.latest(from, to, limits, fold_bytes_max, wants())).await;
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
        Question::Reach { from } => {
            let first = || services.reach.first(shape.wanted(), from, &world.feed, &services.catalog);
            Answer::Reach(insist(first).await)
        }
    }
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

/// Asks until there is an answer: a failure that passes by itself is waited out.
async fn insist<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Unanswered>>,
{
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        let away = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered::Never(refusal)) => return Err(refusal),
            Err(Unanswered::Later(away)) => away,
        };
        let pause = backoff.wait();
        tracing::debug!(?away, ?pause, "a session's question is asked again");
        metrics::counter!(names::RETRIED).increment(1);
        sleep(pause).await;
    }
}
