//! A test that hangs ends the run, with its name: what takes the whole time of a CI says nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one test may take, on a machine that is busy with other builds and tests; the longest take two minutes.
/// The variable `WALCAST_TEST_MAX` names other seconds, for who sits before a debugger.
pub const TEST_MAX: Duration = Duration::from_secs(10 * 60);

/// How often the watchdog looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a test waited for, and since when.
type Waits = Vec<(Instant, String)>;

/// How many of a test's last waits are told.
const WAITS_TOLD: usize = 8;

static TESTS: Mutex<BTreeMap<String, (Instant, Waits)>> = Mutex::new(BTreeMap::new());

/// A test that runs, from its first look at a server to the end of its thread.
struct Watched(String);

impl Drop for Watched {
    fn drop(&mut self) {
        with_tests(|tests| tests.remove(&self.0));
    }
}

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

fn with_tests<T>(work: impl FnOnce(&mut BTreeMap<String, (Instant, Waits)>) -> T) -> T {
    work(&mut TESTS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The test whose thread this is: libtest names a test's thread after it. None in what a test started, and in benches.
fn this_test() -> Option<String> {
    thread::current().name().filter(|name| *name != "main" && !name.starts_with("tokio-")).map(str::to_owned)
}

/// From now on the test whose thread this is has [`TEST_MAX`], and else the process ends with code 101.
pub(crate) fn watch() {
    static STARTED: Once = Once::new();
    WATCHED.with_borrow_mut(|watched| {
        if let (None, Some(name)) = (&watched, this_test()) {
            with_tests(|tests| tests.insert(name.clone(), (Instant::now(), Waits::new())));
            *watched = Some(Watched(name));
        }
    });
    STARTED.call_once(|| {
        let setting = std::env::var_os("WALCAST_TEST_MAX").map(|text| text.to_string_lossy().into_owned());
        let limit = limit(setting.as_deref()).unwrap_or_else(|mistake| end(&format!("\n{mistake}\n")));
        thread::Builder::new()
            .name("tokio-watchdog".to_owned())
            .spawn(move || guard(limit))
            .expect("a thread");
    });
}

/// Notes what the test whose thread this is waits for.
pub(crate) fn waits_for(what: &str) {
    WATCHED.with_borrow(|watched| {
        let Some(Watched(name)) = watched else { return };
        with_tests(|tests| {
            let Some((_, waits)) = tests.get_mut(name) else { return };
            if waits.len() == WAITS_TOLD {
                waits.remove(0);
            }
            waits.push((Instant::now(), what.to_owned()));
        });
    });
}

/// What `WALCAST_TEST_MAX` says, where it is set.
fn limit(setting: Option<&str>) -> Result<Duration, String> {
    let Some(text) = setting else { return Ok(TEST_MAX) };
    match text.parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("WALCAST_TEST_MAX: {text:?} is no number of seconds, such as 600")),
    }
}

/// Ends the run, past the capture of a test's output, of which nothing would be seen.
fn end(report: &str) -> ! {
    let _nobody_reads = std::io::stderr().write_all(report.as_bytes());
    std::process::exit(101);
}

fn guard(limit: Duration) {
    loop {
        thread::sleep(INTERVAL);
        let hung = with_tests(|tests| {
            let mut tests = tests.iter();
            tests
                .find(|(_, (since, _))| since.elapsed() > limit)
                .map(|(name, (_, waits))| report(name, limit, waits))
        });
        if let Some(report) = hung {
            end(&report);
        }
    }
}

fn report(name: &str, limit: Duration, waits: &Waits) -> String {
    let mut text = format!("\ntest {name} has not ended within {limit:?}, so the run ends here.\n");
    if waits.is_empty() {
        text.push_str("It waited for nothing that has a limit.\n");
    } else {
        text.push_str(
            "What it began to wait for with a limit, last (the hang is after or in the last one):\n",
        );
    }
    for (since, what) in waits {
        text.push_str(&format!("  {:>6.1} s ago: {what}\n", since.elapsed().as_secs_f64()));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{LIMIT, run_command, within};

    /// What the test below runs in a process of its own.
    #[tokio::test]
    #[ignore = "it hangs"]
    async fn hangs() {
        watch();
        within("what comes at once", LIMIT, async {}).await;
        std::future::pending::<()>().await;
    }

    /// Runs the test above, with this limit.
    fn run_hanging(limit: &str) -> (Option<i32>, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "watchdog::tests::hangs", "--ignored"]).env("WALCAST_TEST_MAX", limit);
        let run = run_command(command);
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    }

    #[test]
    fn a_test_that_hangs_ends_the_run_with_its_name_and_what_it_waited_for() {
        let (code, said) = run_hanging("1");
        assert_eq!(code, Some(101));
        assert!(said.contains("test watchdog::tests::hangs has not ended within 1s"), "{said}");
        assert!(said.contains("s ago: what comes at once"), "{said}");
    }

    #[test]
    fn a_limit_that_is_none_ends_the_run_instead_of_being_another_one() {
        let (code, said) = run_hanging("ten minutes");
        assert_eq!(code, Some(101));
        assert!(said.contains("WALCAST_TEST_MAX: \"ten minutes\" is no number of seconds"), "{said}");
        assert_eq!(limit(None), Ok(TEST_MAX));
        assert_eq!(limit(Some("7")), Ok(Duration::from_secs(7)));
        assert!(limit(Some("0")).is_err() && limit(Some("")).is_err());
    }

    #[test]
    fn a_test_that_ended_is_not_watched_any_more() {
        let of_it = |name: &str| with_tests(|tests| tests.contains_key(name));
        let test = thread::Builder::new().name("a test".to_owned()).spawn(move || {
            watch();
            of_it("a test")
        });
        assert!(test.unwrap().join().unwrap());
        assert!(!of_it("a test"));
    }
}
