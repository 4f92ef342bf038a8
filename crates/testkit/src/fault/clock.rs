//! A daemon whose clock can be set, by libfaketime.

use std::path::{Path, PathBuf};

use crate::DaemonBuilder;

/// Where Debian and others put it.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of the daemons that were [given](Clock::give) it. Monotonic time is not touched.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// `None` where libfaketime is not installed.
    pub(super) fn find(folder: &Path) -> Option<Self> {
        let library = PLACES.iter().map(Path::new).find(|path| path.is_file())?;
        let clock = Self { library: library.to_owned(), file: folder.join("clock") };
        clock.step(0);
        Some(clock)
    }

    pub(super) fn give(&self, builder: DaemonBuilder) -> DaemonBuilder {
        builder
            .env("LD_PRELOAD", self.library.display())
            .env("FAKETIME_TIMESTAMP_FILE", self.file.display())
            .env("FAKETIME_NO_CACHE", 1)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", 1)
            .env("DONT_FAKE_MONOTONIC", 1)
    }

    /// The clock is so many seconds off the machine's from now on.
    pub(super) fn step(&self, seconds: i64) {
        // In one step: a daemon reads it at any time.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n"))
            .unwrap_or_else(|error| panic!("{}: {error}", next.display()));
        std::fs::rename(&next, &self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
    }
}
