//! What a daemon prints.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::watch;

/// The lines of both streams, in the order in which they were read.
#[derive(Debug)]
pub(super) struct Output {
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    streams_open: usize,
}

impl Output {
    pub(super) fn capture(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Self {
        let state = watch::Sender::new(State { lines: Vec::new(), streams_open: 2 });
        tokio::spawn(read(stdout, state.clone()));
        tokio::spawn(read(stderr, state.clone()));
        Self { state }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.state.borrow().lines.clone()
    }

    pub(super) fn text(&self) -> String {
        self.lines().join("\n")
    }

    pub(super) fn ended(&self) -> bool {
        self.state.borrow().streams_open == 0
    }

    pub(super) async fn until_ended(&self) {
        let mut watching = self.state.subscribe();
        let _state = watching.wait_for(|state| state.streams_open == 0).await;
    }

    pub(super) fn prepend(&self, mut before: Vec<String>) {
        self.state.send_modify(|state| {
            before.append(&mut state.lines);
            state.lines = before;
        });
    }

    /// Waits for a line with `fragment`; for ever, when none comes.
    pub(super) async fn find(&self, fragment: &str) -> String {
        let mut found = None;
        let mut watching = self.state.subscribe();
        let _state = watching
            .wait_for(|state| {
                found = state.lines.iter().find(|line| line.contains(fragment)).cloned();
                found.is_some()
            })
            .await;
        found.unwrap_or_default()
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, state: watch::Sender<State>) {
    if let Some(stream) = stream {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            state.send_modify(|state| state.lines.push(text));
            line.clear();
        }
    }
    state.send_modify(|state| state.streams_open -= 1);
}

/// The lines of level WARN or ERROR, in tracing's text and JSON forms, that contain none of `expected`.
pub(super) fn loud(lines: &[String], expected: &[&str]) -> Vec<String> {
    lines
        .iter()
        .filter(|line| {
            ["WARN", "ERROR"].iter().any(|level| {
                line.split([' ', '\u{1b}', 'm']).any(|word| word == *level)
                    || line.contains(&format!("\"level\":\"{level}\""))
            })
        })
        .filter(|line| !expected.iter().any(|fragment| line.contains(fragment)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_errors_are_told_from_the_rest() {
        let lines = [
            "2026-11-21T02:00:00Z  INFO walcast: an ERRORS column".to_owned(),
            "2026-11-21T02:00:00Z  WARN walcast: slow".to_owned(),
            "\u{1b}[2m2026\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m walcast: broken".to_owned(),
            "{\"timestamp\":\"2026\",\"level\":\"WARN\",\"message\":\"lost\"}".to_owned(),
        ];
        assert_eq!(loud(&lines, &[]), lines[1..]);
        assert_eq!(loud(&lines, &["slow", "lost"]), lines[2..3]);
    }
}
