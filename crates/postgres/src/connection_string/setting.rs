//! The settings of a connection, each with the type it really has.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One server of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    pub(crate) address: HostAddress,
    pub(crate) port: u16,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum HostAddress {
    /// Nothing was said: the first local socket there is when the connection is made, else `localhost`.
    Default,
    /// The folder of a Unix socket.
    Socket(PathBuf),
    /// A name or an address. The name is what a certificate and a passfile must match; `address` (`hostaddr`)
    /// saves the look-up.
    Tcp { name: String, address: Option<IpAddr> },
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            HostAddress::Default => write!(f, "the local socket, port {}", self.port),
            HostAddress::Socket(folder) => write!(f, "{}/.s.PGSQL.{}", folder.display(), self.port),
            HostAddress::Tcp { name, .. } if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            HostAddress::Tcp { name, .. } => write!(f, "{name}:{}", self.port),
        }
    }
}

/// What the connection string demands of TLS (libpq chapter "SSL Support").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS only when the server insists.
    Allow,
    /// TLS when the server has it. The default.
    Prefer,
    /// TLS; the certificate is checked only when there is a root certificate file.
    Require,
    /// TLS with a certificate of a known authority.
    VerifyCa,
    /// TLS with a certificate of a known authority, made out to this host.
    VerifyFull,
}

impl SslMode {
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, mode)| mode == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// Whom to trust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RootCertificates {
    /// Nothing was said and there is no `~/.postgresql/root.crt`.
    None,
    /// The certificates of this file; it must exist when a mode verifies, or when it was named and exists.
    File(PathBuf),
    /// `system`: what the operating system trusts.
    System,
}

/// The client's own certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Everything about TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    /// Start with TLS instead of asking for it (`sslnegotiation=direct`, PostgreSQL 17).
    pub(crate) direct: bool,
    pub(crate) roots: RootCertificates,
    pub(crate) client: Option<ClientCertificate>,
    pub(crate) server_name_indication: bool,
    pub(crate) allow_tls12: bool,
    pub(crate) allow_tls13: bool,
}

/// `channel_binding`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChannelBindingMode {
    Disable,
    Prefer,
    Require,
}

/// Ways in which a server can ask for a proof of identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AuthMethod {
    /// Nothing asked (trust, peer, certificate).
    None,
    Password,
    Md5,
    ScramSha256,
}

/// `require_auth`: the methods a server may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AllowedMethods(pub(crate) Vec<AuthMethod>);

/// TCP keepalive probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

/// `target_session_attrs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl TargetSession {
    pub(crate) const NAMES: [(&'static str, Self); 6] = [
        ("any", Self::Any),
        ("read-write", Self::ReadWrite),
        ("read-only", Self::ReadOnly),
        ("primary", Self::Primary),
        ("standby", Self::Standby),
        ("prefer-standby", Self::PreferStandby),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, target)| *target == self).map_or("", |(name, _)| name)
    }
}
