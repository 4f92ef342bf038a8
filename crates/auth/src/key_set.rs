//! Keys that verify signatures, each with the algorithms that it is for.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use crate::error::KeyError;

/// A secret must have at least so many bytes: the output of SHA-256 (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// One key.
pub(crate) struct Key {
    id: Option<String>,
    pub(crate) key: DecodingKey,
    pub(crate) algorithms: Vec<Algorithm>,
}

/// Keys that are trusted at a time.
#[derive(Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.id, &key.algorithms))).finish()
    }
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl KeySet {
    /// A shared secret, for HS256, HS384 and HS512.
    ///
    /// # Errors
    /// When it is shorter than [`SECRET_BYTES_MIN`].
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret { bytes: secret.len(), min: SECRET_BYTES_MIN });
        }
        let algorithms = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        Ok(Self { keys: vec![Key { id: None, key: DecodingKey::from_secret(secret), algorithms }] })
    }

    /// A public key or a certificate in PEM; `path` is for the error.
    ///
    /// # Errors
    /// When it is none of an RSA, P-256, P-384 or Ed25519 key.
    pub fn from_pem(pem: &[u8], path: &str) -> Result<Self, KeyError> {
        let (key, algorithms) = if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            (key, RSA.to_vec())
        } else if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            (key, vec![Algorithm::EdDSA])
        } else if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            // An uncompressed point: 65 bytes on P-256, 97 on P-384.
            let algorithm = match key.try_get_as_bytes().map(<[u8]>::len) {
                Ok(65) => Algorithm::ES256,
                Ok(97) => Algorithm::ES384,
                _ => return Err(KeyError::Pem { path: path.to_owned() }),
            };
            (key, vec![algorithm])
        } else {
            return Err(KeyError::Pem { path: path.to_owned() });
        };
        Ok(Self { keys: vec![Key { id: None, key, algorithms }] })
    }

    /// A JSON Web Key Set (RFC 7517); `place` is for errors. Keys that are not for signatures, or of a kind that is
    /// not known, are left out.
    ///
    /// # Errors
    /// When it is no key set, or nothing is left of it.
    pub fn from_jwks(json: &[u8], place: &str) -> Result<Self, KeyError> {
        let place = || place.to_owned();
        let set: JwkSet = serde_json::from_slice(json)
            .map_err(|error| KeyError::Jwks { place: place(), reason: error.to_string() })?;
        let mut left_out = Vec::new();
        let mut keys = Vec::new();
        for jwk in &set.keys {
            match key(jwk) {
                Ok(key) => keys.push(key),
                Err(reason) => {
                    let id = jwk.common.key_id.as_deref().unwrap_or("without kid");
                    left_out.push(format!("{id}: {reason}"));
                }
            }
        }
        if keys.is_empty() {
            let left_out = if left_out.is_empty() { "it is empty".to_owned() } else { left_out.join("; ") };
            return Err(KeyError::NoKeys { place: place(), left_out });
        }
        Ok(Self { keys })
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that can have made a token with this header: those with its id (or without any, on either side) that are
    /// for its algorithm.
    pub(crate) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(move |key| {
            let same_id = match (id, key.id.as_deref()) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            };
            same_id && key.algorithms.contains(&algorithm)
        })
    }
}

/// A key of a set, or why it is left out.
fn key(jwk: &Jwk) -> Result<Key, String> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Err("it is not for signatures (\"use\")".to_owned());
    }
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            ref other => return Err(format!("curve {other:?} is not supported")),
        },
        AlgorithmParameters::OctetKeyPair(parameters) => match parameters.curve {
            EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            ref other => return Err(format!("curve {other:?} is not supported")),
        },
        AlgorithmParameters::OctetKey(_) => vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        _ => return Err("its kind (\"kty\") is not known".to_owned()),
    };
    let algorithms = match &jwk.common.key_algorithm {
        None => family,
        Some(named) => {
            let algorithm: Result<Algorithm, _> = named.to_string().parse();
            match algorithm {
                Ok(algorithm) if family.contains(&algorithm) => vec![algorithm],
                _ => return Err(format!("its algorithm {named} does not go with its kind")),
            }
        }
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    if let (AlgorithmParameters::OctetKey(_), Ok(secret)) = (&jwk.algorithm, key.try_get_as_bytes())
        && secret.len() < SECRET_BYTES_MIN
    {
        return Err(format!("its secret has {} bytes; at least {SECRET_BYTES_MIN}", secret.len()));
    }
    Ok(Key { id: jwk.common.key_id.clone(), key, algorithms })
}
