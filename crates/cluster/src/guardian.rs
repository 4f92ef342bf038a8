//! Cleaning up after a process that cannot: it was killed, or it ended with servers in statics.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::Error;

/// Reads `run PID` and `gone` from the pipe. A line `done` means that the owner has tidied up itself; the end of the
/// pipe without it means that the owner is no more. Postgres gets ten seconds for its immediate shutdown, which also
/// ends children that are stopped; what is not Postgres is killed at once.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
pid=
while read -r word value; do
    case $word in
        run) pid=$value ;;
        gone) pid= ;;
        done) exit 0 ;;
    esac
done
if [ -n "$pid" ]; then
    if [ -n "$1" ]; then
        kill -CONT "$pid" 2>/dev/null
        kill -QUIT "$pid" 2>/dev/null
        tries=0
        while [ "$tries" -lt 100 ] && kill -0 "$pid" 2>/dev/null; do
            sleep 0.1
            tries=$((tries + 1))
        done
    fi
    kill -KILL "$pid" 2>/dev/null
fi
if [ -n "$1" ]; then rm -rf "$1"; fi
"#;

/// A shell at the other end of a pipe. When this process is gone, however it ended, the shell stops the server that was
/// named to it and removes the directory. Dropping the guardian dismisses it: nothing is stopped or removed.
#[derive(Debug)]
pub struct Guardian {
    pipe: Option<ChildStdin>,
    shell: Child,
}

impl Guardian {
    /// Starts a guardian. With a `directory`, the process is taken for a Postgres server (which gets its chance to stop
    /// itself) and the directory is removed; without one, the process is killed.
    ///
    /// # Errors
    ///
    /// When `/bin/sh` cannot be run.
    pub fn start(directory: Option<&Path>) -> Result<Self, Error> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "walcast-guardian"])
            .arg(directory.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(Error::io("starting /bin/sh to clean up behind a throwaway server"))?;
        Ok(Self { pipe: shell.stdin.take(), shell })
    }

    /// From now on `pid` is to be stopped when this process ends.
    pub fn running(&mut self, pid: u32) {
        self.tell(&format!("run {pid}\n"));
    }

    /// The process has ended; there is nothing to stop.
    pub fn gone(&mut self) {
        self.tell("gone\n");
    }

    fn tell(&mut self, line: &str) {
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write_all(line.as_bytes())
        {
            tracing::warn!(%error, "the process that cleans up behind a throwaway server has ended");
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        self.tell("done\n");
        drop(self.pipe.take());
        let _status = self.shell.wait();
    }
}
