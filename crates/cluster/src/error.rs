//! What can go wrong with a throwaway server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a throwaway Postgres could not be had. All of it is for a person to act on, and says how.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No Postgres server of a supported version was found.
    #[error("found no Postgres server {wanted}; {advice}")]
    NotFound {
        /// What was looked for, such as `of version 14 or newer`.
        wanted: String,
        /// How to get one on this machine.
        advice: String,
    },
    /// A folder that was named does not hold a usable server.
    #[error("{} has no usable Postgres server: {reason}", bin_dir.display())]
    Unusable {
        /// The folder that should hold `postgres` and `initdb`.
        bin_dir: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// As root, and no account to run the server under.
    #[error(
        "running as root, which Postgres refuses, and there is no account `postgres` or `nobody` to run it under"
    )]
    NoAccount,
    /// A file or process could not be handled.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, to what.
        action: String,
        /// The system's answer.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb of Postgres {version} failed: {output}")]
    Initdb {
        /// Version of the installation.
        version: String,
        /// What it printed.
        output: String,
    },
    /// The server ended while it was starting.
    #[error("Postgres {version} did not start; the end of its log:\n{log}")]
    Start {
        /// Version of the installation.
        version: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// Something took longer than its limit.
    #[error("Postgres {version} did not {what} within {limit:?}; the end of its log:\n{log}")]
    TimedOut {
        /// Version of the installation.
        version: String,
        /// What was waited for.
        what: &'static str,
        /// The limit.
        limit: Duration,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server is not in the state that the call needs.
    #[error("{0}")]
    WrongState(&'static str),
    /// The platform's package manager failed.
    #[error("`{command}` ended with {status}; run it by hand to see why")]
    InstallFailed {
        /// The command line as it was run.
        command: String,
        /// Its exit status.
        status: String,
    },
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
