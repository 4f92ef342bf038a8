//! A new connection to the slot, and the proof that the feed can go on from it.

use std::str::FromStr;
use std::sync::Arc;

use walcast_model::{Cursor, Lsn, Xid};
use walcast_pgoutput::Decoder;
use walcast_postgres::Session;
use walcast_postgres::catalog::TypeReader;

use super::convert::Converter;
use super::images::LastImages;
use super::sent_again::{COMPARED_MAX, SentAgain};
use super::storage::StorageReader;
use super::{Replicator, StoredTransactions};
use crate::assemble::{Assembler, AssemblerSettings, Progress};
use crate::connection::{ReplicationConnection, ReplicationStream};
use crate::error::Error;
use crate::identity::{self, Continuity, Origin, Standing};
use crate::slot::{self, SlotFacts};

/// A server that was started again, until it has sent what it sent before.
#[derive(Debug)]
pub(super) struct Compared {
    sent_again: SentAgain,
    origin: Origin,
}

/// Completes changes by last images.
pub(super) struct Completer {
    pub(super) store: Arc<dyn LastImages>,
    pub(super) storage: StorageReader,
}

/// The connections to the source, and what is known of the stream.
pub(super) struct Link {
    /// For the catalog, and to hear that the server goes down.
    pub(super) session: Session,
    pub(super) stream: ReplicationStream,
    pub(super) decoder: Decoder,
    pub(super) assembler: Assembler,
    /// Reads the types of columns for the assembler.
    pub(super) types: TypeReader,
    /// Has the server convert values for it.
    pub(super) converter: Converter,
    /// Only where last images are kept.
    pub(super) completer: Option<Completer>,
    /// What the slot is still to send again, before the server is known to be what it was.
    pub(super) compared: Option<Compared>,
}

impl Replicator {
    /// Connects, checks that nothing the feed lacks is gone, and starts the stream at the feed's head.
    pub(super) async fn open(&mut self) -> Result<Link, Error> {
        let head = self.writer.head();
        if self.settings.last_images.is_some() {
            // What was assembled on the connection before is remembered no more: history has to have it.
            self.writer.until_stored(head).await;
        }
        let session = Session::connect(&self.config, "walcast catalog").await?;
        let settings = &self.settings;
        let mut connection =
            ReplicationConnection::connect(&self.config, "walcast replication", &settings.connection).await?;
        let standing = connection.standing().await?;
        require_same_server(&session, &standing).await?;
        let continuity = identity::judge(&self.origin, &standing, head)?;
        let needed = match continuity {
            Continuity::Promoted { at } => head.min(at.into()),
            // Whatever the slot has: the feed goes back to it.
            Continuity::WentBack { .. } => Cursor::MAX,
            Continuity::Unbroken | Continuity::Restarted => head,
        };
        let facts = self.check(&session, needed).await?;
        self.require_unbranched(continuity, &standing, head)?;
        let (from, compared) = self.prove(continuity, &standing, facts.confirmed_flush).await?;
        if self.known_to.is_none() {
            self.known_to = Some(standing.system.flushed);
        }
        let settings = &self.settings;
        let xid_reference = xid_reference(&session).await?;
        let started = connection.start(&settings.slot, from, &settings.publications).await;
        let stream = match started {
            Ok(stream) => stream,
            Err(error) if error.sqlstate() == Some("55006") => {
                let holder = slot::holder(&session, &settings.slot).await?;
                return Err(Error::SlotInUse { slot: settings.slot.clone(), holder });
            }
            Err(error) => return Err(error.into()),
        };
        // Once more, now that nobody else can move it: the server itself would skip ahead without a word.
        self.check(&session, needed).await?;
        if !std::mem::replace(&mut self.has_held, true)
            && let Some(keeper) = &settings.keeper
        {
            keeper.holds_slot();
        }
        let assembler =
            AssemblerSettings { part_bytes_max: settings.part_bytes_max, secret: settings.secret.clone() };
        let mut assembler = Assembler::new(assembler, head, xid_reference);
        assembler.said_before(self.said_to);
        if session.is_sql_ascii() {
            assembler.expect_any_bytes();
        }
        let mut completer = None;
        if let Some(store) = &settings.last_images {
            let chosen = Arc::clone(store);
            assembler.keep_images(Arc::new(move |table| chosen.is_chosen(table)));
            let storage = StorageReader::new(&session, settings.publications.clone(), xid_reference).await?;
            completer = Some(Completer { store: Arc::clone(store), storage });
        }
        let types = TypeReader::for_slot(&session, &settings.slot).await?;
        let converter = Converter::default();
        Ok(Link {
            session,
            stream,
            decoder: Decoder::new(),
            assembler,
            types,
            converter,
            completer,
            compared,
        })
    }

