//! The promises of walcast, each a module, against real Postgres, the real daemon and real sockets.

mod acks;
mod bad_input;
mod conformance;
mod crash;
mod entrance;
mod failover;
mod filters;
mod fire;
mod gate;
mod http;
mod idle;
mod initial_sync;
mod keys;
mod large_transaction;
mod last_images;
mod meta;
mod new_tables;
mod observer;
mod resume;
mod retention;
mod rights;
mod takeover;
mod upkeep;
mod values;
mod wal_budget;
mod workload;
