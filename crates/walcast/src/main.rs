//! The walcast daemon and its command line.
//!
//! ```text
//! main ──► cli (what was asked) ──► settings (with what) ──► dispatch ──► commands::*, app, demo
//!                                                               └──► output (for people or as JSON lines)
//! ```
//!
//! Everything that can fail without a network happens before the runtime starts.

mod app;
mod cli;
mod commands;
mod demo;
mod dispatch;
mod output;
mod policy_file;
mod policy_fit;
mod settings;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    dispatch::run(cli::Cli::parse())
}
