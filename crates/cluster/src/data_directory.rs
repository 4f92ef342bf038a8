//! A data directory: made by `initdb`, copied from an earlier one, and configured.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::geteuid;

use crate::account::{self, Account};
use crate::builder::ServerTls;
use crate::{Error, Installation};

/// Fills `data` by `initdb`. With `reuse`, `initdb` runs once for an installation and its arguments, and later calls,
/// also of other processes, copy what it made.
pub(crate) fn initialise(
    installation: &Installation,
    account: Option<Account>,
    data: &Path,
    arguments: &[String],
    reuse: bool,
) -> Result<(), Error> {
    if !reuse {
        return initdb(installation, account, data, arguments);
    }
    let store = template_store()?;
    let key = template_key(installation, arguments)?;
    let template = store.join(&key);
    if !template.exists() {
        let lock_path = store.join(format!("{key}.lock"));
        let lock =
            File::create(&lock_path).map_err(Error::io(format!("creating {}", lock_path.display())))?;
        lock.lock().map_err(Error::io(format!("locking {}", lock_path.display())))?;
        if !template.exists() {
            initdb(installation, account, data, arguments)?;
            let unfinished = store.join(format!("{key}.unfinished"));
            let _left_by_a_killed_process = fs::remove_dir_all(&unfinished);
            copy(data, &unfinished, None)?;
            return fs::rename(&unfinished, &template)
                .map_err(Error::io(format!("keeping {} for the next cluster", template.display())));
        }
    }
    copy(&template, data, account)
}

/// Copies a data directory whose server is down; the copy belongs to `account`.
pub(crate) fn copy(from: &Path, to: &Path, account: Option<Account>) -> Result<(), Error> {
    let failed = |path: &Path| Error::io(format!("copying {} to {}", path.display(), to.display()));
    DirBuilder::new().mode(0o700).create(to).map_err(failed(from))?;
    account::give(to, account)?;
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failed(&source))?;
        if kind.is_dir() {
            copy(&source, &target, account)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).map_err(failed(&source))?;
            account::give(&target, account)?;
        }
    }
    Ok(())
}

fn initdb(
    installation: &Installation,
    account: Option<Account>,
    data: &Path,
    arguments: &[String],
) -> Result<(), Error> {
    let parent = data.parent().unwrap_or(Path::new("/"));
    let program = installation.bin_dir().join("initdb");
    let output = account::command(&program, parent, account)
        .arg("--pgdata")
        .arg(data)
        .args(["--username=postgres", "--auth=trust", "--no-sync", "--no-instructions"])
        .args(["--encoding=UTF8", "--locale=C"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!(
            "running {} (as root it runs under another account, which needs to reach it)",
            program.display()
        )))?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    Err(Error::Initdb {
        version: installation.version().to_string(),
        output: String::from_utf8_lossy(&printed).trim().to_owned(),
    })
}

/// A folder of this user's own, shared by its processes.
fn template_store() -> Result<PathBuf, Error> {
    let uid = geteuid().as_raw();
    let store = std::env::temp_dir().join(format!("walcast-initdb-{uid}"));
    match DirBuilder::new().mode(0o700).create(&store) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io(format!("creating {}", store.display()))(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(&store).map_err(Error::io(format!("looking at {}", store.display())))?;
    if !found.is_dir() || found.uid() != uid {
        return Err(Error::WrongState(
            "the folder of initdb templates in the temporary folder belongs to somebody else",
        ));
    }
    Ok(store)
}

/// Another installation, another build of it, or other arguments give another key.
fn template_key(installation: &Installation, arguments: &[String]) -> Result<String, Error> {
    let server = installation.bin_dir().join("postgres");
    let found = fs::metadata(&server).map_err(Error::io(format!("looking at {}", server.display())))?;
    let mut hasher = DefaultHasher::new();
    (installation.bin_dir(), found.len(), found.mtime(), arguments).hash(&mut hasher);
    Ok(format!("{}-{:016x}", installation.version(), hasher.finish()))
}

/// The parts of a configuration that a cluster sets itself.
pub(crate) struct Configuration<'a> {
    pub(crate) settings: &'a BTreeMap<String, String>,
    pub(crate) hba: &'a [String],
    pub(crate) tls: Option<&'a ServerTls>,
    pub(crate) standby: bool,
}

/// Writes `walcast.conf` (included by `postgresql.conf`), `pg_hba.conf` and the TLS files.
pub(crate) fn configure(
    data: &Path,
    account: Option<Account>,
    configuration: &Configuration<'_>,
) -> Result<(), Error> {
    let main = data.join("postgresql.conf");
    let failed = |path: &Path| Error::io(format!("writing {}", path.display()));
    let before = fs::read_to_string(&main).map_err(Error::io(format!("reading {}", main.display())))?;
    const INCLUDE: &str = "include 'walcast.conf'\n";
    if !before.ends_with(INCLUDE) {
        fs::write(&main, format!("{before}{INCLUDE}")).map_err(failed(&main))?;
    }
    write_settings(data, account, configuration.settings)?;

    // The first line that fits decides: given lines first; the socket stays open, so that a test can always get in.
    let mut hba = configuration.hba.join("\n");
    hba.push_str("\nlocal all all trust\nlocal replication all trust\n");
    if configuration.hba.is_empty() {
        hba.push_str("host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n");
    }
    write_private(&data.join("pg_hba.conf"), account, &hba)?;
    if let Some(tls) = configuration.tls {
        write_private(&data.join("server.crt"), account, &tls.certificate)?;
        write_private(&data.join("server.key"), account, &tls.key)?;
        if let Some(authority) = &tls.client_authority {
            write_private(&data.join("root.crt"), account, authority)?;
        }
    }
    if configuration.standby {
        write_private(&data.join("standby.signal"), account, "")?;
    }
    Ok(())
}

/// Replaces `walcast.conf`.
pub(crate) fn write_settings(
    data: &Path,
    account: Option<Account>,
    settings: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let lines: String =
        settings.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
    write_private(&data.join("walcast.conf"), account, &lines)
}

fn write_private(path: &Path, account: Option<Account>, text: &str) -> Result<(), Error> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o600)))
        .map_err(Error::io(format!("writing {}", path.display())))?;
    account::give(path, account)
}
