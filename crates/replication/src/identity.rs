//! Which server answers, in which of its lives, and whether it has all that the feed has had of it.
//!
//! ```text
//!                 the cluster      its timeline        where that began      this run of the server
//!   recorded    system_identifier    timeline              began               server_run
//!   found                  the same four, and how far its WAL goes
//! ```
//!
//! What a feed has delivered can be taken back in two ways only: another timeline is followed from a point before it (a
//! promotion, a recovery to a point in time), or the server's files are replaced by older ones. For the second the
//! server has to be started, so as long as it runs it has everything that it has sent.

use walcast_model::{Cursor, Lsn};

use crate::connection::{ReplicationConnection, SystemIdentity, TimelineSwitch};
use crate::error::Error;

/// When the server was started: microseconds since 1970. Any role may ask.
pub(crate) const SERVER_RUN: &str =
    "SELECT (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8";

/// The last checkpoint: where it is, where it began, and when it was made in microseconds since 1970.
const LAST_CHECKPOINT: &str = "SELECT checkpoint_lsn, redo_lsn, (extract(epoch FROM checkpoint_time) * 1000000)::int8 \
                               FROM pg_catalog.pg_control_checkpoint()";
/// A record of a checkpoint at a shutdown ends at most so many bytes after its beginning: 120, and a page's header.
/// No transaction is so short that its own record could end there too.
const SHUTDOWN_BYTES_MAX: u64 = 160;

/// What a feed was read from last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The cluster, as `IDENTIFY_SYSTEM` prints it.
    pub system_identifier: String,
    /// The timeline.
    pub timeline: u32,
    /// Where it left the timeline before it; `None` for the first one, and where that is not known.
    pub began: Option<Lsn>,
    /// When the server was started: microseconds since 1970, by its own clock. `None` where that is not known.
    pub server_run: Option<i64>,
}

/// A server as it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its cluster and timeline, and how far its WAL goes.
    pub system: SystemIdentity,
    /// Where its timeline's ancestors were left, oldest first.
    pub switches: Vec<TimelineSwitch>,
    /// When it was started: microseconds since 1970, by its own clock.
    pub server_run: i64,
    /// Where its WAL ended when it was started, rounded up by less than a transaction has; known only until its first
    /// checkpoint, and where the role may ask.
    pub run_began: Option<Lsn>,
}

impl Standing {
    /// What a feed that is read from this server comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            system_identifier: self.system.system_identifier.clone(),
            timeline: self.system.timeline,
            began: self.switches.last().map(|switch| switch.at),
            server_run: Some(self.server_run),
        }
    }
}

impl ReplicationConnection {
    /// Asks for everything by which a server is told from another, and from itself before a restore.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn standing(&mut self) -> Result<Standing, Error> {
        let system = self.identify_system().await?;
        let switches = self.timeline_history(system.timeline).await?;
        let rows = self.query(SERVER_RUN).await?;
        let text = rows.first().and_then(|row| row.first()).and_then(Option::as_deref).unwrap_or_default();
        let unreadable = || walcast_postgres::Error::Protocol(format!("{text:?} is no time of a start"));
        let server_run: i64 = text.parse().map_err(|_| unreadable())?;
        let run_began = match self.query(LAST_CHECKPOINT).await {
            Ok(rows) => rows.first().and_then(|row| began(row, server_run)),
            Err(error) if error.sqlstate().is_some() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Standing { system, switches, server_run, run_began })
    }
}

/// Where a run of the server began, by its last checkpoint. One that is made while the server works begins before its
/// record; one that is made in a shutdown, or at the end of a recovery, is its record.
fn began(checkpoint: &[Option<String>], server_run: i64) -> Option<Lsn> {
    let [Some(at), Some(redo), Some(made)] = checkpoint else { return None };
    if at != redo {
        return None;
    }
    let at: Lsn = at.parse().ok()?;
    // A checkpoint has the time of a whole second. One of the second of the start may be of either kind: then the record
    // is taken for what cannot give a cursor too much.
    let second = |microseconds: i64| microseconds.div_euclid(1_000_000);
    let is_end_of_recovery = second(made.parse().ok()?) >= second(server_run);
    Some(if is_end_of_recovery { at } else { Lsn::new(at.get().saturating_add(SHUTDOWN_BYTES_MAX)) })
}

/// How a server relates to what a feed had of it before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// It has run all the time, or nothing is known of its earlier life.
    Unbroken,
    /// It was started again since. Whether its files are what they were is not said by any position.
    Restarted,
    /// It is on a timeline that left the recorded one here. What lies behind did not happen on it.
    Promoted {
        /// Where it left.
        at: Lsn,
    },
    /// Its WAL ends before what the feed has had of it: older files were put in the place of its own.
    WentBack {
        /// Where its WAL ends.
        flushed: Lsn,
    },
}

