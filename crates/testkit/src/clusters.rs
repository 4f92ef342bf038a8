//! Which servers a test runs on.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use tokio::sync::OnceCell;
use walcast_cluster::{Cluster, ClusterBuilder, Installation};

/// The installations that version-sensitive tests run on, oldest first, one of each major version: what
/// `WALCAST_TEST_PG` names (`15,18` or `15 18`, or `all`), else the oldest and the newest that this machine has.
///
/// # Panics
///
/// When there is none, or not one that was named.
pub fn installations() -> Vec<Installation> {
    crate::watchdog::watch();
    choose(Installation::find_all(), &std::env::var("WALCAST_TEST_PG").unwrap_or_default())
}

fn choose(found: Vec<Installation>, wanted: &str) -> Vec<Installation> {
    // Sorted by version: of one major version the newest stays.
    let by_major: BTreeMap<u32, Installation> =
        found.into_iter().map(|installation| (installation.version().major, installation)).collect();
    let had: Vec<u32> = by_major.keys().copied().collect();
    let (Some(oldest), Some(newest)) = (had.first(), had.last()) else {
        panic!("the tests need a Postgres server: {}", Installation::newest().expect_err("there is none"));
    };
    let majors: Vec<u32> = match wanted.trim() {
        "" => vec![*oldest, *newest],
        "all" => had.clone(),
        list => list
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .map(|name| {
                name.trim().parse().unwrap_or_else(|_| panic!("WALCAST_TEST_PG: {name:?} is no version"))
            })
            .collect(),
    };
    assert!(!majors.is_empty(), "WALCAST_TEST_PG is {wanted:?}, which names no version");
    for major in &majors {
        assert!(
            by_major.contains_key(major),
            "WALCAST_TEST_PG names Postgres {major}, which is not here (found: {had:?}); tests/postgres-versions.sh gets it"
        );
    }
    by_major
        .into_iter()
        .filter(|(major, _)| majors.contains(major))
        .map(|(_, installation)| installation)
        .collect()
}

/// How many tests run at a time, as libtest decides it.
fn tests_at_a_time() -> usize {
    let named = std::env::var("RUST_TEST_THREADS").ok().and_then(|threads| threads.parse().ok());
    named.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Describes a server for tests: as [`Cluster::builder`], with room for 60 slots and
/// walsenders, 20 prepared transactions and 200 connections, for more where more than five tests run at a time, and the data
/// directory copied from an earlier `initdb`, so that all such clusters of a version have the same `system_identifier`.
pub fn cluster_builder(installation: &Installation) -> ClusterBuilder {
    // A test may have three daemons and writers beside them.
    let room = |least: usize, of_each: usize, most: usize| (tests_at_a_time() * of_each).clamp(least, most);
    Cluster::builder(installation.clone())
        .reuse_initdb()
        .setting("max_connections", room(200, 40, 1000))
        .setting("max_wal_senders", room(60, 12, 300))
        .setting("max_replication_slots", room(60, 12, 300))
        .setting("max_prepared_transactions", room(20, 4, 100))
}

/// Starts a server for one test, described by [`cluster_builder`]; stop, kill or change it at will.
///
/// # Panics
///
/// When it does not start.
pub async fn own_cluster(installation: &Installation) -> Cluster {
    started(cluster_builder(installation)).await
}

async fn started(builder: ClusterBuilder) -> Cluster {
    match builder.start().await {
        Ok(cluster) => cluster,
        Err(error) => panic!("{error}"),
    }
}

/// The shared server of the newest version that tests run on.
///
/// # Panics
///
/// When it does not start.
pub async fn shared_cluster() -> &'static Cluster {
    let newest = installations().pop().expect("invariant: at least one");
    shared_cluster_of(&newest).await
}

/// The server of `installation` that all tests of this process share. Started by the first that asks.
///
/// # Panics
///
/// When it does not start.
pub async fn shared_cluster_of(installation: &Installation) -> &'static Cluster {
    static SHARED: Mutex<BTreeMap<PathBuf, &'static OnceCell<Cluster>>> = Mutex::new(BTreeMap::new());
    let cell = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // Lives as long as the process; the cluster's guardian stops the server then.
        *shared
            .entry(installation.bin_dir().to_owned())
            .or_insert_with(|| Box::leak(Box::new(OnceCell::new())))
    };
    cell.get_or_init(|| started(cluster_builder(installation))).await
}

/// Runs `test` on the shared cluster of each version, one after the other, all of them even when one fails.
///
/// # Panics
///
/// When the test panicked on some version, with the versions.
pub async fn for_each_version(test: impl AsyncFn(&'static Cluster)) {
    let mut failures = Vec::new();
    for installation in installations() {
        let version = installation.version();
        let run = async {
            test(shared_cluster_of(&installation).await).await;
        };
        // On the heap: the future of a whole test may be large.
        if let Err(panic) = AssertUnwindSafe(Box::pin(run)).catch_unwind().await {
            failures.push(format!("Postgres {version}: {}", message_of(panic.as_ref())));
        }
    }
    assert!(failures.is_empty(), "failed on {} version(s)\n{}", failures.len(), failures.join("\n"));
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn majors(wanted: &str) -> Vec<u32> {
        choose(Installation::find_all(), wanted)
            .iter()
            .map(|installation| installation.version().major)
            .collect()
    }

    #[test]
    fn by_default_the_oldest_and_the_newest_version_are_taken() {
        let all = majors("all");
        let chosen = majors("");
        assert_eq!(chosen.first(), all.first());
        assert_eq!(chosen.last(), all.last());
        assert!(chosen.len() <= 2, "{chosen:?}");
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "one of each major version: {all:?}");
    }

    #[test]
    #[should_panic(expected = "WALCAST_TEST_PG names Postgres 9")]
    fn a_version_that_was_named_and_is_missing_fails_loudly() {
        majors("9");
    }

    #[test]
    fn versions_are_separated_by_commas_or_spaces() {
        let newest = majors("").pop().unwrap();
        assert_eq!(majors(&format!("{newest}, {newest}")), [newest]);
        assert_eq!(majors(&format!("{newest} {newest}")), [newest]);
    }

    #[test]
    #[should_panic(expected = "names no version")]
    fn a_list_without_a_version_is_not_a_run_without_tests() {
        majors(",");
    }

    #[tokio::test]
    async fn a_failure_names_the_versions_it_happened_on() {
        let run = for_each_version(async |cluster| panic!("port {}", cluster.port()));
        let panic = AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
        let message = message_of(panic.as_ref());
        for installation in installations() {
            assert!(message.contains(&format!("Postgres {}: port ", installation.version())), "{message}");
        }
    }
}
