//! Keeps the publications as they should be while walcast runs.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walcast_feed::{Outage, Outages};
use walcast_model::RelationName;
use walcast_postgres::{ConnectionConfig, Session};

use super::PublicationSettings;
use super::apply::{Applied, apply};
use super::facts::Facts;
use super::plan::{Action, Finding, Placement, Plan, PlanStep, TableStep};
use super::published::{News, Published, has_old_rows};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::metrics::{
    PICKED_UP_ROWS_TOTAL, PICKUPS_WITHOUT_ROWS_TOTAL, PUBLICATION_CHANGES_TOTAL, PUBLICATION_FINDINGS,
    PUBLICATION_RETRIES_TOTAL,
};

/// Looks for tables every `discover_interval`, and brings each to its place.
///
/// A table that is created is in the feed within this interval, with the rows it has by then; one that loses its key
/// is published for inserts only within it (until then its UPDATE and DELETE fail); a forgotten open writer delays its
/// own table and no other.
pub struct Reconciler {
    config: ConnectionConfig,
    settings: PublicationSettings,
    /// The feed's secret.
    secret: String,
    findings: watch::Sender<Vec<Finding>>,
    /// Since when they are known.
    found_at: HashMap<Finding, Instant>,
    /// Steps that failed, by their subject.
    delayed: HashMap<String, Delay>,
    /// What was published when it last looked, or that it has published since; `None` at first.
    published: Option<Published>,
    outage: Outage,
}

/// What is told while it cannot look.
const EFFECT: &str = "the publications are not looked after";

#[derive(Debug)]
struct Delay {
    since: Instant,
    next: Instant,
    interval: Duration,
}

