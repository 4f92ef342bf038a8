//! Writes barriers into the WAL.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_feed::{BarrierRequests, Outage, Outages};
use walcast_postgres::{ConnectionConfig, Session};

use crate::assemble::BARRIER_PREFIX;
use crate::backoff::Backoff;
use crate::error::Error;
use crate::metrics::{BARRIER_FAILURES_TOTAL, BARRIERS_TOTAL};

/// Whether barriers can be written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EmitterState {
    /// Entered at start, when a barrier was written, and when there is a connection and nobody waits for one.
    #[default]
    Working,
    /// Entered when one could not be written, or there is no connection to write one by; whoever waits for it goes on
    /// waiting.
    Failing {
        /// What happened, for people.
        reason: String,
        /// What a person can do.
        hint: Option<String>,
    },
}

/// Serves [`BarrierRequests`]: each becomes a transactional logical message of its own, committed with
/// `synchronous_commit = local`, so that it is durable and a missing synchronous standby cannot hold it up.
#[derive(Debug)]
pub struct BarrierEmitter {
    config: ConnectionConfig,
    requests: BarrierRequests,
    state: watch::Sender<EmitterState>,
    /// Written on the present session, and perhaps not yet come back.
    written: Vec<String>,
    outage: Outage,
}

/// What is told while none can be written.
const EFFECT: &str = "no barrier can be written";

/// Ids that are remembered before those that came back are sorted out.
const WRITTEN_MAX: usize = 256;

impl BarrierEmitter {
    /// For the server whose WAL the feed reads.
    #[must_use]
    pub fn new(config: ConnectionConfig, requests: BarrierRequests) -> Self {
        let outage = Outages::default().part(EFFECT);
        Self { config, requests, state: watch::Sender::default(), written: Vec::new(), outage }
    }

    /// Tells there when no barrier can be written.
    #[must_use]
    pub fn telling(mut self, outages: &Outages) -> Self {
        self.outage = outages.part(EFFECT);
        self
    }

    /// Sees whether barriers can be written. On a standby they cannot: what waits for one waits until it is promoted.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EmitterState> {
        self.state.subscribe()
    }

    /// Runs until cancelled, or until nobody can ask any more. Failures are reported as a state, and tried again.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut pending = Vec::new();
        loop {
            let ended = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.session(&mut pending, &mut backoff) => ended,
            };
            let Err(error) = ended else { return };
            // A barrier that was written may be lost with its server: whoever still waits gets a new one.
            let open: Vec<String> = self.written.drain(..).chain(pending.drain(..)).collect();
            pending = open.iter().filter_map(|id| self.requests.again(id)).collect();
            let wait = backoff.after(error.is_shutting_down());
            self.fail(&error);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn session(&mut self, pending: &mut Vec<String>, backoff: &mut Backoff) -> Result<(), Error> {
        let session = Session::connect(&self.config, "walcast barriers").await?;
        session.batch_execute("SET synchronous_commit = local").await?;
        let emit = format!("SELECT pg_logical_emit_message(true, '{BARRIER_PREFIX}', $1::text)");
        let emit = session.prepare(&emit).await?;
        let closed = session.closed();
        tokio::pin!(closed);
        if pending.is_empty() {
            // Nobody waits for one that would show it.
            backoff.reset();
            self.works();
        }
        loop {
            if pending.is_empty() {
                // Cancel-safe: `next` takes a request and registers it without waiting in between.
                tokio::select! {
                    next = self.requests.next() => match next {
                        Some(id) => pending.push(id),
                        None => return Ok(()),
                    },
                    _ = &mut closed => return Err(walcast_postgres::Error::Closed.into()),
                }
            }
            while let Some(id) = pending.last() {
                session.execute(&emit, &[id]).await?;
                metrics::counter!(BARRIERS_TOTAL).increment(1);
                self.written.extend(pending.pop());
            }
            backoff.reset();
            self.works();
            if self.written.len() >= WRITTEN_MAX {
                let requests = &self.requests;
                self.written.retain(|id| requests.is_waiting(id));
            }
        }
    }

    fn works(&mut self) {
        self.state.send_if_modified(|state| std::mem::take(state) != EmitterState::Working);
        if let Some(away) = self.outage.end() {
            tracing::info!("barriers can be written again, after {away:.1?}");
        }
    }

    fn fail(&mut self, error: &Error) {
        metrics::counter!(BARRIER_FAILURES_TOTAL).increment(1);
        let standby = matches!(error, Error::Postgres(error) if is_standby(error));
        let (reason, hint) = match standby {
            true => {
                ("the source is a standby, where no barrier can be written".to_owned(), Error::Standby.hint())
            }
            false => (error.to_string(), error.hint()),
        };
        self.outage.begin(reason.clone(), hint.clone());
        let failing = EmitterState::Failing { reason, hint: hint.clone() };
        self.state.send_if_modified(|state| {
            if *state == failing {
                return false;
            }
            tracing::warn!(%error, hint, standby, "cannot write a barrier; whoever waits for it goes on waiting");
            *state = failing;
            true
        });
    }
}

/// `pg_logical_emit_message` asks for a transaction id, which a standby cannot give ("recovery is in progress": 25006,
/// or 55000 from the WAL insertion itself).
fn is_standby(error: &walcast_postgres::Error) -> bool {
    let Some(error) = error.server_error() else { return false };
    error.sqlstate == "25006" || (error.sqlstate == "55000" && error.message.contains("recovery"))
}
