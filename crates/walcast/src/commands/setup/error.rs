//! Why the feed's foundations are not there, or not torn down.

use walcast_history::Hole;
use walcast_postgres::ErrorClass;
use walcast_replication::START_OVER;

use crate::app::ServeError;
use crate::commands::doctor::Finding;

/// Why the feed's foundations are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// Only a person can bring it. All that is missing, each with what mends it, in the words of the doctor.
    #[error("{}", missing(.0))]
    Missing(Vec<Finding>),
    /// Torn down, but for what the role may not drop.
    #[error("the rest is dropped; an administrator must run:\n{}", statements.join("\n"))]
    LeftOver {
        /// Each with the database it belongs to, as a comment.
        statements: Vec<String>,
    },
    /// The feed that is there comes from another cluster.
    #[error("the history's feed comes from cluster {expected}, and the source is cluster {found}")]
    AnotherCluster {
        /// The feed's.
        expected: String,
        /// The source's.
        found: String,
    },
    /// Whoever has read the slot has found that changes are missing.
    #[error("{0}")]
    Hole(Hole),
    /// A database cannot be connected to; both were asked.
    #[error("{0}")]
    Away(Away),
    /// A Postgres refused.
    #[error("{0}")]
    Postgres(#[from] walcast_postgres::Error),
    /// Slot or publications.
    #[error("{0}")]
    Replication(#[from] walcast_replication::Error),
    /// The history.
    #[error("{0}")]
    History(#[from] walcast_history::Error),
}

/// What keeps the databases away.
#[derive(Debug)]
pub(crate) enum Away {
    /// Source and history are one database.
    Both(walcast_postgres::Error),
    /// One or both of two; at least one.
    Each {
        /// The source's.
        source: Option<walcast_postgres::Error>,
        /// The history's.
        history: Option<walcast_postgres::Error>,
    },
}

impl Away {
    fn each(&self) -> impl Iterator<Item = (&'static str, &walcast_postgres::Error)> {
        let (both, source, history) = match self {
            Self::Both(error) => (Some(error), None, None),
            Self::Each { source, history } => (None, source.as_ref(), history.as_ref()),
        };
        let named = [("", both), ("the source: ", source), ("the history: ", history)];
        named.into_iter().filter_map(|(name, error)| Some((name, error?)))
    }

    fn class(&self) -> ErrorClass {
        let classes = || self.each().map(|(_, error)| error.class());
        // What does not pass by itself decides: waiting for the other one is of no use.
        classes().find(|class| *class != ErrorClass::Transient).unwrap_or(ErrorClass::Transient)
    }
}

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts: Vec<String> = self.each().map(|(name, error)| format!("{name}{error}")).collect();
        f.write_str(&texts.join("; "))
    }
}

fn missing(findings: &[Finding]) -> String {
    let what = match findings.len() {
        1 => "something is missing; what mends it is below it".to_owned(),
        number => format!("{number} things are missing; what mends each is below it"),
    };
    let lines = findings.iter().map(|finding| {
        let steps = finding
            .fix_steps
            .iter()
            .map(|step| format!("\n      {}: {}", step.mark(), step.text().replace('\n', "\n      ")));
        format!("\n  {}{}", finding.message, steps.collect::<String>())
    });
    what + &lines.collect::<String>()
}