// The secret stays out.
impl fmt::Debug for Reconciler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconciler").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Reconciler {
    /// For the feed with this secret.
    #[must_use]
    pub fn new(config: ConnectionConfig, settings: PublicationSettings, secret: String) -> Self {
        Self {
            config,
            settings,
            secret,
            findings: watch::Sender::new(Vec::new()),
            found_at: HashMap::new(),
            delayed: HashMap::new(),
            published: None,
            outage: Outages::default().part(EFFECT),
        }
    }

    /// Tells there when it cannot do its work.
    #[must_use]
    pub fn telling(mut self, outages: &Outages) -> Self {
        self.outage = outages.part(EFFECT);
        self
    }

    /// Sees what the last look found.
    #[must_use]
    pub fn findings(&self) -> watch::Receiver<Vec<Finding>> {
        self.findings.subscribe()
    }

    /// Runs until cancelled. Failures are logged and tried again.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                // Dropped in mid-transaction it takes its session along, which rolls back.
                ended = self.session(&mut backoff) => ended,
            };
            let Err(error) = ended;
            let wait = backoff.after(error.is_shutting_down());
            let hint = error.hint();
            tracing::warn!(%error, hint, "cannot look after the publications; trying again in {wait:.1?}");
            self.outage.begin(error.to_string(), hint);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn session(&mut self, backoff: &mut Backoff) -> Result<std::convert::Infallible, Error> {
        let session = Session::connect(&self.config, "walcast publications").await?;
        loop {
            self.look(&session).await?;
            backoff.reset();
            if let Some(away) = self.outage.end() {
                tracing::info!("the publications are looked after again, after {away:.1?}");
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.discover_interval) => {}
                _ = session.closed() => return Err(walcast_postgres::Error::Closed.into()),
            }
        }
    }

    /// Looks once, and takes the steps that are due.
    ///
    /// # Errors
    /// When the session fails. A step that fails is tried again, later each time.
    pub async fn look(&mut self, session: &Session) -> Result<(), Error> {
        let facts = Facts::read(session).await?;
        if facts.standby {
            return Err(Error::Standby);
        }
        let plan = Plan::new(&facts, &self.settings);
        self.report(&plan);
        self.see_published(session, &facts).await?;
        let subjects: HashSet<String> = plan.steps.iter().map(|step| subject(&step.action)).collect();
        self.delayed.retain(|subject, _| subjects.contains(subject));
        for step in plan.steps.iter().filter(|step| step.allowed) {
            self.take(session, step).await?;
        }
        Ok(())
    }

    async fn take(&mut self, session: &Session, step: &PlanStep) -> Result<(), Error> {
        let subject = subject(&step.action);
        if self.delayed.get(&subject).is_some_and(|delay| delay.next > Instant::now()) {
            return Ok(());
        }
        match apply(session, step, &self.settings, Some(&self.secret)).await {
            Ok(applied) => {
                let delayed = self.delayed.remove(&subject).map(|delay| delay.since.elapsed());
                metrics::counter!(PUBLICATION_CHANGES_TOTAL).increment(1);
                say(&step.action, &applied, delayed, self.settings.pickup_bytes_max);
                // It was told just now.
                if let (Action::Table(table), Some(published)) = (&step.action, &mut self.published) {
                    published.take(table);
                }
                Ok(())
            }
            Err(Error::Postgres(error)) if error.sqlstate().is_some() && !error.is_shutting_down() => {
                metrics::counter!(PUBLICATION_RETRIES_TOTAL).increment(1);
                let (shortest, longest) = (self.settings.discover_interval, self.settings.retry_interval_max);
                let before = self.delayed.get(&subject);
                let interval = before.map_or(shortest, |delay| delay.interval.saturating_mul(2));
                let interval = interval.min(longest.max(shortest));
                let since = before.map_or_else(Instant::now, |delay| delay.since);
                tracing::warn!(%subject, %error, hint = error.hint(), "cannot publish it yet; trying again in {interval:.1?}");
                self.delayed.insert(subject, Delay { since, next: Instant::now() + interval, interval });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Says which tables are published that were not when it last looked, and of which rows nothing was said. Those that it
    /// publishes itself are said then.
    async fn see_published(&mut self, session: &Session, facts: &Facts) -> Result<(), Error> {
        let (names, is_first) = (self.settings.names(), self.published.is_none());
        let news = self.published.get_or_insert_default().see(facts, &names);
        for (table, news) in news.into_iter().filter(|_| !is_first) {
            let lacks = match news {
                News::Covered => false,
                News::Again => true,
                News::Listed | News::Whole => has_old_rows(session, table, news, &self.settings).await?,
            };
            say_news(&table.name, news, lacks);
        }
        Ok(())
    }

    /// Says each finding once, until it is gone, and that it is.
    fn report(&mut self, plan: &Plan) {
        metrics::gauge!(PUBLICATION_FINDINGS).set(plan.findings.len() as f64);
        self.findings.send_if_modified(|known| {
            for finding in plan.findings.iter().filter(|finding| !known.contains(finding)) {
                let (subject, problem) = (&finding.subject, &finding.problem);
                tracing::warn!(subject, fix = finding.statement, "{subject}: {problem}");
            }
            let changed = *known != plan.findings;
            known.clone_from(&plan.findings);
            changed
        });
        for finding in &plan.findings {
            self.found_at.entry(finding.clone()).or_insert_with(Instant::now);
        }
        self.found_at.retain(|finding, since| {
            let is_there = plan.findings.contains(finding);
            if !is_there {
                let (Finding { subject, problem, .. }, lasted) = (finding, since.elapsed());
                tracing::info!(subject, "{subject}: this is over, after {lasted:.1?}: {problem}");
            }
            is_there
        });
    }
}

fn subject(action: &Action) -> String {
    match action {
        Action::Publication { publication, .. } => publication.clone(),
        Action::Table(table) => table.name.to_string(),
    }
}

/// `delayed`: how long it could not be done.
fn say(action: &Action, applied: &Applied, delayed: Option<Duration>, bytes_max: u64) {
    metrics::counter!(PICKED_UP_ROWS_TOTAL).increment(applied.rows);
    metrics::counter!(PICKUPS_WITHOUT_ROWS_TOTAL).increment(applied.without_rows.len() as u64);
    let after = delayed.map(|delayed| format!(", after {delayed:.1?} of trying")).unwrap_or_default();
    match action {
        Action::Publication { publication, .. } => {
            tracing::info!(publication, "publication {publication} was changed{after}");
        }
        Action::Table(step) => {
            let (table, rows) = (&step.name, applied.rows);
            tracing::info!(%table, rows, "{table} {}{after}", now(step));
        }
    }
    for (table, reason) in &applied.without_rows {
        tracing::warn!(%table, %reason, bytes_max, "its changes are in the feed from now on, without the rows that were there before: clients see those by a new sync");
    }
}

/// `lacks`: something of the table is not in the feed, and will not be.
fn say_news(table: &RelationName, news: News, lacks: bool) {
    const LATER: &str = "clients see those by a new sync";
    if lacks && matches!(news, News::Listed | News::Whole) {
        metrics::counter!(PICKUPS_WITHOUT_ROWS_TOTAL).increment(1);
    }
    match news {
        News::Listed if lacks => tracing::warn!(
            %table,
            "{table} was published by somebody else: its changes are in the feed from now on, without the rows that were there \
             before: {LATER}"
        ),
        News::Whole if lacks => tracing::warn!(
            %table,
            "{table} was published whole by somebody else: its updates and deletes are in the feed from now on, without those \
             that were before: {LATER}"
        ),
        News::Again => tracing::warn!(
            %table,
            "{table} is published again: its changes are in the feed from now on, without those that were meanwhile: {LATER}"
        ),
        News::Whole => {
            tracing::info!(%table, "{table}: its updates and deletes are in the feed from now on too")
        }
        News::Covered | News::Listed => {
            tracing::info!(%table, "{table} is published: its changes are in the feed from now on");
        }
    }
}

/// What a table is after a step.
const fn now(step: &TableStep) -> &'static str {
    match &step.enter {
        Some((Placement::Whole, _)) => "is published: its changes are in the feed from now on",
        Some((Placement::Inserts, _)) => {
            "is published: its inserts and truncates are in the feed from now on"
        }
        None => "is published no longer: nothing of it is in the feed from now on",
    }
}
