//! The decoder and the value writers on valid, mutated and arbitrary bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests: clippy's exception knows only test functions")]

#[path = "../../fuzz/checks.rs"]
mod checks;
mod corpus;
mod decode;
mod encoder;
