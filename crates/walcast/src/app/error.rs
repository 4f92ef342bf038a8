//! Why the daemon did not start, or stopped.

use std::io;
use std::time::Duration;

use walcast_auth::KeyError;
use walcast_broadcaster::doors;

use crate::commands::setup::{self, SetupError, Target};
use crate::commands::status::{Daemon, Listener};

/// How long the databases may take to answer when the daemon cannot start anyway.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Why the daemon stopped, other than because it was told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The address cannot be listened on.
    #[error("failed to listen on {address}: {error}{}{}", found(.holder), besides(.foundations))]
    Listen {
        /// The address.
        address: String,
        /// The flag that names it, without its dashes.
        setting: &'static str,
        /// The operating system's words.
        error: io::Error,
        /// Who listens there, when somebody does.
        holder: Option<Box<Daemon>>,
        /// What else keeps the daemon from starting, which would be found out next.
        foundations: Option<Box<SetupError>>,
    },
    /// The sockets that are bound cannot be used.
    #[error("failed to accept connections: {error}")]
    Sockets {
        /// The operating system's words.
        error: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] doors::CertificateError),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A mistake in the configuration, of walcast or of a server.
    #[error("{0}")]
    Setup(#[from] SetupError),
    /// A core task ended.
    #[error("{0}")]
    Task(String),
}

fn found(holder: &Option<Box<Daemon>>) -> String {
    holder.as_ref().map(|holder| format!("; {}", holder.who())).unwrap_or_default()
}

fn besides(foundations: &Option<Box<SetupError>>) -> String {
    foundations.as_ref().map(|error| format!("\nbesides: {error}")).unwrap_or_default()
}

impl ServeError {
    /// What is to be run again when what is missing is there.
    pub(crate) const COMMAND: &str = "walcast serve";

    /// The address cannot be listened on; asks who does.
    pub(super) async fn listen(address: &impl ToString, setting: &'static str, error: io::Error) -> Self {
        let address = address.to_string();
        let holder = match error.kind() {
            io::ErrorKind::AddrInUse => Some(Box::new(Daemon::ask(&address).await)),
            _ => None,
        };
        Self::Listen { address, setting, error, holder, foundations: None }
    }

    /// With what else is in the way, so that it is not found out only when this is mended. Changes nothing anywhere.
    pub(super) async fn with_foundations(self, target: &Target) -> Self {
        let Self::Listen { address, setting, error, holder, .. } = self else { return self };
        let found = tokio::time::timeout(LOOK_MAX, Box::pin(setup::look(target))).await;
        let foundations = found.ok().and_then(Result::err).map(Box::new);
        Self::Listen { address, setting, error, holder, foundations }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Listen { address, setting, error, holder, foundations } => {
                let stop = match holder.as_ref().map(|holder| holder.listener) {
                    Some(Listener::Walcast) => "stop that walcast, or ",
                    Some(Listener::Silent | Listener::Stranger) => "stop that program, or ",
                    Some(Listener::Nobody) if address.starts_with("unix:") => {
                        "remove that file if nothing needs it, or "
                    }
                    Some(Listener::Nobody) => "try again, or ",
                    None if error.kind() == io::ErrorKind::PermissionDenied => {
                        "give this user the right to it, or "
                    }
                    None => "",
                };
                let own = format!("{stop}choose another address with --{setting}");
                let other = foundations.as_ref().and_then(|error| error.hint(Self::COMMAND));
                Some(other.map_or_else(|| own.clone(), |other| format!("{own}\nhint: {other}")))
            }
            Self::Setup(error) => error.hint(Self::COMMAND),
            Self::Certificate(error) => Some(error.hint().to_owned()),
            Self::Keys(error) => Some(error.hint().to_owned()),
            Self::Sockets { .. } | Self::Task(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::ServeError;

    #[tokio::test]
    async fn where_nobody_listens_there_is_no_program_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walcast.sock");
        std::fs::write(&path, "").unwrap();
        let address = format!("unix:{}", path.display());
        let error = ServeError::listen(&address, "listen", ErrorKind::AddrInUse.into()).await;
        let (said, hint) = (error.to_string(), error.hint().unwrap());
        assert!(said.contains("it is taken, though nobody listens there"), "{said}");
        assert!(
            hint.starts_with("remove that file if nothing needs it, or choose another address"),
            "{hint}"
        );
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = ServeError::listen(&free, "listen", ErrorKind::AddrInUse.into()).await;
        let hint = error.hint().unwrap();
        assert!(!hint.contains("that program") && hint.contains("with --listen"), "{hint}");
    }
}
