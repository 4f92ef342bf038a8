//! The history on real servers, a module per promise.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod append;
mod clients;
mod definitions;
mod faults;
mod feed_record;
mod hole;
mod idle;
mod last_images;
mod lineage;
mod partitions;
mod resume;
mod retention;
mod schema;
mod transactions;
mod visibility;
mod world;
