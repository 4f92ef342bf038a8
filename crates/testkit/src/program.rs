//! The `walcast` program: where it is, and a run of it to its end.

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::LIMIT;

/// `target/<profile>/walcast`, beside the folder of the running test.
///
/// # Panics
///
/// When it was not built.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("where is this test: {error}"));
    let beside =
        test.ancestors().skip(1).take(2).map(|folder| folder.join("walcast")).find(|path| path.is_file());
    beside.unwrap_or_else(|| {
        panic!("the walcast binary is not beside {}; build it: cargo build -p walcast", test.display())
    })
}

/// Runs `walcast` with these arguments to its end, with nothing on its standard input. Blocks the thread.
///
/// # Panics
///
/// When it has not ended within [`LIMIT`], with what it wrote until then.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("WALCAST_TOKEN");
    run_command(command)
}

/// Runs a command to its end, with nothing on its standard input. Blocks the thread.
///
/// # Panics
///
/// When it does not start, or has not ended within [`LIMIT`], with what it wrote until then.
pub fn run_command(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    output_of(process, &format!("{command:?}"))
}

/// Waits for the end of a process, and reads what it writes where that was piped. Blocks the thread.
///
/// # Panics
///
/// When it has not ended within [`LIMIT`], with what it wrote until then; it is killed.
pub fn output_of(mut process: Child, what: &str) -> Output {
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let (stdout, stderr) = (thread::spawn(|| all_of(stdout)), thread::spawn(|| all_of(stderr)));
    let started = Instant::now();
    let status = loop {
        match process.try_wait().unwrap_or_else(|error| panic!("{what}: {error}")) {
            Some(status) => break Some(status),
            None if started.elapsed() > LIMIT => {
                let _it_ended_just_now = process.kill();
                let _it_was_reaped = process.wait();
                break None;
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().expect("a reader does not panic"));
    match status {
        Some(status) => Output { status, stdout, stderr },
        None => panic!(
            "{what} did not end within {LIMIT:?}; it wrote:\n{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    }
}

fn all_of(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _what_came_before_counts = stream.read_to_end(&mut bytes);
    }
    bytes
}
