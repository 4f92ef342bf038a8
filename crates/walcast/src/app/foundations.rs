//! What the feed stands on, waited for.

use std::collections::HashSet;
use std::time::Duration;

use walcast_feed::Backoff;
use walcast_history::FeedRecord;
use walcast_postgres::ErrorClass;

use super::ServeError;
use super::again::{Again, Why};
use super::identity::{self, Settled};
use crate::commands::setup::{Note, SetupError, StartOver, Target, prepare, require_free_slot};
use crate::settings::{OnHole, ServeSettings};

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause between two tries to set up.
const SETUP_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The longest pause between two looks whether the slot is free: a part of how long a take-over takes.
const STANDBY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Retries what may pass by itself for ever; a mistake in the configuration is for a person.
pub(super) async fn until_set_up(
    settings: &ServeSettings,
    target: &Target,
    again: Option<&Again>,
) -> Result<Settled, SetupError> {
    let (mut setup, mut standby) =
        (Backoff::new(PAUSE_MIN, SETUP_PAUSE_MAX), Backoff::new(PAUSE_MIN, STANDBY_PAUSE_MAX));
    // A feed whose record has a hole.
    let mut incomplete: Option<FeedRecord> = None;
    // Who has the slot is said once: a spare waits for days.
    let mut said = String::new();
    // What each try finds again too, and what is said by who looks after the publications.
    let mut noted = HashSet::new();
    let mut note = |note: Note| {
        if !note.is_standing && noted.insert(note.clone()) {
            log_note(note);
        }
    };
    loop {
        let has_hole = |feed: &FeedRecord| {
            let is_recorded = |found: &FeedRecord| found.id == feed.id && found.hole == feed.hole;
            again.and_then(|again| again.of(feed)) == Some(Why::Hole)
                || incomplete.as_ref().is_some_and(is_recorded)
        };
        let start_over = match settings.on_hole {
            OnHole::Stop => StartOver::Unread,
            OnHole::StartOver => StartOver::OnHole(&has_hole),
        };
        let prepared = async {
            require_free_slot(target).await?;
            let record = prepare(target, start_over, &mut note).await?;
            identity::settle(target, record, again).await
        };
        let error = match prepared.await {
            Ok(settled) => {
                let Some(hole) = settled.hole(target) else { return Ok(settled) };
                let error = SetupError::Hole(hole.clone());
                if settings.on_hole == OnHole::Stop {
                    return Err(error);
                }
                tracing::error!(%error, "changes are missing, or may be");
                incomplete = Some(settled.record);
                continue;
            }
            Err(error) if error.class() == ErrorClass::Transient || is_overtaken(&error) => error,
            Err(error) => return Err(error),
        };
        let pause = if error.is_slot_in_use() { standby.wait() } else { setup.wait() };
        let text = error.to_string();
        if error.is_slot_in_use() && said == text {
            tracing::debug!(%error, "still not set up; trying again in {pause:.1?}");
        } else {
            let hint = error.hint(ServeError::COMMAND);
            tracing::warn!(%error, hint, "not set up yet; trying again in {pause:.1?}");
        }
        said = text;
        tokio::time::sleep(pause).await;
    }
}

/// Another daemon that starts at the same time has continued the feed under another id.
const fn is_overtaken(error: &SetupError) -> bool {
    matches!(error, SetupError::History(walcast_history::Error::FeedGone { .. }))
}

fn log_note(note: Note) {
    match note.fix {
        Some(fix) => tracing::warn!(subject = note.subject, fix, "{}", note.message),
        None => tracing::info!(subject = note.subject, "{}", note.message),
    }
}
