//! Who is let in, and where.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use url::Url;
use walcast_auth::{KeySource, Rules, SECRET_BYTES_MIN};
use walcast_broadcaster::doors::TrustedProxy;

use super::key::{self, Key};
use super::reader::Reader;
use super::value;

/// Who is let in, and where.
#[derive(Clone, Debug)]
pub(crate) struct EntranceSettings {
    /// Where clients connect; at least one.
    pub(crate) listen: Vec<ListenAddress>,
    /// Where operators ask, and nobody else.
    pub(crate) admin_listen: Option<ListenAddress>,
    /// TLS for `listen`.
    pub(crate) tls: Option<TlsFiles>,
    /// Whose tokens are good; `None`: there is no authentication.
    pub(crate) tokens: Option<TokenSettings>,
    /// Others may come without authentication.
    pub(crate) insecure: bool,
    /// Web pages that may connect.
    pub(crate) allowed_origins: Vec<String>,
    /// Whose word is taken for who their clients are.
    pub(crate) trusted_proxies: Vec<TrustedProxy>,
}

/// Where a listener is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl ListenAddress {
    /// Whether only this machine reaches it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// Whose tokens are good.
#[derive(Clone, Debug)]
pub(crate) struct TokenSettings {
    pub(crate) keys: KeySource,
    pub(crate) rules: Rules,
    /// The role of those who have none.
    pub(crate) anonymous_role: Option<String>,
    /// The file that says who may have what; without it, nobody may have anything.
    pub(crate) policies: Option<PathBuf>,
}

impl EntranceSettings {
    /// Where the daemon can be asked how it is.
    pub(crate) fn health_address(&self) -> Option<&ListenAddress> {
        self.admin_listen.as_ref().or_else(|| self.listen.first())
    }

    /// What tokens must say.
    pub(crate) fn rules(&self) -> Rules {
        self.tokens.as_ref().map(|tokens| tokens.rules.clone()).unwrap_or_default()
    }

    /// The file that says who may have what.
    pub(crate) fn policies(&self) -> Option<PathBuf> {
        self.tokens.as_ref()?.policies.clone()
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let tokens = tokens(reader);
        let listen = reader.parse_list(&key::LISTEN, value::listen_address).unwrap_or_default();
        let insecure = reader.switch(&key::INSECURE);
        // The key that was meant may be a mistake of its own; the daemon does not start either way.
        let is_open = !key_sources().iter().any(|(key, _)| reader.is_given(key));
        for address in listen.iter().filter(|address| is_open && !insecure && !address.is_local()) {
            let message = format!(
                "others reach {address}, and without authentication they may read everything that is published; set one of \
                 jwt_secret_file, jwt_pem_file, jwt_jwks_file and jwt_jwks_url, listen on 127.0.0.1, or say insecure"
            );
            reader.refuse(&key::LISTEN, message);
        }
        Self {
            listen,
            admin_listen: reader.parse(&key::ADMIN_LISTEN, value::listen_address),
            tls: tls(reader),
            tokens,
            insecure,
            allowed_origins: reader.parse_list(&key::ALLOWED_ORIGINS, value::origin).unwrap_or_default(),
            trusted_proxies: reader
                .parse_list(&key::TRUSTED_PROXIES, |text| text.parse())
                .unwrap_or_default(),
        }
    }
}

fn tls(reader: &mut Reader<'_>) -> Option<TlsFiles> {
    let certificate = reader.parse(&key::TLS_CERT_FILE, value::path);
    let key = reader.parse(&key::TLS_KEY_FILE, value::path);
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some(TlsFiles { certificate, key }),
        (Some(_), None) => reader.wrong(&key::TLS_CERT_FILE, "needs tls_key_file"),
        (None, Some(_)) => reader.wrong(&key::TLS_KEY_FILE, "needs tls_cert_file"),
        (None, None) => {}
    }
    None
}

pub(super) type Read = fn(&str) -> Result<KeySource, String>;

/// The settings that turn authentication on.
pub(super) fn key_sources() -> [(&'static Key, Read); 5] {
    [
        (&key::JWT_SECRET, secret),
        (&key::JWT_SECRET_FILE, |text| value::path(text).map(KeySource::SecretFile)),
        (&key::JWT_PEM_FILE, |text| value::path(text).map(KeySource::PemFile)),
        (&key::JWT_JWKS_FILE, |text| value::path(text).map(KeySource::JwksFile)),
        (&key::JWT_JWKS_URL, |text| {
            let url = Url::parse(text).map_err(|error| format!("expected a URL: {error}"))?;
            KeySource::url(url).map_err(|error| error.to_string())
        }),
    ]
}

fn secret(text: &str) -> Result<KeySource, String> {
    if text.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "expected at least {SECRET_BYTES_MIN} bytes, for instance the output of: openssl rand -base64 48"
        ));
    }
    Ok(KeySource::Secret(text.as_bytes().to_vec()))
}

fn tokens(reader: &mut Reader<'_>) -> Option<TokenSettings> {
    let sources = key_sources();
    let given: Vec<&'static Key> =
        sources.iter().map(|(key, _)| *key).filter(|key| reader.is_given(key)).collect();
    if let [one, others @ ..] = given.as_slice() {
        others.iter().for_each(|other| reader.contradiction(other, one));
    }
    let mut keys = None;
    for (key, read) in sources {
        keys = keys.or(reader.parse(key, read));
    }
    let mut rules = Rules {
        audiences: reader.parse_list(&key::JWT_AUDIENCE, value::text).unwrap_or_default(),
        issuers: reader.parse_list(&key::JWT_ISSUER, value::text).unwrap_or_default(),
        ..Rules::default()
    };
    reader.duration(&key::JWT_LEEWAY, &mut rules.leeway);
    if let Some(claim) = reader.parse(&key::JWT_ROLE_CLAIM, value::text) {
        rules.role_claim = claim;
    }
    if let Some(role) = reader.parse(&key::JWT_DEFAULT_ROLE, value::text) {
        rules.default_role = role;
    }
    let anonymous_role = reader.parse(&key::ANONYMOUS_ROLE, value::text);
    let policies = reader.parse(&key::POLICIES, value::path);
    if given.is_empty() {
        // Who writes them down believes that tokens are looked at.
        let about_tokens = [
            &key::JWT_AUDIENCE,
            &key::JWT_ISSUER,
            &key::JWT_LEEWAY,
            &key::JWT_ROLE_CLAIM,
            &key::JWT_DEFAULT_ROLE,
            &key::ANONYMOUS_ROLE,
            &key::POLICIES,
        ];
        for key in about_tokens {
            if reader.is_given(key) {
                let message = "tokens are not looked at: set one of jwt_secret_file, jwt_pem_file, jwt_jwks_file and jwt_jwks_url";
                reader.refuse(key, message);
            }
        }
    }
    Some(TokenSettings { keys: keys?, rules, anonymous_role, policies })
}
