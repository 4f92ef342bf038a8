//! TLS by rustls, in the modes of libpq.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::verify::{Trust, Verifier};
use crate::connection_string::{ClientCertificate, RootCertificates, SslMode, TlsSettings};
use crate::socket::Socket;

/// Shakes hands over `stream` with the server that the connection string calls `name`.
///
/// The certificates are read from their files each time, so a renewed one takes effect. The error is a text for
/// [`crate::Error::Tls`].
pub(super) async fn handshake(
    settings: &TlsSettings,
    name: &str,
    stream: Socket<TcpStream>,
) -> Result<TlsStream<Socket<TcpStream>>, String> {
    let config = Arc::new(client_config(settings, name)?);
    // A name that is no DNS name cannot be sent; an address never is. The verifier knows the name from elsewhere.
    let server_name = ServerName::try_from(name.to_owned())
        .unwrap_or_else(|_| ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let connected = TlsConnector::from(config).connect(server_name, stream).await;
    connected.map_err(|error| match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)) => {
            format!("the server's certificate is not made out to the name {name:?}")
        }
        Some(rustls::Error::InvalidCertificate(cause)) => {
            format!("the server's certificate is not good: {cause}")
        }
        _ => error.to_string(),
    })
}

fn client_config(settings: &TlsSettings, name: &str) -> Result<ClientConfig, String> {
    // The provider is named here, so nothing depends on a process-wide default that another crate may race for.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut versions = Vec::new();
    if settings.allow_tls12 {
        versions.push(&rustls::version::TLS12);
    }
    if settings.allow_tls13 {
        versions.push(&rustls::version::TLS13);
    }
    let trust = trust(settings, name)?;
    let verifier = Arc::new(Verifier::new(trust, provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let (chain, key) = client_certificate(client)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                format!("the client certificate {}: {error}", client.certificate.display())
            })?
        }
    };
    config.enable_sni = settings.server_name_indication;
    if settings.direct {
        // Servers that are spoken to directly insist on it (PostgreSQL 17).
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(config)
}

/// What to check, by mode: `verify-full` chain and name, `verify-ca` the chain, the others the chain when there is
/// a root certificate file and nothing when there is none.
fn trust(settings: &TlsSettings, name: &str) -> Result<Trust, String> {
    let verifies = settings.mode >= SslMode::VerifyCa;
    let certificates = match &settings.roots {
        RootCertificates::System => {
            let loaded = rustls_native_certs::load_native_certs();
            if loaded.certs.is_empty() {
                return Err(
                    "sslrootcert=system, but the system has no certificates (install ca-certificates)".into(),
                );
            }
            loaded.certs
        }
        RootCertificates::File(path) if path.exists() => certificates(path)?,
        RootCertificates::File(path) if verifies => {
            let (path, mode) = (path.display(), settings.mode);
            return Err(format!(
                "sslmode={mode} needs the root certificate file {path}, which does not exist"
            ));
        }
        RootCertificates::None if verifies => {
            let mode = settings.mode;
            return Err(format!("sslmode={mode} needs sslrootcert=<file> or sslrootcert=system"));
        }
        RootCertificates::File(path) => {
            tracing::warn!(path = %path.display(), "sslrootcert does not exist: the certificate is not checked");
            return Ok(Trust::Anybody);
        }
        RootCertificates::None => return Ok(Trust::Anybody),
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err("none of the root certificates could be understood".into());
    }
    let name = (settings.mode == SslMode::VerifyFull).then(|| name.to_owned());
    Ok(Trust::Authorities { roots, certificates, name })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("the file {} holds no certificate in PEM form", path.display())),
        Err(error) => Err(format!("the certificate file {}: {error}", path.display())),
    }
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(client: &ClientCertificate) -> Result<ChainAndKey, String> {
    let key = private_key(&client.key)?;
    Ok((certificates(&client.certificate)?, key))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let path = file.display();
    let metadata = std::fs::metadata(file)
        .map_err(|error| format!("the client certificate has no key: {path}: {error}"))?;
    // libpq's rule: nobody else may read it; a key of root may be readable for a group.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(format!("others may read the private key {path}; chmod 0600 {path}"));
    }
    PrivateKeyDer::from_pem_file(file).map_err(|error| format!("the private key {path}: {error}"))
}

/// What of the files keeps every handshake from being tried.
pub(super) fn unusable_files(settings: &TlsSettings) -> Vec<String> {
    let trust = trust(settings, "").err();
    let client = settings.client.iter();
    let client =
        client.flat_map(|client| [certificates(&client.certificate).err(), private_key(&client.key).err()]);
    trust.into_iter().chain(client.flatten()).collect()
}
