//! What can be wrong with a token, and with the keys.

/// Why a token was refused. The text is for the client: it says what to mend, and nothing about the keys.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// Longer than [`crate::TOKEN_BYTES_MAX`].
    #[error("the token has {bytes} bytes; at most {max} are read")]
    TooLong {
        /// Of this token.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not three parts of base64 with JSON in them.
    #[error("the token is not a JSON Web Token")]
    Malformed,
    /// No key of ours made it: another signature, another algorithm, or a key id that is not known.
    #[error("the token is not signed by a key that this server trusts")]
    Signature,
    /// Its time is over.
    #[error("the token has expired; ask for a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet; check the clocks")]
    NotYetValid,
    /// It is for somebody else.
    #[error("the token is for another audience (claim \"aud\")")]
    Audience,
    /// Somebody else issued it.
    #[error("the token is from another issuer (claim \"iss\")")]
    Issuer,
    /// It lacks a claim that is required.
    #[error("the token has no claim {0:?}")]
    Missing(String),
    /// A claim has not the form that it must have.
    #[error("the claim {0:?} of the token has another form than it must have")]
    Claim(String),
}

impl Rejection {
    /// One word for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "too_long",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Missing(_) => "missing_claim",
            Self::Claim(_) => "bad_claim",
        }
    }
}

/// Why keys could not be loaded. The text is for the operator, and has no secret in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A secret that could be guessed (RFC 7518, section 3.2: as long as the hash).
    #[error(
        "the secret has {bytes} bytes; use at least {min}, for instance the output of: openssl rand -base64 48"
    )]
    ShortSecret {
        /// Of this secret.
        bytes: usize,
        /// The limit.
        min: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read the keys in {path}: {error}")]
    File {
        /// Which one.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file that is no public key.
    #[error(
        "{path} is no public key in PEM: expected PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE of an RSA, P-256, P-384 or Ed25519 key"
    )]
    Pem {
        /// Which one.
        path: String,
    },
    /// Text that is no key set.
    #[error("{place} is no JSON Web Key Set: {reason}")]
    Jwks {
        /// File or URL.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A key set in which nothing can verify a signature.
    #[error("{place} has no key that can verify a signature: {left_out}")]
    NoKeys {
        /// File or URL.
        place: String,
        /// Why each of its keys was left out.
        left_out: String,
    },
    /// More than [`crate::KEYS_BYTES_MAX`].
    #[error("{place} is larger than {max} bytes")]
    TooLarge {
        /// File or URL.
        place: String,
        /// The limit.
        max: usize,
    },
    /// A URL that keys must not come from.
    #[error("keys cannot be taken from {url}: {reason}")]
    Url {
        /// Which one.
        url: String,
        /// Why.
        reason: &'static str,
    },
    /// A URL that did not answer with keys.
    #[error("cannot fetch the keys from {url}: {reason}")]
    Fetch {
        /// Which one.
        url: String,
        /// What happened.
        reason: String,
    },
}

impl KeyError {
    /// What to do about it, where the daemon runs.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::ShortSecret { .. } => "write a longer secret into the file",
            Self::File { .. } => "check that the file is there and may be read by walcast's user",
            Self::Pem { .. } => "write the whole public key into the file",
            Self::Jwks { place, .. } | Self::NoKeys { place, .. } if place.starts_with("http") => {
                "open the URL and see what it answers: it must be a key set, {\"keys\": […]}, with a key for signatures"
            }
            Self::Jwks { .. } | Self::NoKeys { .. } => {
                "write a whole key set, {\"keys\": […]}, with a key for signatures into the file"
            }
            Self::TooLarge { .. } => "leave out the keys that are not used for tokens",
            Self::Url { .. } => "name the URL that the identity provider calls jwks_uri",
            Self::Fetch { .. } => "check that the URL is right and that its server can be reached from here",
        }
    }
}
