//! One question to whoever listens at an address, over TLS where that is what is spoken there.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// How long everything may take.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read; more is not expected.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What came of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nobody listens there.
    Nobody(String),
    /// Who listens there did not say anything that could be read, or the way there is barred.
    Silence(String),
    /// What was said; not empty.
    Said(Vec<u8>),
}

impl Answer {
    /// What `GET /readyz` is answered with at `address`: `host:port`, or `unix:` and a path.
    pub(super) async fn of(address: &str) -> Self {
        let asked = async {
            let plain = readyz(address, None).await;
            if !plain.is_of_tls() {
                return plain;
            }
            let tls = match connector() {
                Ok(tls) => tls,
                Err(error) => return Self::Silence(error.to_string()),
            };
            match readyz(address, Some(tls)).await {
                // Without TLS it hung up, and with TLS it does not go on either: it may be anything.
                Self::Silence(_) | Self::Nobody(_) if !matches!(plain, Self::Said(_)) => plain,
                encrypted => encrypted,
            }
        };
        let late = |_| Self::Silence(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()));
        // Boxed: what TLS keeps is large.
        tokio::time::timeout(ANSWER_TIMEOUT, Box::pin(asked)).await.unwrap_or_else(late)
    }

    /// Whether it may be how one who expects TLS answers a plain question: with an alert, or by hanging up.
    fn is_of_tls(&self) -> bool {
        match self {
            // The kind of a record and its version.
            Self::Said(bytes) => matches!(bytes.as_slice(), [0x14..=0x18, 3, ..]),
            Self::Silence(_) => true,
            Self::Nobody(_) => false,
        }
    }
}

async fn readyz(address: &str, tls: Option<TlsConnector>) -> Answer {
    let exchanged = match address.strip_prefix("unix:") {
        Some(path) => match UnixStream::connect(path).await {
            Ok(stream) => secured(stream, "localhost", tls).await,
            Err(error) => return unreached(&error),
        },
        None => match TcpStream::connect(address).await {
            Ok(stream) => secured(stream, address, tls).await,
            Err(error) => return unreached(&error),
        },
    };
    match exchanged {
        Ok(bytes) if bytes.is_empty() => Answer::Silence("it hangs up without an answer".to_owned()),
        Ok(bytes) => Answer::Said(bytes),
        Err(error) => Answer::Silence(error.to_string()),
    }
}

fn unreached(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Answer::Nobody(error.to_string()),
        _ => Answer::Silence(error.to_string()),
    }
}

async fn secured(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    tls: Option<TlsConnector>,
) -> io::Result<Vec<u8>> {
    match tls {
        None => exchange(stream, host).await,
        Some(tls) => {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            // Nobody compares it; a server may choose its certificate by it.
            let name =
                ServerName::try_from(name).unwrap_or(ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            let stream = tls.connect(name, stream).await.map_err(|error| {
                io::Error::new(error.kind(), format!("the TLS handshake failed: {error}"))
            })?;
            exchange(stream, host).await
        }
    }
}

/// One request in HTTP/1.0, so that the answer ends with the connection.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, host: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await {
        // What was said before the connection broke is what was said.
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

fn connector() -> Result<TlsConnector, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(anybody)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Takes every certificate. The question holds nothing that is secret, the answer is shown and nothing else, and the
/// certificate is made out to the name that clients use, which is not the address that is asked here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
