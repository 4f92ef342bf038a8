//! `walcast completions`: what a shell needs to complete our words.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints the script of `shell`.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn run(shell: Shell) -> io::Result<()> {
    // The generator panics when its output fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "walcast", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script)?;
    out.flush()
}
