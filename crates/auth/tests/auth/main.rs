//! Authentication from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod authority;
mod tokens;
