//! What an operator sees of authentication.

/// Tokens that were refused, by reason.
pub const REJECTED: &str = "walcast_tokens_rejected_total";
/// Times that keys could not be loaded; the ones before stay in use.
pub const KEY_FAILURES: &str = "walcast_auth_key_failures_total";
/// Keys in use (gauge).
pub const KEYS: &str = "walcast_auth_keys";
