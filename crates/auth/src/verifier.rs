//! Tokens in, identities out.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use metrics::counter;
use serde_json::value::RawValue;

use crate::error::Rejection;
use crate::identity::Identity;
use crate::key_ring::KeyRing;
use crate::metrics as names;

/// A token may have so many bytes.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What a token must say beside being signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// It must be for one of these (`aud`); empty: `aud` is not looked at.
    pub audiences: Vec<String>,
    /// It must be from one of these (`iss`); empty: `iss` is not looked at.
    pub issuers: Vec<String>,
    /// How far clocks may be apart, for `exp` and `nbf`.
    pub leeway: Duration,
    /// Whether it must expire.
    pub expiry_required: bool,
    /// The claim that names the role, as a path with dots.
    pub role_claim: String,
    /// The role of a token that names none.
    pub default_role: String,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            audiences: Vec::new(),
            issuers: Vec::new(),
            leeway: Duration::from_secs(30),
            expiry_required: true,
            role_claim: "role".to_owned(),
            default_role: "authenticated".to_owned(),
        }
    }
}

impl Rules {
    /// Who the bearer of these claims (a JSON object) is, once they are signed, in time and for us; that is not looked at.
    ///
    /// # Errors
    /// When it is no object, or when the role, `sub` or `exp` has another type than it must have.
    pub fn identity(&self, claims: &str) -> Result<Identity, Rejection> {
        Identity::new(claims, &self.role_claim, &self.default_role)
    }
}

/// Verifies tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Verifier {
    rules: Arc<Rules>,
    keys: Arc<KeyRing>,
}

impl Verifier {
    /// With these keys, under these rules.
    pub fn new(keys: Arc<KeyRing>, rules: Rules) -> Self {
        Self { rules: Arc::new(rules), keys }
    }

    /// The keys it verifies with.
    pub const fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// How far clocks may be apart.
    pub fn leeway(&self) -> Duration {
        self.rules.leeway
    }

    /// Who sent this token. Takes microseconds to a millisecond of processor time, by key; does not wait.
    ///
    /// # Errors
    /// Why it is refused; the text may be told to the client.
    pub fn verify(&self, token: &str) -> Result<Identity, Rejection> {
        self.check(token).inspect_err(|rejection| {
            counter!(names::REJECTED, "reason" => rejection.label()).increment(1);
        })
    }

    fn check(&self, token: &str) -> Result<Identity, Rejection> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Rejection::TooLong { bytes: token.len(), max: TOKEN_BYTES_MAX });
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
            // A well-formed header with an algorithm that is none of ours, "none" among them.
            ErrorKind::Json(error) if error.is_data() => Rejection::Signature,
            _ => Rejection::Malformed,
        })?;
        let validation = self.validation(header.alg);
        let keys = self.keys.current();
        let mut rejection = Rejection::Signature;
        for key in keys.candidates(header.kid.as_deref(), header.alg) {
            match jsonwebtoken::decode::<Box<RawValue>>(token, &key.key, &validation) {
                Ok(data) => {
                    return self.rules.identity(data.claims.get());
                }
                Err(error) => match reason(error.kind()) {
                    // Another key with the same id, or without one, may have made it.
                    Rejection::Signature => {}
                    other => rejection = other,
                },
            }
        }
        if rejection == Rejection::Signature {
            self.keys.missed();
        }
        Err(rejection)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let rules = &self.rules;
        let set = |values: &[String]| (!values.is_empty()).then(|| values.iter().cloned().collect());
        let mut validation = Validation::new(algorithm);
        validation.leeway = rules.leeway.as_secs();
        validation.validate_nbf = true;
        validation.aud = set(&rules.audiences);
        validation.validate_aud = validation.aud.is_some();
        validation.iss = set(&rules.issuers);
        let required = [
            ("exp", rules.expiry_required),
            ("aud", validation.aud.is_some()),
            ("iss", validation.iss.is_some()),
        ];
        validation.required_spec_claims = required
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(name, _)| name.to_owned())
            .collect::<HashSet<_>>();
        validation
    }
}

fn reason(kind: &ErrorKind) -> Rejection {
    match kind {
        ErrorKind::ExpiredSignature => Rejection::Expired,
        ErrorKind::ImmatureSignature => Rejection::NotYetValid,
        ErrorKind::InvalidAudience => Rejection::Audience,
        ErrorKind::InvalidIssuer => Rejection::Issuer,
        ErrorKind::MissingRequiredClaim(claim) => Rejection::Missing(claim.clone()),
        ErrorKind::InvalidClaimFormat(claim) => Rejection::Claim(claim.clone()),
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            Rejection::Malformed
        }
        _ => Rejection::Signature,
    }
}
