//! TLS on the listening side, with a certificate that may be renewed while the daemon runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::metrics as names;

/// How often it is looked whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A file may have so many bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No certificate in PEM.
    #[error("{} has no certificate in PEM (BEGIN CERTIFICATE)", path.display())]
    NoCertificate {
        /// Which one.
        path: PathBuf,
    },
    /// No private key in PEM.
    #[error("{} has no private key in PEM (BEGIN PRIVATE KEY) that is not encrypted", path.display())]
    NoKey {
        /// Which one.
        path: PathBuf,
    },
    /// They cannot be used, or not together.
    #[error("{} and {} do not go together: {error}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
}

impl CertificateError {
    /// What to do about it, where the daemon runs.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } => "check that the file is there and may be read by walcast's user",
            Self::NoCertificate { .. } => {
                "write the certificate into it, followed by those that lead to its authority"
            }
            Self::NoKey { .. } => {
                "write the certificate's private key into it; openssl pkey -in FILE -out FILE takes a passphrase off"
            }
            Self::Mismatch { .. } => {
                "let tls_cert_file and tls_key_file name one certificate and its own key"
            }
        }
    }
}

/// A certificate with its key, from files that are looked at again. TLS 1.2 and 1.3, by aws-lc-rs.
#[derive(Debug)]
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    wanted: Notify,
}

/// The content of both files.
type Content = (Vec<u8>, Vec<u8>);

impl ServerTls {
    /// Reads both files: the certificate with those that lead to its authority, and its private key.
    ///
    /// # Errors
    /// When they cannot be used.
    pub async fn load(certificate: PathBuf, key: PathBuf) -> Result<Arc<Self>, CertificateError> {
        let content = read(&certificate, &key).await?;
        let current = certified(&certificate, &key, &content)?;
        Ok(Arc::new(Self { certificate, key, current: RwLock::new(current), wanted: Notify::new() }))
    }

    /// Looks at both files before there is a runtime: what is wrong with the certificate, and what with its key. That they
    /// do not go together is said of the key.
    pub fn look(certificate: &Path, key: &Path) -> (Option<CertificateError>, Option<CertificateError>) {
        let chain = read_now(certificate).and_then(|text| chain(certificate, &text));
        let private = read_now(key).and_then(|text| private(key, &text));
        match (chain, private) {
            (Ok(chain), Ok(private)) => (None, paired(certificate, key, chain, private).err()),
            (chain, private) => (chain.err(), private.err()),
        }
    }

    /// The files have changed: read them, soon. Does nothing while [`ServerTls::renew`] does not run.
    pub fn reload(&self) {
        self.wanted.notify_one();
    }

    /// Reads the files again when they have changed, until cancelled. New connections get the new certificate. What cannot
    /// be used is logged once, and the one before stays.
    pub async fn renew(&self, cancel: CancellationToken) {
        let mut seen = read(&self.certificate, &self.key).await.ok();
        loop {
            let is_wanted = tokio::select! {
                // All are cancel-safe.
                () = cancel.cancelled() => return,
                () = self.wanted.notified() => true,
                () = tokio::time::sleep(LOOK_INTERVAL) => false,
            };
            let found = read(&self.certificate, &self.key).await;
            if !is_wanted && found.as_ref().ok() == seen.as_ref() {
                continue;
            }
            let taken = found.and_then(|content| {
                let taken = certified(&self.certificate, &self.key, &content);
                seen = Some(content);
                taken
            });
            match taken {
                Ok(certified) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = certified;
                    tracing::info!(certificate = %self.certificate.display(), "the certificate was read again");
                }
                Err(error) => {
                    metrics::counter!(names::CERTIFICATE_FAILURES).increment(1);
                    let hint = error.hint();
                    tracing::warn!(%error, hint, "the certificate cannot be renewed; the one before stays in use");
                }
            }
        }
    }

    pub(super) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl ResolvesServerCert for ServerTls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    // Named, because a process in which two crates ask for two providers has no default one.
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

async fn read(certificate: &Path, key: &Path) -> Result<Content, CertificateError> {
    Ok((read_one(certificate).await?, read_one(key).await?))
}

async fn read_one(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_now(&owned)).await;
    // It only panics together with the process.
    read.unwrap_or_else(|error| {
        Err(CertificateError::File { path: path.to_owned(), error: io::Error::other(error) })
    })
}

fn read_now(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |error| CertificateError::File { path: path.to_owned(), error };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(failed)
}

fn certified(
    certificate: &Path,
    key: &Path,
    content: &Content,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    paired(certificate, key, chain(certificate, &content.0)?, private(key, &content.1)?)
}

fn chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    chain.ok_or_else(|| CertificateError::NoCertificate { path: path.to_owned() })
}

fn private(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| CertificateError::NoKey { path: path.to_owned() })
}

fn paired(
    certificate: &Path,
    key: &Path,
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let certified = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
        CertificateError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned(), error }
    })?;
    Ok(Arc::new(certified))
}
