//! Who a client is: JSON Web Tokens, checked against keys that may change while the daemon runs.
//!
//! ```text
//!  KeySource ──load, again and again──► KeyRing ──current keys──► Verifier::verify(token) ──► Identity
//!  secret, PEM file,                    (one task)                                            role, claims,
//!  JWKS file, JWKS URL                                                                        expiry
//! ```
//!
//! What an [`Identity`] may see is not decided here: that is what policies are for.
//!
//! # What is trusted
//!
//! - The key decides the algorithm, not the token: a secret verifies HMACs and nothing else, an RSA key RS and PS,
//!   an elliptic curve its own ES, an Ed25519 key EdDSA. `none` does not exist. A key that names its algorithm (`alg`
//!   of a JWK) verifies that one only; a key that is not for signatures (`use`) is left out.
//! - A token must expire, unless [`Rules::expiry_required`] says otherwise. Where an audience or an issuer is set, the token must name it.
//! - Keys over the network come by `https`, or from this machine.
//! - Keys that could be loaded once stay in use while their source cannot be reached ([`KeyRing`]).

mod error;
mod fetch;
mod identity;
mod key_ring;
mod key_set;
mod key_source;
pub mod metrics;
mod verifier;

pub use error::{KeyError, Rejection};
pub use identity::{Claims, Identity};
pub use key_ring::{KeyRing, Renewal};
pub use key_set::{KeySet, SECRET_BYTES_MIN};
pub use key_source::{KEYS_BYTES_MAX, KeySource};
pub use verifier::{Rules, TOKEN_BYTES_MAX, Verifier};
