//! All promises at once, while everything breaks: the short form of `make soak`.

use std::time::Duration;

use walcast_testkit::{Soak, installations};

/// Each with its own flags of the daemon and its own schedule of faults: one with the history beside the tables, one with
/// it in a cluster of its own.
const SEEDS: [u64; 2] = [1, 2];
const SECONDS_EACH: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_repeated_reordered_or_torn_under_faults_of_every_kind() {
    let installation = installations().pop().expect("invariant: at least one");
    for seed in SEEDS {
        let soak = Soak::short(installation.clone(), seed, Duration::from_secs(SECONDS_EACH));
        match Box::pin(soak.run()).await {
            Ok(report) => println!("{report}"),
            Err(failure) => panic!("seed {seed}: {failure}"),
        }
    }
}
