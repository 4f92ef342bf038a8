//! What a client may have: policies of the configuration, and the rights that follow from them for the bearer of a token.
//!
//! ```text
//!  policies.toml ──parse──► Policies ──rights(role, claims)──► Rights ──of(table)──► Grant: columns, rows
//! ```
//!
//! Nothing is granted that no policy grants. This crate does no I/O: who reads the file, and again when it changes, and who
//! applies the rights to rows, is elsewhere.

mod policies;
mod rights;

pub use policies::{Mistake, Policies};
pub use rights::{Grant, Rights};
