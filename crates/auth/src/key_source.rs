//! Where keys come from.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use url::Url;

use crate::error::KeyError;
use crate::fetch;
use crate::key_set::KeySet;

/// A file or an answer with keys may have so many bytes.
pub const KEYS_BYTES_MAX: usize = 1 << 20;

/// Where keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// A shared secret.
    Secret(Vec<u8>),
    /// A file with a shared secret; a line end after it does not belong to it.
    SecretFile(PathBuf),
    /// A file with a public key or a certificate.
    PemFile(PathBuf),
    /// A file with a JSON Web Key Set.
    JwksFile(PathBuf),
    /// A URL that answers with a JSON Web Key Set: see [`KeySource::url`].
    JwksUrl(Url),
}

// Without the secret.
impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl KeySource {
    /// A URL that answers with a JSON Web Key Set.
    ///
    /// # Errors
    /// When it is not `https`, and not `http` to this machine: whoever could change the answer could be anybody.
    pub fn url(url: Url) -> Result<Self, KeyError> {
        let is_local = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => Ok(Self::JwksUrl(url)),
            "http" if is_local => Ok(Self::JwksUrl(url)),
            _ => Err(KeyError::Url { url: url.to_string(), reason: "use https, or http on this machine" }),
        }
    }

    /// Loads the keys that are there now.
    ///
    /// # Errors
    /// When they cannot be read, or there is none. Cancel-safe.
    pub async fn load(&self) -> Result<KeySet, KeyError> {
        match self {
            Self::Secret(secret) => KeySet::from_secret(secret),
            Self::SecretFile(path) | Self::PemFile(path) | Self::JwksFile(path) => {
                self.of_file(path, &read(path.clone()).await?)
            }
            Self::JwksUrl(url) => KeySet::from_jwks(&fetch::get(url).await?, url.as_str()),
        }
    }

    /// Looks at the keys before there is a runtime; what a URL answers is not looked at.
    ///
    /// # Errors
    /// Those of [`KeySource::load`].
    pub fn look(&self) -> Result<(), KeyError> {
        match self {
            Self::Secret(secret) => KeySet::from_secret(secret).map(drop),
            Self::SecretFile(path) | Self::PemFile(path) | Self::JwksFile(path) => {
                self.of_file(path, &read_now(path)?).map(drop)
            }
            Self::JwksUrl(_) => Ok(()),
        }
    }

    /// The keys in the text of its file.
    fn of_file(&self, path: &Path, text: &[u8]) -> Result<KeySet, KeyError> {
        let place = path.display().to_string();
        match self {
            Self::PemFile(_) => KeySet::from_pem(text, &place),
            Self::JwksFile(_) => KeySet::from_jwks(text, &place),
            Self::SecretFile(_) | Self::Secret(_) | Self::JwksUrl(_) => {
                let end = text.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
                KeySet::from_secret(&text[..end])
            }
        }
    }

    /// Whether it is a file.
    pub(crate) const fn is_file(&self) -> bool {
        matches!(self, Self::SecretFile(_) | Self::PemFile(_) | Self::JwksFile(_))
    }

    /// Whether its keys can change while the daemon runs.
    pub const fn can_change(&self) -> bool {
        !matches!(self, Self::Secret(_))
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        match self {
            Self::Secret(_) => "the secret in the settings".to_owned(),
            Self::SecretFile(path) | Self::PemFile(path) | Self::JwksFile(path) => path.display().to_string(),
            Self::JwksUrl(url) => url.to_string(),
        }
    }
}

async fn read(path: PathBuf) -> Result<Vec<u8>, KeyError> {
    let place = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || read_now(&path)).await;
    // It only panics together with the process.
    read.unwrap_or_else(|error| Err(KeyError::File { path: place, error: io::Error::other(error) }))
}

fn read_now(path: &Path) -> Result<Vec<u8>, KeyError> {
    let place = || path.display().to_string();
    let file = |error| KeyError::File { path: place(), error };
    let size = std::fs::metadata(path).map_err(file)?.len();
    if size > KEYS_BYTES_MAX as u64 {
        return Err(KeyError::TooLarge { place: place(), max: KEYS_BYTES_MAX });
    }
    std::fs::read(path).map_err(file)
}
