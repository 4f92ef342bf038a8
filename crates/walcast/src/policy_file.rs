//! The file of policies, read once.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walcast_policy::{Mistake, Policies};

use crate::output::count;

/// The largest file that is read; more is no file of policies.
const BYTES_MAX: u64 = 16 << 20;

/// Why a file of policies cannot be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Unreadable(io::Error),
    Wrong(Vec<Mistake>),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        self.mistakes().iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Unusable {}

impl Unusable {
    /// What is wrong, without the mistakes.
    pub(crate) fn summary(&self) -> String {
        let path = self.path.display();
        match &self.why {
            Why::Unreadable(error) => format!("the policies in {path} cannot be read: {error}"),
            Why::Wrong(mistakes) => format!("{} in {path}", count(mistakes.len() as u64, "mistake")),
        }
    }

    /// What to do about it; each mistake says it itself.
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match &self.why {
            Why::Unreadable(_) => Some("check that the file is there and may be read by walcast's user"),
            Why::Wrong(_) => None,
        }
    }

    /// All mistakes, where it could be read.
    pub(crate) fn mistakes(&self) -> &[Mistake] {
        match &self.why {
            Why::Unreadable(_) => &[],
            Why::Wrong(mistakes) => mistakes,
        }
    }
}

/// The text of the file. Symbolic links are followed each time.
///
/// # Errors
/// When it cannot be read, is not UTF-8, or larger than any file of policies.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", BYTES_MAX >> 20)));
    }
    Ok(text)
}

/// What the outcome of reading the file says.
///
/// # Errors
/// When it was not read, or is wrong: with all mistakes.
pub(crate) fn policies(path: &Path, text: io::Result<&str>) -> Result<Policies, Unusable> {
    let unusable = |why| Unusable { path: path.to_owned(), why };
    let text = text.map_err(|error| unusable(Why::Unreadable(error)))?;
    Policies::parse(text).map_err(|mistakes| unusable(Why::Wrong(mistakes)))
}

/// Reads the file.
///
/// # Errors
/// As [`policies`].
pub(crate) fn read(path: &Path) -> Result<Policies, Unusable> {
    let read = text(path);
    policies(path, read.as_deref().map_err(|error| io::Error::new(error.kind(), error.to_string())))
}
