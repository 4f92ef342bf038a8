//! What the commands do, one module for each.

pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod replay;
pub(crate) mod setup;
pub(crate) mod status;
pub(crate) mod tail;
pub(crate) mod teardown;
