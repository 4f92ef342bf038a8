//! A small file system that can be full.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use crate::Cluster;

const SIZE: &str = "4g";

/// A tmpfs; unmounted when dropped.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at `path` for the account that `cluster` runs under; `None` when this process may not mount.
    pub(super) fn mount(path: &Path, cluster: &Cluster) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        std::fs::create_dir_all(path).ok()?;
        if !run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "walcast-soak"])
            .arg(path))
        {
            return None;
        }
        let disk = Self { path: path.to_owned() };
        let owner = std::fs::metadata(cluster.data_directory()).ok()?;
        std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).ok()?;
        Some(disk)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves a few pages free, and then none.
    pub(super) fn fill(&self) {
        let Ok(now) = statvfs(&self.path) else { return };
        let used = (now.blocks() - now.blocks_free()) * now.fragment_size();
        self.resize(&(used + 64 * 1024).to_string());
    }

    pub(super) fn free(&self) {
        self.resize(SIZE);
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = run(Command::new("mount").args(["-o", &options]).arg(&self.path));
        assert!(done, "{} cannot be made {size} large", self.path.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Its server may be about to end.
        run(Command::new("umount").arg("--lazy").arg(&self.path));
    }
}

fn run(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
