//! Writers that keep four tables busy: see `walcast_testkit::workload`.

pub(crate) use walcast_testkit::workload::{TABLES, Workload, create};
