//! The promises of walcast, each a module, against real Postgres, the real daemon and real sockets.

mod bad_input;
mod conformance;
mod crash;
mod gate;
mod idle;
mod initial_sync;
mod large_transaction;
mod new_tables;
mod observer;
mod resume;
mod takeover;
mod values;
mod workload;
