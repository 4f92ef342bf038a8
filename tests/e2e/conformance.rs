//! The conformance cases of the reference (section 10), by number, as a client sees them. `docs/conformance.md` says
//! where each of the 70 is tested.
//!
//! Most are rows of tables ([`trial::Case`]): what is written, and what a client is told line by line. Every table is
//! checked four times: live, in `change_history`, by a client that comes in later, and by one that comes in after a
//! restart of the daemon, when nothing is left in its memory.

mod changes;
mod definitions;
mod encodings;
mod identity;
mod order;
mod publications;
mod server_faults;
mod snapshots;
pub(crate) mod trial;
mod values;
pub(crate) mod witness;
mod writers;

/// The folder or file that the short names of `docs/conformance.md` stand for.
const PLACES: [(&str, &str); 7] = [
    ("conformance", "tests/e2e/conformance"),
    ("e2e", "tests/e2e"),
    ("replication", "crates/replication/tests/replication"),
    ("assemble", "crates/replication/src/assemble/tests.rs"),
    ("connection", "crates/replication/src/connection/tests.rs"),
    ("history", "crates/history/tests/history"),
    ("snapshot", "crates/snapshot/tests/initial_sync"),
];

#[test]
fn the_list_has_every_case_and_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let list = read("docs/conformance.md");
    let rows = list.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" |"));
    let numbers: Vec<u32> = rows.filter_map(|(number, _)| number.parse().ok()).collect();
    assert_eq!(numbers, (1..=70).collect::<Vec<_>>());
    let named: Vec<(&str, &str)> =
        list.split('`').skip(1).step_by(2).filter_map(|name| name.split_once("::")).collect();
    assert!(named.len() > 70, "{} tests", named.len());
    for (place, test) in named {
        let (folder, file) = place.split_once('/').unwrap_or((place, ""));
        let path = match PLACES.iter().find(|(name, _)| *name == folder) {
            Some((_, path)) if file.is_empty() => (*path).to_owned(),
            Some((_, path)) => format!("{path}/{file}.rs"),
            None => place.to_owned(),
        };
        assert!(read(&path).contains(&format!("fn {test}(")), "{path} has no test {test}");
    }
}
