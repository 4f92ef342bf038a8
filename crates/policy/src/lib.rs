//! What a client may have: policies of the configuration, and the rights that follow from them for the bearer of a token.
//!
//! ```text
//!  policies.toml ──parse──► Policies ──rights(role, claims)──► Rights ──of(table)──► Grant: columns, rows
//! ```
//!
//! Nothing is granted that no policy grants. This crate does no I/O: who reads the file, and again when it changes, and who
//! applies the rights to rows, is elsewhere.
//!
//! ```
//! use walcast_filter::Claims;
//! use walcast_model::RelationName;
//! use walcast_policy::Policies;
//!
//! let text = r#"
//!     [[policy]]
//!     role = "customer"
//!     table = "public.orders"
//!     columns = ["id", "total"]
//!     where = "customer_id = claims.sub"
//! "#;
//! let policies = Policies::parse(text).map_err(|mistakes| mistakes[0].clone())?;
//! let rights = policies.rights("customer", &Claims::parse(r#"{"sub": "42"}"#)?);
//! assert!(rights.of(&RelationName::new("public", "orders")).is_some());
//! assert!(rights.of(&RelationName::new("public", "salaries")).is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which policy counts
//!
//! Exactly one policy says what a role may have of a table, and none adds to another: those of the role itself before
//! those of every role (`*`), and among them the one that says most about the table (its name before its schema before
//! `*`). So a policy for one table can also take away what a wider one gives.
//!
//! Channels are granted by patterns of their names, of which none says more than another: there, those of the role itself
//! that name the channel add up, and those of every role count where none of them does.

mod channel;
mod mistake;
mod policies;
mod policy;
mod read;
mod rights;

pub use channel::{ChannelCounts, ChannelGrant, ChannelGrants, ChannelRights, ChannelSaying};
pub use mistake::Mistake;
pub use policies::Policies;
pub use policy::{Place, TablePolicy};
pub use rights::{Denial, Grant, Rights};
