//! The doors' sockets, certificate, keys and policies: what outlives a feed that is continued as another one.

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walcast_auth::{KeyError, KeyRing, Renewal, Verifier};
use walcast_broadcaster::access::{Authority, Tokens};
use walcast_broadcaster::doors::{self, Listener, ServerTls};
use walcast_feed::{Backoff, Outages};
use walcast_policy::Policies;

use super::ServeError;
use super::policies::PolicyFile;
use super::policy_watch::watch_policies;
use super::tasks::Tasks;
use crate::commands::setup::Target;
use crate::settings::entrance::{EntranceSettings, ListenAddress, TokenSettings};

/// The first pause before keys are asked for again at the start.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// The longest pause before keys are asked for again at the start.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What clients come in by.
pub(super) struct Entrance {
    sockets: Vec<Socket>,
    tls: Option<Arc<ServerTls>>,
    settings: EntranceSettings,
}

/// One bound socket.
struct Socket {
    bound: Bound,
    is_admin: bool,
}

enum Bound {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: PathBuf },
}

impl Entrance {
    /// Binds every address and reads the certificate.
    pub(super) async fn open(settings: &EntranceSettings) -> Result<Self, ServeError> {
        let tls = match &settings.tls {
            Some(files) => Some(ServerTls::load(files.certificate.clone(), files.key.clone()).await?),
            None => None,
        };
        let clients = settings.listen.iter().map(|address| (address, false));
        let admin = settings.admin_listen.iter().map(|address| (address, true));
        let mut sockets = Vec::new();
        for (address, is_admin) in clients.chain(admin) {
            let bound = match bind(address) {
                Ok(bound) => bound,
                Err(error) => {
                    let setting = if is_admin { "admin-listen" } else { "listen" };
                    return Err(ServeError::listen(address, setting, error).await);
                }
            };
            sockets.push(Socket { bound, is_admin });
        }
        let entrance = Self { sockets, tls, settings: settings.clone() };
        entrance.warn();
        Ok(entrance)
    }

    /// Says what an operator should know before others find it out.
    fn warn(&self) {
        let EntranceSettings { listen, tls, tokens, trusted_proxies, .. } = &self.settings;
        let is_reached = listen.iter().any(|address| !address.is_local());
        if is_reached && tokens.is_some() && tls.is_none() && trusted_proxies.is_empty() {
            tracing::warn!(
                "tokens and data come over the network as they are, unless a proxy in front speaks TLS: see tls_cert_file and trusted_proxies"
            );
        }
    }

    /// Says once who is let in, and to what.
    fn tell(&self, policies: Option<&PolicyFile>) {
        let EntranceSettings { listen, tokens, insecure, .. } = &self.settings;
        match (tokens, policies) {
            (None, _) if listen.iter().any(|address| !address.is_local()) => tracing::warn!(
                insecure,
                "without authentication, whoever reaches the port reads everything that is published"
            ),
            (None, _) => tracing::info!(
                "without authentication: whoever comes from this machine reads everything that is published"
            ),
            (Some(_), None) => {
                tracing::warn!("there are no policies: nobody may have anything; see the setting policies");
            }
            (Some(_), Some(file)) => {
                let (policies, path) = (Arc::clone(&file.in_force().borrow()), file.path().display());
                let tables: BTreeSet<_> =
                    policies.patterns().into_iter().map(|(pattern, _)| pattern).collect();
                let (count, tables, channels) = (policies.len(), tables.len(), policies.channel_patterns());
                tracing::info!(%path, policies = count, tables, channels, "with authentication: policies say who may have what");
            }
        }
    }

    /// Where it listens, for people.
    pub(super) fn addresses(&self) -> io::Result<Vec<String>> {
        let scheme = if self.tls.is_some() { "wss" } else { "ws" };
        let address = |socket: &Socket| {
            Ok(match (&socket.bound, socket.is_admin) {
                (Bound::Tcp(listener), false) => format!("{scheme}://{}/v1/stream", listener.local_addr()?),
                (Bound::Tcp(listener), true) => format!("http://{}/metrics", listener.local_addr()?),
                (Bound::Unix { path, .. }, _) => format!("unix:{}", path.display()),
            })
        };
        self.sockets.iter().map(address).collect()
    }

    /// The sockets once more, for another life of the doors.
    pub(super) fn listeners(&self) -> io::Result<Vec<Listener>> {
        let listener = |socket: &Socket| {
            let listener = match &socket.bound {
                Bound::Tcp(listener) => {
                    Listener::from(tokio::net::TcpListener::from_std(listener.try_clone()?)?)
                }
                Bound::Unix { listener, .. } => {
                    Listener::from(tokio::net::UnixListener::from_std(listener.try_clone()?)?)
                }
            };
            Ok(match (&self.tls, socket.is_admin) {
                (_, true) => listener.for_admin(),
                (Some(tls), false) => listener.with_tls(Arc::clone(tls)),
                (None, false) => listener,
            })
        };
        self.sockets.iter().map(listener).collect()
    }

