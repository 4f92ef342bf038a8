//! A new connection to the slot, and the proof that the feed can go on from it.

use std::str::FromStr;

use walcast_model::{Cursor, Xid};
use walcast_pgoutput::Decoder;
use walcast_postgres::Session;

use super::Replicator;
use crate::assemble::{Assembler, AssemblerSettings};
use crate::connection::{ReplicationConnection, ReplicationStream, SystemIdentity, TimelineSwitch};
use crate::error::Error;
use crate::slot;

/// The connections to the source, and what is known of the stream.
#[derive(Debug)]
pub(super) struct Link {
    /// For the catalog, and to hear that the server goes down.
    pub(super) session: Session,
    pub(super) stream: ReplicationStream,
    pub(super) decoder: Decoder,
    pub(super) assembler: Assembler,
}

impl Replicator {
    /// Connects, checks that nothing the feed lacks is gone, and starts the stream at the feed's head.
    pub(super) async fn open(&mut self) -> Result<Link, Error> {
        let head = self.writer.head();
        let session = Session::connect(&self.config, "walcast catalog").await?;
        self.check(&session, head).await?;
        let settings = &self.settings;
        let mut connection =
            ReplicationConnection::connect(&self.config, "walcast replication", &settings.connection).await?;
        let system = connection.identify_system().await?;
        if system.system_identifier != settings.system_identifier {
            let expected = settings.system_identifier.clone();
            return Err(Error::AnotherCluster { expected, found: system.system_identifier });
        }
        self.check_timeline(&mut connection, &system, head).await?;
        let settings = &self.settings;
        let xid_reference = xid_reference(&session).await?;
        let started = connection.start(&settings.slot, head.lsn(), &settings.publications).await;
        let stream = match started {
            Ok(stream) => stream,
            Err(error) if error.sqlstate() == Some("55006") => {
                let pid = slot::inspect(&session, &settings.slot).await?.and_then(|facts| facts.active_pid);
                return Err(Error::SlotInUse { slot: settings.slot.clone(), pid });
            }
            Err(error) => return Err(error.into()),
        };
        // Once more, now that nobody else can move it: the server itself would skip ahead without a word.
        self.check(&session, head).await?;
        let assembler =
            AssemblerSettings { part_bytes_max: settings.part_bytes_max, secret: settings.secret.clone() };
        let assembler = Assembler::new(assembler, head, xid_reference);
        Ok(Link { session, stream, decoder: Decoder::new(), assembler })
    }

    async fn check(&self, session: &Session, head: Cursor) -> Result<(), Error> {
        let settings = &self.settings;
        let facts = slot::inspect(session, &settings.slot).await?;
        slot::check(facts.as_ref(), &settings.slot, self.config.database(), head)?;
        const MISSING: &str = "SELECT name FROM unnest($1::text[]) AS name \
                               WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname::text = name) LIMIT 1";
        match session.query_opt(MISSING, &[&settings.publications]).await? {
            Some(row) => Err(Error::PublicationMissing { publication: row.get(0) }),
            None => Ok(()),
        }
    }

    /// A promoted server may lack what the feed has already got from the one before it.
    async fn check_timeline(
        &mut self,
        connection: &mut ReplicationConnection,
        system: &SystemIdentity,
        head: Cursor,
    ) -> Result<(), Error> {
        if system.timeline == self.timeline {
            return Ok(());
        }
        let history = connection.timeline_history(system.timeline).await?;
        let switched = history.iter().find(|switch| switch.timeline == self.timeline).copied();
        diverged(self.timeline, switched, head)?;
        if let Some(record) = &self.settings.record_timeline {
            record(system.timeline).await.map_err(walcast_postgres::Error::Protocol)?;
        }
        tracing::warn!(
            from = self.timeline,
            to = system.timeline,
            "the server is on a new timeline; the feed goes on"
        );
        self.timeline = system.timeline;
        Ok(())
    }
}

/// Whether the feed reaches past the point where the server left `timeline`; also when it never was on it.
fn diverged(timeline: u32, switched: Option<TimelineSwitch>, head: Cursor) -> Result<(), Error> {
    let switched = switched.map(|switch| switch.at).unwrap_or_default();
    if head > switched.into() {
        Err(Error::TimelineDiverged { timeline, switched, position: head })
    } else {
        Ok(())
    }
}

/// A recent 64-bit transaction id.
async fn xid_reference(session: &Session) -> Result<Xid, Error> {
    let row = session.query_one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?;
    let text: &str = row.get(0);
    let xid =
        u64::from_str(text).map_err(|_| walcast_postgres::Error::Protocol(format!("{text:?} is no xid8")))?;
    Ok(Xid::new(xid))
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn, Seq};

    use super::{TimelineSwitch, diverged};

    #[test]
    fn a_feed_goes_on_after_a_promotion_only_if_the_server_has_all_of_it() {
        let switch = Some(TimelineSwitch { timeline: 1, at: Lsn::new(100) });
        assert!(diverged(1, switch, Lsn::new(100).into()).is_ok());
        assert!(diverged(1, switch, Lsn::new(101).into()).is_err());
        // In the middle of a transaction whose commit record is not there.
        assert!(diverged(1, switch, Cursor::new(Lsn::new(100), Seq::new(1))).is_err());
        assert!(diverged(3, None, Lsn::new(1).into()).is_err());
    }
}
