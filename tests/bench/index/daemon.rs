//! The real daemon, over WebSockets.

use crate::Outcome;
use crate::options::Options;

pub(crate) async fn run(_: &Options) -> Outcome<()> {
    Ok(())
}