    /// Loads the keys. A server of keys that does not answer is waited for; what only a person can mend is an error.
    pub(super) async fn keepers(&self, policies: Option<PolicyFile>) -> Result<Keepers, KeyError> {
        let verifier = match &self.settings.tokens {
            Some(tokens) => Some(verifier(tokens).await?),
            None => None,
        };
        self.tell(policies.as_ref());
        let policies = policies.map(Arc::new);
        Ok(Keepers { verifier, tls: self.tls.clone(), policies, settings: self.settings.clone() })
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        for socket in &self.sockets {
            if let Bound::Unix { path, .. } = &socket.bound {
                // A daemon that comes later removes what is left here.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn bind(address: &ListenAddress) -> io::Result<Bound> {
    match address {
        ListenAddress::Tcp(address) => {
            // As Tokio binds: an address is used again at once after a restart.
            let listener = socket(*address)?;
            Ok(Bound::Tcp(listener))
        }
        ListenAddress::Unix(path) => {
            let listener = match UnixListener::bind(path) {
                // One that a daemon left behind when it was killed: nobody answers there.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)?
                }
                bound => bound?,
            };
            listener.set_nonblocking(true)?;
            Ok(Bound::Unix { listener, path: path.clone() })
        }
    }
}

fn is_abandoned(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(|error| refused(&error))
}

fn socket(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)?.into_std()
}

async fn verifier(tokens: &TokenSettings) -> Result<Verifier, KeyError> {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        let error = match KeyRing::load(tokens.keys.clone()).await {
            Ok(keys) => return Ok(Verifier::new(keys, tokens.rules.clone())),
            Err(error @ KeyError::Fetch { .. }) => error,
            Err(error) => return Err(error),
        };
        let pause = backoff.wait();
        let hint = error.hint();
        tracing::warn!(%error, hint, "nobody can be let in without keys; trying again in {pause:.1?}");
        tokio::time::sleep(pause).await;
    }
}

/// No policies, for ever.
fn nothing() -> watch::Receiver<Arc<Policies>> {
    watch::channel(Arc::default()).1
}

/// What says who is let in, while it may change.
pub(super) struct Keepers {
    verifier: Option<Verifier>,
    tls: Option<Arc<ServerTls>>,
    /// Who may have what; `None`: nobody anything.
    policies: Option<Arc<PolicyFile>>,
    settings: EntranceSettings,
}

impl Keepers {
    /// What the doors ask.
    pub(super) fn entrance(&self) -> doors::EntranceSettings {
        let tokens = |verifier: &Verifier| {
            let tokens = self.settings.tokens.as_ref();
            let anonymous_role = tokens.and_then(|tokens| tokens.anonymous_role.as_deref());
            Tokens {
                verifier: verifier.clone(),
                policies: self.policies.as_ref().map_or_else(nothing, |policies| policies.in_force()),
                anonymous_role: anonymous_role.map(Arc::from),
            }
        };
        doors::EntranceSettings {
            authority: self
                .verifier
                .as_ref()
                .map_or(Authority::Open, |verifier| Authority::Tokens(tokens(verifier))),
            allowed_origins: self.settings.allowed_origins.clone(),
            trusted_proxies: self.settings.trusted_proxies.clone(),
        }
    }

    /// The task that says what of the policies does not fit the tables of `target`.
    pub(super) fn watch_policies(&self, tasks: &mut Tasks, target: &Target, stop: &CancellationToken) {
        if let Some(policies) = self.policies.clone() {
            let watch = watch_policies(policies, target.clone(), stop.clone());
            tasks.spawn("fit of policies", watch.map(Ok));
        }
    }

    /// The tasks that keep keys, certificate and policies up to date until `stop`; `reload` says that they changed.
    /// `outages` is told what cannot be used.
    pub(super) fn spawn(
        &self,
        tasks: &mut Tasks,
        mut reload: watch::Receiver<()>,
        stop: &CancellationToken,
        outages: &Outages,
    ) {
        let keys = self.verifier.as_ref().map(|verifier| Arc::clone(verifier.keys()));
        let keys = keys.filter(|keys| keys.can_change());
        if let Some(keys) = keys.clone() {
            let stop = stop.clone();
            let renew = async move { keys.renew(Renewal::default(), stop).await };
            tasks.spawn("keys", renew.map(Ok));
        }
        if let Some(tls) = self.tls.clone() {
            let stop = stop.clone();
            let renew = async move { tls.renew(stop).await };
            tasks.spawn("certificate", renew.map(Ok));
        }
        if let Some(policies) = self.policies.clone() {
            let follow = policies.follow(reload.clone(), stop.clone(), outages.clone());
            tasks.spawn("policies", follow.map(Ok));
        }
        let (tls, stop) = (self.tls.clone(), stop.clone());
        let has_nothing = keys.is_none() && tls.is_none() && self.policies.is_none();
        let follow = async move {
            while reload.changed().await.is_ok() {
                // Whoever reads something again says so himself.
                if has_nothing {
                    tracing::info!(
                        "SIGHUP: nothing is read again, as there are no keys, certificate or policies in files; settings are \
                         read at the start alone"
                    );
                }
                keys.iter().for_each(|keys| keys.reload());
                tls.iter().for_each(|tls| tls.reload());
            }
            // Nobody is left who could ask.
            std::future::pending::<()>().await
        };
        tasks.spawn("reload", async move {
            stop.run_until_cancelled(follow).await;
            Ok(())
        });
    }
}
