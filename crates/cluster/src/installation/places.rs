//! The folders in which Postgres servers are looked for.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders with one `*` each. Debian and its relatives, PostgreSQL's own RPMs, SUSE, Alpine, a build from source,
/// Homebrew (Apple silicon, Intel, Linux), Postgres.app.
const USUAL: [&str; 11] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/local/pgsql*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// What the search depends on: two variables and the current directory.
#[derive(Debug, Default)]
pub(super) struct Places {
    named: Option<OsString>,
    path: OsString,
    directory: PathBuf,
}

impl Places {
    pub(super) fn of_this_process() -> Self {
        Self {
            named: env::var_os("WALCAST_PG_BIN").filter(|value| !value.is_empty()),
            path: env::var_os("PATH").unwrap_or_default(),
            directory: env::current_dir().unwrap_or_default(),
        }
    }

    /// Folders to look at, best first, some of them without a server or twice under several names.
    pub(super) fn candidates(&self) -> Vec<PathBuf> {
        if let Some(named) = &self.named {
            return env::split_paths(named).collect();
        }
        let mut candidates: Vec<PathBuf> = self
            .directory
            .ancestors()
            .flat_map(|parent| matching(&parent.join(".tools/postgres/*/bin")))
            .collect();
        candidates.extend(env::split_paths(&self.path).filter(|folder| folder.join("postgres").exists()));
        candidates.extend(pg_config_bindir());
        candidates.extend(USUAL.iter().flat_map(|pattern| matching(Path::new(pattern))));
        candidates
    }
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(text.trim())).filter(|folder| folder.join("postgres").exists())
}

/// The existing paths of a pattern that has one `*` in one component.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let components: Vec<_> = pattern.components().collect();
    let Some(star) = components.iter().position(|part| part.as_os_str().to_string_lossy().contains('*'))
    else {
        return vec![pattern.to_owned()];
    };
    let parent: PathBuf = components.iter().take(star).collect();
    let rest: PathBuf = components.iter().skip(star + 1).collect();
    let name =
        components.get(star).map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    let (prefix, suffix) = name.split_once('*').unwrap_or((&name, ""));
    let Ok(entries) = fs::read_dir(&parent) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && name.ends_with(suffix)
        })
        .map(|entry| if rest.as_os_str().is_empty() { entry.path() } else { entry.path().join(&rest) })
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with_server(root: &Path, bin: &str) -> PathBuf {
        let folder = root.join(bin);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("postgres"), "").unwrap();
        folder
    }

    #[test]
    fn a_named_folder_is_the_only_one_looked_at() {
        let places = Places { named: Some("/a/bin:/b/bin".into()), ..Places::of_this_process() };
        assert_eq!(places.candidates(), [PathBuf::from("/a/bin"), PathBuf::from("/b/bin")]);
    }

    #[test]
    fn the_project_folder_comes_first_also_from_a_package_inside_it() {
        let root = tempfile::tempdir().unwrap();
        let fourteen = folder_with_server(root.path(), ".tools/postgres/14/bin");
        let eighteen = folder_with_server(root.path(), ".tools/postgres/18/bin");
        let on_path = folder_with_server(root.path(), "somewhere/bin");
        let package = root.path().join("crates/cluster");
        fs::create_dir_all(&package).unwrap();
        let places = Places { named: None, path: on_path.clone().into(), directory: package };
        assert_eq!(places.candidates()[..3], [fourteen, eighteen, on_path]);
    }

    #[test]
    fn patterns_match_names_with_a_prefix_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let seventeen = folder_with_server(root.path(), "pgsql-17/bin");
        folder_with_server(root.path(), "mysql-8/bin");
        fs::create_dir_all(root.path().join("pgsql-16")).unwrap();
        assert_eq!(matching(&root.path().join("pgsql-*/bin")), [seventeen]);
        assert_eq!(matching(&root.path().join("absent/*/bin")), Vec::<PathBuf>::new());
    }
}
