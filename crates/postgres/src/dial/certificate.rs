//! What a server certificate says: its names, its dates, its hash for channel binding.

use std::net::IpAddr;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512,
    SHA_1_WITH_RSA_ENCRYPTION, SHA_224_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};
use x509_cert::der::{Decode, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const MD5_WITH_RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.4");
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// The `tls-server-end-point` of RFC 5929: the certificate, hashed with its signature's hash function, SHA-256 in
/// place of MD5 and SHA-1. `None` for signatures that have no hash function of their own (Ed25519) or name it
/// elsewhere (RSASSA-PSS).
pub(crate) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = parse(certificate).ok()?.signature_algorithm.oid;
    let bytes = certificate.as_ref();
    Some(match algorithm {
        MD5_WITH_RSA_ENCRYPTION
        | SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | SHA_256_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_256 => Sha256::digest(bytes).to_vec(),
        SHA_224_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_224 => Sha224::digest(bytes).to_vec(),
        SHA_384_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_384 => Sha384::digest(bytes).to_vec(),
        SHA_512_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_512 => Sha512::digest(bytes).to_vec(),
        _ => return None,
    })
}

/// Refuses a certificate outside of its dates.
pub(super) fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = parse(certificate)?.tbs_certificate.validity;
    let problem = if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        CertificateError::NotValidYet
    } else if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        CertificateError::Expired
    } else {
        return Ok(());
    };
    Err(Error::InvalidCertificate(problem))
}

/// Whether a certificate is made out to `host`, by libpq's rules: the alternative names; the common name too when
/// there is no alternative name of the host's kind.
pub(super) fn is_for(certificate: &CertificateDer<'_>, host: &str) -> Result<bool, Error> {
    let certificate = parse(certificate)?;
    let address: Option<IpAddr> = host.parse().ok();
    let alternatives = certificate.tbs_certificate.get::<SubjectAltName>();
    let alternatives = alternatives.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let mut use_common_name = true;
    for name in alternatives.map(|(_, names)| names.0).unwrap_or_default() {
        let (same_kind, matches) = match &name {
            GeneralName::DnsName(pattern) => (address.is_none(), name_matches(pattern.as_str(), host)),
            GeneralName::IpAddress(bytes) => {
                (address.is_some(), address.is_some_and(|address| is_address(address, bytes.as_bytes())))
            }
            _ => continue,
        };
        if matches {
            return Ok(true);
        }
        use_common_name &= !same_kind;
    }
    Ok(use_common_name && common_name(&certificate).is_some_and(|name| name_matches(&name, host)))
}

fn is_address(address: IpAddr, bytes: &[u8]) -> bool {
    match address {
        IpAddr::V4(address) => address.octets() == bytes,
        IpAddr::V6(address) => address.octets() == bytes,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let mut parts = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let value = &parts.rfind(|part| part.oid == COMMON_NAME)?.value;
    match value.tag() {
        x509_cert::der::Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|text| text.to_string()),
        x509_cert::der::Tag::PrintableString => {
            PrintableStringRef::try_from(value).ok().map(|text| text.to_string())
        }
        x509_cert::der::Tag::TeletexString => {
            TeletexStringRef::try_from(value).ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

/// Equal but for case, or `*.` for exactly one label.
fn name_matches(pattern: &str, host: &str) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) =
        pattern.strip_prefix('*').filter(|suffix| suffix.len() >= 2 && suffix.starts_with('.'))
    else {
        return false;
    };
    host.find('.').is_some_and(|dot| dot > 0 && host[dot..].eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(name_matches("DB.example", "db.Example"));
        assert!(name_matches("*.example", "db.example"));
        for host in ["example", ".example", "a.db.example", "dbxexample"] {
            assert!(!name_matches("*.example", host), "{host}");
        }
        assert!(!name_matches("d*.example", "db.example"));
        assert!(!name_matches("*", "db"));
    }
}