    async fn check(&self, session: &Session, head: Cursor) -> Result<SlotFacts, Error> {
        let settings = &self.settings;
        let facts = slot::inspect(session, &settings.slot).await?;
        slot::check(facts.as_ref(), &settings.slot, self.config.database(), head)?;
        let facts =
            facts.ok_or_else(|| Error::SlotMissing { slot: settings.slot.clone(), position: head })?;
        const MISSING: &str = "SELECT name FROM unnest($1::text[]) AS name \
                               WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname::text = name) LIMIT 1";
        match session.query_opt(MISSING, &[&settings.publications]).await? {
            Some(row) => Err(Error::PublicationMissing { publication: row.get(0) }),
            None => Ok(facts),
        }
    }

    /// A server in which something that was delivered may not have happened is not for this feed.
    fn require_unbranched(
        &self,
        continuity: Continuity,
        standing: &Standing,
        head: Cursor,
    ) -> Result<(), Error> {
        let has_keeper = self.settings.keeper.is_some();
        let why = match continuity {
            Continuity::Unbroken => return Ok(()),
            // All that was ever delivered is in this process's feed, and the server has WAL for all of that.
            Continuity::Restarted if self.known_to.is_some_and(|to| self.reached >= to) => return Ok(()),
            Continuity::Restarted if !has_keeper => return Ok(()),
            Continuity::Restarted => "the server was started again while nobody watched".to_owned(),
            // Nobody keeps what was delivered beyond the feed's head.
            Continuity::Promoted { at } if !has_keeper && head <= at.into() => return Ok(()),
            Continuity::Promoted { at } => {
                format!("the server was promoted: timeline {} began at {at}", standing.system.timeline)
            }
            Continuity::WentBack { flushed } => format!(
                "the server went back: its WAL ends at {flushed}, and the feed has had it up to {head}"
            ),
        };
        Err(Error::Branched { why })
    }

    /// From where the slot is to send, and what is to be compared on the way to the head.
    async fn prove(
        &mut self,
        continuity: Continuity,
        standing: &Standing,
        confirmed: Option<Lsn>,
    ) -> Result<(Lsn, Option<Compared>), Error> {
        let (head, stored) = (self.writer.head().lsn(), self.writer.stored().lsn());
        self.must_compare |= continuity == Continuity::Restarted;
        let confirmed = confirmed.unwrap_or(stored);
        let keeper = self.settings.keeper.clone().filter(|_| self.must_compare && confirmed < stored);
        let Some(keeper) = keeper else {
            self.adopt(standing.origin()).await;
            return Ok((head, None));
        };
        let kept = keeper.transactions(confirmed, stored, COMPARED_MAX).await;
        let StoredTransactions { transactions, oldest } =
            kept.map_err(|reason| Error::HistoryUnknown { reason })?;
        let is_all = transactions.len() < COMPARED_MAX as usize;
        let first = transactions.first().map(|first| first.start.lsn());
        // After a crash the slot may stand before what retention has left.
        let from = first.filter(|_| !is_all).unwrap_or(confirmed.max(oldest).min(stored));
        let sent_again = SentAgain::new(transactions, from, stored);
        Ok((from, Some(Compared { sent_again, origin: standing.origin() })))
    }

    /// Compares what was sent again. Whether that is done now, and all is as it was.
    pub(super) async fn compare(&mut self, link: &mut Link, progress: &Progress) -> Result<bool, Error> {
        let Some(compared) = &mut link.compared else { return Ok(false) };
        for transaction in &progress.sent_again {
            compared.sent_again.next(transaction)?;
        }
        let begun = progress.parts.first().map(|part| part.transaction().start.lsn());
        let reached = progress.reached.max(begun).unwrap_or_default();
        if !compared.sent_again.reached(reached)? {
            return Ok(false);
        }
        let origin = compared.origin.clone();
        link.compared = None;
        self.adopt(origin).await;
        Ok(true)
    }

    /// The server has all that the feed has had of it.
    async fn adopt(&mut self, origin: Origin) {
        self.must_compare = false;
        if self.origin == origin {
            return;
        }
        if self.origin.server_run.is_some() {
            tracing::info!(timeline = origin.timeline, "the server was started again, and has what it had");
        }
        if let Some(keeper) = &self.settings.keeper
            && let Err(error) = keeper.adopt(origin.clone()).await
        {
            tracing::warn!(error, "that the feed goes on after a start of the server was not recorded");
        }
        self.origin = origin;
    }
}

/// With several hosts in the connection string, two connections may have come to two servers.
async fn require_same_server(session: &Session, standing: &Standing) -> Result<(), Error> {
    let row = session.query_one(identity::SERVER_RUN, &[]).await?;
    if row.get::<_, i64>(0) == standing.server_run {
        return Ok(());
    }
    let why = "two connections came to two servers: a failover is under way".to_owned();
    Err(walcast_postgres::Error::Io(std::io::Error::other(why)).into())
}

/// A recent 64-bit transaction id.
async fn xid_reference(session: &Session) -> Result<Xid, Error> {
    let row = session.query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?;
    let text: &str = row.get(0);
    let xid =
        u64::from_str(text).map_err(|_| walcast_postgres::Error::Protocol(format!("{text:?} is no xid8")))?;
    Ok(Xid::new(xid))
}