impl From<tokio_postgres::Error> for SetupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl SetupError {
    /// How to react.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::Missing(_) | Self::LeftOver { .. } | Self::AnotherCluster { .. } | Self::Hole(_) => {
                ErrorClass::Operator
            }
            Self::Away(away) => away.class(),
            Self::Postgres(error) => error.class(),
            Self::Replication(error) => error.class(),
            Self::History(error) => error.class(),
        }
    }

    /// Whether nothing is in the way but another consumer of the slot.
    pub(crate) const fn is_slot_in_use(&self) -> bool {
        matches!(self, Self::Replication(walcast_replication::Error::SlotInUse { .. }))
    }

    /// Changes are missing, or may be: only another feed can go on.
    pub(crate) fn is_hole(&self) -> bool {
        match self {
            Self::Hole(_) => true,
            Self::Replication(error) => error.is_hole(),
            _ => false,
        }
    }

    /// What a person can do about it. `command`: what is to be run again then.
    pub(crate) fn hint(&self, command: &str) -> Option<String> {
        match self {
            Self::Missing(_) => Some(format!(
                "then run {command} again; walcast setup --print has all that is to be run in the databases, for an administrator"
            )),
            Self::AnotherCluster { .. } => Some(format!("connect to the right server, or {START_OVER}")),
            Self::Hole(_) => Some(START_OVER.to_owned()),
            Self::Away(away) => {
                let mut hints: Vec<String> = away.each().filter_map(|(_, error)| error.hint()).collect();
                hints.dedup();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
            // What only waits goes on by itself, these commands do not.
            Self::Replication(walcast_replication::Error::SlotInUse { .. })
                if command != ServeError::COMMAND =>
            {
                Some(format!(
                    "stop the daemon first (Ctrl-C, SIGTERM, systemctl stop walcast, docker compose stop walcast), or the \
                     other program that reads the slot; then run {command} again"
                ))
            }
            Self::Replication(error) => error.hint(),
            // The server's own proposal is in its message.
            Self::Postgres(error) => error.hint(),
            Self::History(error) => error.hint(),
            Self::LeftOver { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use walcast_postgres::{Error, ErrorClass, ServerError};
    use walcast_replication::slot::{Client, Holder};

    use super::{Away, SetupError};
    use crate::commands::doctor::{Finding, Fix};

    fn refused() -> Error {
        let source = std::io::ErrorKind::ConnectionRefused.into();
        Error::Unreachable { server: "db:5432".into(), source }
    }

    fn wrong_password() -> Error {
        ServerError { sqlstate: "28P01".into(), message: "password".into(), ..Default::default() }.into()
    }

    #[test]
    fn a_database_that_is_down_does_not_hide_that_the_other_refuses_the_password() {
        let away = |source, history| SetupError::Away(Away::Each { source, history });
        assert_eq!(away(Some(refused()), None).class(), ErrorClass::Transient);
        let both = away(Some(refused()), Some(wrong_password()));
        assert_eq!(both.class(), ErrorClass::Operator);
        let (said, hint) = (both.to_string(), both.hint("walcast serve").unwrap());
        assert!(
            said.contains("the source: cannot reach") && said.contains("the history: password"),
            "{said}"
        );
        assert!(hint.contains("start the server") && hint.contains("correct the password"), "{hint}");
        // One database is not two.
        assert_eq!(SetupError::Away(Away::Both(refused())).to_string(), refused().to_string());
    }

    #[test]
    fn a_slot_in_use_is_waited_for_by_the_daemon_alone() {
        let client =
            Client { application: "walcast replication".into(), user: "w".into(), arrival: "".into() };
        let holder = Some(Holder { pid: 7, client: Some(client) });
        let busy = walcast_replication::Error::SlotInUse { slot: "walcast".into(), holder };
        let busy = SetupError::from(busy);
        assert!(busy.to_string().ends_with("by process 7 (\"walcast replication\" of w)"), "{busy}");
        let hint = busy.hint("walcast serve").unwrap();
        assert!(hint.contains("takes over as soon as"), "{hint}");
        // A walcast that works is not to be ended.
        let (first, then) = hint.split_once(" Only if its client is gone for good").expect("when to end it");
        assert!(!first.contains("terminate") && then.contains("pg_terminate_backend(7)"), "{hint}");
        let hint = busy.hint("walcast teardown").unwrap();
        assert!(
            hint.starts_with("stop the daemon first (") && hint.ends_with("then run walcast teardown again"),
            "{hint}"
        );
    }

    #[test]
    fn what_is_missing_is_listed_with_what_mends_it_and_what_comes_then() {
        let one =
            Finding::error("wal_level", "wal_level is replica", Fix::sql("ALTER SYSTEM …;").then("restart"));
        let two = Finding::error("publication", "there is no publication", Fix::sql("CREATE …;\nALTER …;"));
        let error = SetupError::Missing(vec![one, two]);
        insta::assert_snapshot!(error.to_string(), @"
        2 things are missing; what mends each is below it
          wal_level is replica
              SQL: ALTER SYSTEM …;
              do: restart
          there is no publication
              SQL: CREATE …;
              ALTER …;
        ");
        assert!(error.hint("walcast serve").unwrap().starts_with("then run walcast serve again"));
    }
}
