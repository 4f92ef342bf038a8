//! A process of the bench's own, that is told what to do line by line and answers likewise.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};

use crate::Outcome;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Killed when dropped.
pub(crate) struct Child {
    pid: u32,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Process,
}

impl Child {
    /// This binary again, with that argument.
    pub(crate) fn start(command: &str) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let pid = process.id().ok_or("it has ended")?;
        Ok(Self { pid, input, output, _process: process })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells it something, without waiting for what it says to that.
    pub(crate) async fn tell(&mut self, line: &str) -> Outcome<()> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// The words of its next answer.
    pub(crate) async fn answer(&mut self) -> Outcome<Vec<String>> {
        let line = tokio::time::timeout(LIMIT, self.output.next_line()).await??;
        let line = line.ok_or("a process of the bench has ended")?;
        match line.strip_prefix("failed ") {
            Some(why) => Err(why.into()),
            None => Ok(line.split(' ').map(str::to_owned).collect()),
        }
    }

    pub(crate) async fn ask(&mut self, line: &str) -> Outcome<Vec<String>> {
        self.tell(line).await?;
        self.answer().await
    }
}
