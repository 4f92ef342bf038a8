//! How this platform gets a Postgres server.

use std::env;
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;

use crate::Error;

/// The commands with which this platform's package manager installs a Postgres server, and what else they do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallPlan {
    commands: Vec<Vec<String>>,
    side_effect: Option<&'static str>,
}

/// What the choice depends on.
struct Platform<'a> {
    has: &'a dyn Fn(&str) -> bool,
    os_release: &'a str,
    root: bool,
}

impl InstallPlan {
    /// The plan for this machine; `None` when no package manager that walcast knows is here (apt-get, dnf, zypper,
    /// apk, pacman, Homebrew).
    pub fn for_this_platform() -> Option<Self> {
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::for_platform(&Platform { has: &on_path, os_release: &os_release, root: geteuid().is_root() })
    }

    fn for_platform(platform: &Platform<'_>) -> Option<Self> {
        let (lines, side_effect): (&[&str], Option<&'static str>) = if (platform.has)("apt-get") {
            (
                &["apt-get update", "apt-get install -y postgresql"],
                Some(
                    "Debian's and Ubuntu's package also starts a server of its own on port 5432; walcast does not use it",
                ),
            )
        } else if (platform.has)("dnf") && has_old_default(platform.os_release) {
            (&["dnf module enable -y postgresql:16", "dnf install -y postgresql-server"], None)
        } else if (platform.has)("dnf") {
            (&["dnf install -y postgresql-server"], None)
        } else if (platform.has)("zypper") {
            (&["zypper --non-interactive install postgresql-server"], None)
        } else if (platform.has)("apk") {
            (&["apk add postgresql"], None)
        } else if (platform.has)("pacman") {
            (&["pacman -S --noconfirm postgresql"], None)
        } else if (platform.has)("brew") {
            return Some(Self { commands: vec![words("brew install postgresql@17")], side_effect: None });
        } else {
            return None;
        };
        let sudo: &[&str] = if platform.root { &[] } else { &["sudo"] };
        let commands = lines
            .iter()
            .map(|line| sudo.iter().map(|word| (*word).to_owned()).chain(words(line)).collect())
            .collect();
        Some(Self { commands, side_effect })
    }

    /// What the commands do besides, worth telling before they are run.
    pub fn side_effect(&self) -> Option<&'static str> {
        self.side_effect
    }

    /// Says in `progress` what it is going to do, and does it, with the terminal of this process: `sudo` may ask for a
    /// password. Blocks until done.
    ///
    /// # Errors
    ///
    /// [`Error::InstallFailed`] or [`Error::Io`], naming the command.
    pub fn run(&self, progress: &mut dyn Write) -> Result<(), Error> {
        let say = |progress: &mut dyn Write, line: &str| {
            writeln!(progress, "{line}").map_err(Error::io("writing to the terminal"))
        };
        if let Some(side_effect) = self.side_effect {
            say(progress, side_effect)?;
        }
        for words in &self.commands {
            let line = words.join(" ");
            say(progress, &format!("running: {line}"))?;
            let Some((program, arguments)) = words.split_first() else { continue };
            let status = Command::new(program)
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive")
                .status()
                .map_err(Error::io(format!("running `{line}`")))?;
            if !status.success() {
                return Err(Error::InstallFailed { command: line, status: status.to_string() });
            }
        }
        Ok(())
    }
}

impl fmt::Display for InstallPlan {
    /// The commands as one line for a shell.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, command) in self.commands.iter().enumerate() {
            if index > 0 {
                formatter.write_str(" && ")?;
            }
            formatter.write_str(&command.join(" "))?;
        }
        Ok(())
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Red Hat Enterprise Linux 8 and 9 and what is built from them install Postgres 10 and 13 unless told otherwise.
fn has_old_default(os_release: &str) -> bool {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let relatives = format!("{} {}", value("ID"), value("ID_LIKE"));
    let major = value("VERSION_ID").split('.').next().unwrap_or_default().to_owned();
    relatives.split(' ').any(|id| id == "rhel" || id == "centos") && (major == "8" || major == "9")
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder: std::path::PathBuf| Path::exists(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(manager: &'static str, os_release: &str, root: bool) -> Option<String> {
        let has = move |program: &str| program == manager;
        InstallPlan::for_platform(&Platform { has: &has, os_release, root }).map(|plan| plan.to_string())
    }

    #[test]
    fn each_package_manager_has_its_line() {
        assert_eq!(plan("apt-get", "", true).unwrap(), "apt-get update && apt-get install -y postgresql");
        assert_eq!(
            plan("apt-get", "", false).unwrap(),
            "sudo apt-get update && sudo apt-get install -y postgresql"
        );
        assert_eq!(
            plan("dnf", "ID=fedora\nVERSION_ID=43\n", true).unwrap(),
            "dnf install -y postgresql-server"
        );
        assert_eq!(plan("brew", "", false).unwrap(), "brew install postgresql@17", "Homebrew refuses sudo");
        assert_eq!(plan("none of them", "", true), None);
    }

    #[test]
    fn red_hat_9_is_told_to_take_a_version_that_walcast_works_with() {
        let rocky = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.4\"\n";
        assert_eq!(
            plan("dnf", rocky, true).unwrap(),
            "dnf module enable -y postgresql:16 && dnf install -y postgresql-server"
        );
        assert_eq!(
            plan("dnf", &rocky.replace("9.4", "10.1"), true).unwrap(),
            "dnf install -y postgresql-server"
        );
    }

    #[test]
    fn a_failing_command_is_named_after_it_was_announced() {
        let plan = InstallPlan { commands: vec![words("false now")], side_effect: None };
        let mut said = Vec::new();
        let error = plan.run(&mut said).unwrap_err().to_string();
        assert_eq!(String::from_utf8(said).unwrap(), "running: false now\n");
        assert!(error.contains("`false now`"), "{error}");
    }
}
