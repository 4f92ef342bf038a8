//! Which account the server runs under: Postgres refuses root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{User, geteuid};

use crate::Error;

/// An unprivileged account, used when this process is root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// The account to change to; `None` when this process may run a server itself.
    pub(crate) fn needed() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
            .ok_or(Error::NoAccount)
    }
}

/// A command that runs in `directory` under `account`, without the settings of the caller's own Postgres (`PGDATA`,
/// `PGPORT`, …) and with English messages.
pub(crate) fn command(program: &Path, directory: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env("LC_ALL", "C");
    let inherited: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in inherited.iter().filter(|name| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid);
    }
    command
}

/// Gives `path` to `account`, when there is one.
pub(crate) fn give(path: &Path, account: Option<Account>) -> Result<(), Error> {
    match account {
        None => Ok(()),
        Some(account) => std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
            .map_err(Error::io(format!("changing the owner of {}", path.display()))),
    }
}
