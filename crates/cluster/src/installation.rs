//! Finding Postgres servers on this machine.

mod places;

use std::cmp::Reverse;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Error, InstallPlan};
use places::Places;

/// The oldest major version that walcast works with.
const OLDEST: u32 = 14;

/// Version of a Postgres server, such as 15.14. Betas and development versions have minor 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// What people call the version: 14, 15, …
    pub major: u32,
    /// The bug-fix release.
    pub minor: u32,
}

impl Version {
    /// Reads what `postgres --version` prints: `postgres (PostgreSQL) 15.14 (Debian …)`, also `19beta1`, `19devel`.
    fn parse(printed: &str) -> Option<Self> {
        let number = printed.split_once("(PostgreSQL)")?.1.trim_start();
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let major_text = digits(number);
        let minor_text = number[major_text.len()..].strip_prefix('.').map(digits).unwrap_or_default();
        Some(Self { major: major_text.parse().ok()?, minor: minor_text.parse().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// A folder with `postgres` and `initdb` that run on this machine, version 14 or newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin_dir: PathBuf,
    version: Version,
}

impl Installation {
    /// All installations, oldest first; of the same version, the one found first comes last.
    ///
    /// When `WALCAST_PG_BIN` is set (one or more folders, separated by `:`), only they are looked at. Otherwise:
    /// `.tools/postgres/*/bin` in the current directory and its parents, `PATH`, `pg_config --bindir`, and the usual
    /// folders of Debian, RPM systems, SUSE, Alpine, Homebrew and Postgres.app. What does not run is left out.
    pub fn find_all() -> Vec<Self> {
        Self::find_in(&Places::of_this_process())
    }

    fn find_in(places: &Places) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for candidate in places.candidates() {
            match Self::at(&candidate) {
                Ok(installation) if !found.iter().any(|known| known.bin_dir == installation.bin_dir) => {
                    found.push(installation);
                }
                Ok(_seen_already) => {}
                Err(error) => tracing::debug!(%error, "passing over a folder"),
            }
        }
        found.reverse();
        found.sort_by_key(|installation| installation.version);
        found
    }

    /// The newest installation; see [`find_all`](Self::find_all) for where it looks.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], with the command that installs one on this platform.
    pub fn newest() -> Result<Self, Error> {
        Self::find_all().pop().ok_or_else(|| not_found(format!("of version {OLDEST} or newer")))
    }

    /// The newest installation of major version `major`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn with_version(major: u32) -> Result<Self, Error> {
        let mut all = Self::find_all();
        all.sort_by_key(|installation| Reverse(installation.version.minor));
        all.into_iter()
            .find(|installation| installation.version.major == major)
            .ok_or_else(|| not_found(format!("of version {major}")))
    }

    /// The installation whose programs are in `bin_dir`.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] when `postgres` or `initdb` is missing, does not run, or is older than 14.
    pub fn at(bin_dir: &Path) -> Result<Self, Error> {
        let unusable = |reason: String| Error::Unusable { bin_dir: bin_dir.to_owned(), reason };
        // `postgres` may be a link into the folder where its siblings and libraries are.
        let server = fs::canonicalize(bin_dir.join("postgres"))
            .map_err(|error| unusable(format!("postgres: {error}")))?;
        let real_dir = server.parent().unwrap_or(bin_dir).to_owned();
        if !real_dir.join("initdb").exists() {
            return Err(unusable("it has postgres but no initdb; install the server package".to_owned()));
        }
        let output = Command::new(&server)
            .arg("--version")
            .output()
            .map_err(|error| unusable(format!("`postgres --version`: {error}")))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let version = Version::parse(&printed).ok_or_else(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            unusable(format!("`postgres --version` printed {:?} {:?}", printed.trim(), complaint.trim()))
        })?;
        if version.major < OLDEST {
            return Err(unusable(format!("it is version {version}, and walcast needs {OLDEST} or newer")));
        }
        Ok(Self { bin_dir: real_dir, version })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The folder with its programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// One of its programs, when it has it: npm's packages have no `psql`, Debian's have `pg_recvlogical`.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let path = self.bin_dir.join(name);
        path.exists().then_some(path)
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Postgres {} in {}", self.version, self.bin_dir.display())
    }
}

fn not_found(wanted: String) -> Error {
    let advice = match InstallPlan::for_this_platform() {
        Some(plan) => {
            format!("install one with `{plan}`, or name the folder of its programs in WALCAST_PG_BIN")
        }
        None => "install one, or name the folder of its programs in WALCAST_PG_BIN".to_owned(),
    };
    Error::NotFound { wanted, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> Option<Version> {
        Some(Version { major, minor })
    }

    #[test]
    fn reads_the_versions_that_servers_print() {
        assert_eq!(Version::parse("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), version(15, 14));
        assert_eq!(Version::parse("postgres (PostgreSQL) 18.4\n"), version(18, 4));
        assert_eq!(Version::parse("postgres (PostgreSQL) 19beta1\n"), version(19, 0));
        assert_eq!(Version::parse("postgres (PostgreSQL) 19devel\n"), version(19, 0));
        assert_eq!(Version::parse("psql 15\n"), None);
        assert_eq!(Version::parse("postgres (PostgreSQL) new\n"), None);
    }

    #[test]
    fn a_folder_without_a_server_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = Installation::at(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains("no usable Postgres server"), "{error}");
    }

    #[test]
    fn what_was_found_is_sorted_by_version_and_runs() {
        let all = Installation::find_all();
        assert!(
            !all.is_empty(),
            "these tests need a Postgres server: {}",
            Installation::newest().unwrap_err()
        );
        assert!(all.windows(2).all(|pair| pair[0].version() <= pair[1].version()), "{all:?}");
        let newest = Installation::newest().unwrap();
        assert_eq!(Some(&newest), all.last());
        assert_eq!(Installation::with_version(newest.version().major).unwrap().version(), newest.version());
    }

    #[test]
    fn a_missing_version_is_named_in_the_error() {
        let error = Installation::with_version(7).unwrap_err().to_string();
        assert!(error.contains("of version 7") && error.contains("WALCAST_PG_BIN"), "{error}");
    }
}
