//! The settings of a walsender.

use std::time::Duration;

/// What may differ from one replication connection to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicationSettings {
    /// The server ends the stream when it has heard nothing from us for so long; status updates are sent at least three
    /// times as often. Default 60 s; zero = never.
    pub wal_sender_timeout: Duration,
    /// Longest time between two status updates, and so until the server hears of a commit that its walsender overlooked
    /// while it passed over WAL that nobody gets. Default 1 s.
    pub status_interval: Duration,
    /// Shortest time between two status updates that nothing but an acknowledgement asks for. Default 50 ms.
    pub status_coalesce: Duration,
    /// Bytes of decoded changes the walsender keeps in memory before it writes large transactions to its disk
    /// (`logical_decoding_work_mem`, which counts in KiB). Default: the server's own.
    pub decoding_work_bytes: Option<u64>,
    /// Whether the stream is read on a thread (with a runtime of one thread) that has nothing else to do. Then bytes
    /// gather, in a burst, while that thread sleeps; else while the task does, which spares the server less, because
    /// Tokio's driver is woken for every message meanwhile. Default false.
    pub has_own_thread: bool,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        Self {
            wal_sender_timeout: Duration::from_secs(60),
            status_interval: Duration::from_secs(1),
            status_coalesce: Duration::from_millis(50),
            decoding_work_bytes: None,
            has_own_thread: false,
        }
    }
}

impl ReplicationSettings {
    /// The settings of the startup message: all of them exist in every version walcast supports, as an unknown one
    /// would make the server refuse the connection.
    pub(super) fn startup_parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters: Vec<(&str, String)> = [
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "UTC"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "3"),
            // money is printed by its locale.
            ("lc_monetary", "C"),
            // regclass and its kin are printed with the schema unless the search path has it, and with quotes if need be.
            ("search_path", "pg_catalog"),
            ("quote_all_identifiers", "off"),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("idle_session_timeout", "0"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into();
        parameters.push(("wal_sender_timeout", format!("{}ms", self.wal_sender_timeout.as_millis())));
        if let Some(bytes) = self.decoding_work_bytes {
            // The server's bounds, in KiB.
            let kib = (bytes / 1024).clamp(64, 2_147_483_647);
            parameters.push(("logical_decoding_work_mem", format!("{kib}kB")));
        }
        parameters
    }

    /// The settings that depend on the server.
    pub(super) fn statements(&self, server_version: u32, sql_ascii: bool) -> Vec<String> {
        let mut statements = Vec::new();
        if server_version >= 170_000 {
            statements.push("SET transaction_timeout = 0".to_owned());
        }
        if sql_ascii {
            // Any other encoding makes the server check the bytes, and one bad value would stop the slot for good.
            statements.push("SET client_encoding = 'SQL_ASCII'".to_owned());
        }
        statements
    }

    /// Longest time between two status updates in force.
    pub(super) fn effective_status_interval(&self) -> Duration {
        if self.wal_sender_timeout.is_zero() {
            return self.status_interval;
        }
        self.status_interval.min(self.wal_sender_timeout / 3)
    }
}