/// Judges a server for a feed that has reached `position`.
///
/// # Errors
/// [`Error::AnotherCluster`], [`Error::TimelineDiverged`]: the feed cannot go on from this server at all.
pub fn judge(origin: &Origin, standing: &Standing, position: Cursor) -> Result<Continuity, Error> {
    let system = &standing.system;
    if system.system_identifier != origin.system_identifier {
        let (expected, found) = (origin.system_identifier.clone(), system.system_identifier.clone());
        return Err(Error::AnotherCluster { expected, found });
    }
    // Two standbys that are promoted apart from each other give their timelines the same number.
    let diverged =
        || Err(Error::TimelineDiverged { timeline: origin.timeline, found: system.timeline, position });
    let began_elsewhere = |found: Option<Lsn>| matches!((origin.began, found), (Some(recorded), Some(found)) if recorded != found);
    if system.timeline != origin.timeline {
        let mut before = None;
        for switch in &standing.switches {
            if switch.timeline == origin.timeline {
                let other = began_elsewhere(before);
                return if other { diverged() } else { Ok(Continuity::Promoted { at: switch.at }) };
            }
            before = Some(switch.at);
        }
        return diverged();
    }
    if began_elsewhere(standing.origin().began) {
        return diverged();
    }
    // A walsender sends nothing that is not flushed.
    if position > system.flushed.into() {
        return Ok(Continuity::WentBack { flushed: system.flushed });
    }
    Ok(match origin.server_run {
        Some(run) if run != standing.server_run => Continuity::Restarted,
        _ => Continuity::Unbroken,
    })
}

#[cfg(test)]
mod tests {
    use walcast_model::{Cursor, Lsn, Seq};

    use super::{Continuity, Origin, Standing, began, judge};
    use crate::connection::{SystemIdentity, TimelineSwitch};
    use crate::error::Error;

    fn standing(timeline: u32, switches: &[(u32, u64)], flushed: u64, server_run: i64) -> Standing {
        let switch = |(timeline, at): &(u32, u64)| TimelineSwitch { timeline: *timeline, at: Lsn::new(*at) };
        Standing {
            system: SystemIdentity {
                system_identifier: "1".into(),
                timeline,
                flushed: Lsn::new(flushed),
                database: "d".into(),
            },
            switches: switches.iter().map(switch).collect(),
            server_run,
            run_began: None,
        }
    }

    #[test]
    fn the_last_checkpoint_says_where_a_run_began_until_there_is_one_of_the_run_itself() {
        let began = |at: &str, redo: &str, made: &str| {
            began(&[Some(at.to_owned()), Some(redo.to_owned()), Some(made.to_owned())], 7_500_000)
        };
        assert_eq!(began("0/100", "0/100", "9000000"), Some(Lsn::new(0x100)), "the end of a recovery");
        assert_eq!(began("0/100", "0/100", "7000000"), Some(Lsn::new(0x100)), "in the second of the start");
        assert_eq!(began("0/100", "0/100", "6000000"), Some(Lsn::new(0x1A0)), "a shutdown");
        assert_eq!(began("0/100", "0/80", "9000000"), None, "while it works");
    }

    fn at(lsn: u64) -> Cursor {
        Lsn::new(lsn).into()
    }

    #[test]
    fn a_server_that_has_run_all_the_time_has_everything_and_one_that_was_started_again_may_not() {
        let origin = standing(1, &[], 90, 7).origin();
        assert_eq!(judge(&origin, &standing(1, &[], 100, 7), at(100)).unwrap(), Continuity::Unbroken);
        assert_eq!(judge(&origin, &standing(1, &[], 100, 8), at(100)).unwrap(), Continuity::Restarted);
        let went_back = Continuity::WentBack { flushed: Lsn::new(99) };
        assert_eq!(judge(&origin, &standing(1, &[], 99, 8), at(100)).unwrap(), went_back);
        // In the middle of a transaction whose commit record is not there.
        let inside = Cursor::new(Lsn::new(99), Seq::new(1));
        assert_eq!(judge(&origin, &standing(1, &[], 99, 8), inside).unwrap(), went_back);
        let unknown = Origin { server_run: None, ..origin };
        assert_eq!(judge(&unknown, &standing(1, &[], 100, 8), at(100)).unwrap(), Continuity::Unbroken);
    }

    #[test]
    fn a_timeline_is_followed_to_those_that_left_it_and_to_no_other() {
        let origin = standing(2, &[(1, 50)], 90, 7).origin();
        let promoted = Continuity::Promoted { at: Lsn::new(80) };
        let later = standing(3, &[(1, 50), (2, 80)], 200, 9);
        assert_eq!(judge(&origin, &later, at(100)).unwrap(), promoted);
        let two_later = standing(4, &[(1, 50), (2, 80), (3, 120)], 200, 9);
        assert_eq!(judge(&origin, &two_later, at(100)).unwrap(), promoted);
        let others = [
            // The old primary came back.
            standing(1, &[], 200, 9),
            // Another standby was promoted too, elsewhere on timeline 1.
            standing(2, &[(1, 40)], 200, 9),
            standing(3, &[(1, 40), (2, 80)], 200, 9),
            // One that left timeline 1 without having been on timeline 2.
            standing(3, &[(1, 40)], 200, 9),
        ];
        for other in others {
            let judged = judge(&origin, &other, at(10));
            assert!(matches!(judged, Err(Error::TimelineDiverged { .. })), "{other:?}: {judged:?}");
        }
        let mut elsewhere = standing(2, &[(1, 50)], 90, 7);
        elsewhere.system.system_identifier = "2".into();
        assert!(matches!(judge(&origin, &elsewhere, at(10)), Err(Error::AnotherCluster { .. })));
    }
}
