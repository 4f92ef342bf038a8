//! The faults there are.

use std::fmt;

/// A connection that a fault can be on; each leads through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// From the daemon to the source: the replication connection and its sessions.
    Source,
    /// From the daemon to the history.
    History,
    /// From clients to the daemon.
    Clients,
}

/// What happens on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkFault {
    /// RST, to all connections.
    Cut,
    /// FIN, to all connections.
    Close,
    /// New connections are reset, after a cut.
    Refuse,
    /// Nothing comes through for a while; then it goes on.
    HalfOpen,
    /// Nothing comes through for a while; then RST.
    HalfOpenThenCut,
    /// Everything comes later.
    Delay,
    /// Few bytes a second.
    Throttle,
    /// Odd slices of bytes.
    Slice,
    /// RST after exactly so many bytes to the daemon or client.
    CutAfter,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientFault {
    /// Drops its connection.
    Cut,
    /// Reads nothing.
    Stall,
    /// Resumes at a cursor that it stored some time ago.
    GoBack,
    /// Begins with an initial sync.
    BeginAnew,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of the daemon, and a new one.
    DaemonKilled,
    /// SIGTERM to the daemon, and a new one.
    DaemonTerminated,
    /// SIGSTOP, and SIGCONT.
    DaemonPaused,
    /// A second daemon waits; then `kill -9` of the first.
    DaemonTakenOver,
    /// The daemon's clock jumps.
    ClockStepped,
    /// `pg_ctl stop -m fast` of the source, a pause, start.
    SourceStopped,
    /// `pg_ctl stop -m immediate` of the source, a pause, start.
    SourceCrashed,
    /// SIGSTOP of the source, and SIGCONT.
    SourcePaused,
    /// `pg_terminate_backend` of some session of the source.
    BackendTerminated,
    /// `kill -9` of some session of the source: the server restarts.
    BackendKilled,
    /// `pg_ctl stop -m fast` of the history, a pause, start.
    HistoryStopped,
    /// `pg_ctl stop -m immediate` of the history, a pause, start.
    HistoryCrashed,
    /// SIGSTOP of the history, and SIGCONT.
    HistoryPaused,
    /// `default_transaction_read_only` in the history, for new sessions, and the end of the old ones.
    HistoryReadOnly,
    /// The file system of the history is full.
    HistoryDiskFull,
    /// On a link.
    Link(Link, LinkFault),
    /// Of one client.
    Client(ClientFault),
    /// A further client that sends what no client sends.
    HostileFrames,
}

impl Fault {
    /// All there are, with how often each is drawn.
    pub(crate) fn all() -> Vec<(Self, u32)> {
        let mut all = vec![
            (Self::DaemonKilled, 6),
            (Self::DaemonTerminated, 4),
            (Self::DaemonPaused, 3),
            (Self::DaemonTakenOver, 4),
            (Self::ClockStepped, 2),
            (Self::SourceStopped, 3),
            (Self::SourceCrashed, 4),
            (Self::SourcePaused, 2),
            (Self::BackendTerminated, 5),
            (Self::BackendKilled, 3),
            (Self::HistoryStopped, 3),
            (Self::HistoryCrashed, 3),
            (Self::HistoryPaused, 3),
            (Self::HistoryReadOnly, 3),
            (Self::HistoryDiskFull, 3),
            (Self::HostileFrames, 2),
            (Self::Client(ClientFault::Cut), 4),
            (Self::Client(ClientFault::Stall), 4),
            (Self::Client(ClientFault::GoBack), 4),
            (Self::Client(ClientFault::BeginAnew), 4),
        ];
        for link in [Link::Source, Link::History, Link::Clients] {
            for (fault, weight) in [
                (LinkFault::Cut, 2),
                (LinkFault::Close, 1),
                (LinkFault::Refuse, 1),
                (LinkFault::HalfOpen, 2),
                (LinkFault::HalfOpenThenCut, 1),
                (LinkFault::Delay, 1),
                (LinkFault::Throttle, 1),
                (LinkFault::Slice, 1),
                (LinkFault::CutAfter, 4),
            ] {
                all.push((Self::Link(link, fault), weight));
            }
        }
        all
    }

    /// Faults that stop or pause the same thing exclude each other.
    pub(crate) fn excludes(self, other: Self) -> bool {
        let place = |fault: Self| match fault {
            Self::DaemonKilled | Self::DaemonTerminated | Self::DaemonPaused | Self::DaemonTakenOver => 1,
            Self::SourceStopped
            | Self::SourceCrashed
            | Self::SourcePaused
            | Self::BackendKilled
            | Self::BackendTerminated => 2,
            Self::HistoryStopped
            | Self::HistoryCrashed
            | Self::HistoryPaused
            | Self::HistoryReadOnly
            | Self::HistoryDiskFull => 3,
            Self::Link(Link::Source, _) => 4,
            Self::Link(Link::History, _) => 5,
            Self::Link(Link::Clients, _) => 6,
            Self::Client(_) | Self::HostileFrames | Self::ClockStepped => 7,
        };
        place(self) == place(other)
    }

    /// Whether it is about a history in a cluster of its own.
    pub(crate) fn needs_history_apart(self) -> bool {
        matches!(
            self,
            Self::HistoryStopped
                | Self::HistoryCrashed
                | Self::HistoryPaused
                | Self::HistoryReadOnly
                | Self::HistoryDiskFull
                | Self::Link(Link::History, _)
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DaemonKilled => f.write_str("daemon killed"),
            Self::DaemonTerminated => f.write_str("daemon terminated"),
            Self::DaemonPaused => f.write_str("daemon paused"),
            Self::DaemonTakenOver => f.write_str("daemon taken over"),
            Self::ClockStepped => f.write_str("clock stepped"),
            Self::SourceStopped => f.write_str("source stopped"),
            Self::SourceCrashed => f.write_str("source crashed"),
            Self::SourcePaused => f.write_str("source paused"),
            Self::BackendTerminated => f.write_str("backend terminated"),
            Self::BackendKilled => f.write_str("backend killed"),
            Self::HistoryStopped => f.write_str("history stopped"),
            Self::HistoryCrashed => f.write_str("history crashed"),
            Self::HistoryPaused => f.write_str("history paused"),
            Self::HistoryReadOnly => f.write_str("history read-only"),
            Self::HistoryDiskFull => f.write_str("history's disk full"),
            Self::HostileFrames => f.write_str("hostile frames"),
            Self::Client(fault) => f.write_str(match fault {
                ClientFault::Cut => "client cut",
                ClientFault::Stall => "client stalled",
                ClientFault::GoBack => "client went back",
                ClientFault::BeginAnew => "client began anew",
            }),
            Self::Link(link, fault) => {
                let link = match link {
                    Link::Source => "source link",
                    Link::History => "history link",
                    Link::Clients => "client links",
                };
                let fault = match fault {
                    LinkFault::Cut => "cut",
                    LinkFault::Close => "closed",
                    LinkFault::Refuse => "refused",
                    LinkFault::HalfOpen => "half-open",
                    LinkFault::HalfOpenThenCut => "half-open, then cut",
                    LinkFault::Delay => "delayed",
                    LinkFault::Throttle => "throttled",
                    LinkFault::Slice => "in slices",
                    LinkFault::CutAfter => "cut after some bytes",
                };
                write!(f, "{link} {fault}")
            }
        }
    }
}
