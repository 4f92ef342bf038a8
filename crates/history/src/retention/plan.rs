//! What is due to be dropped. No I/O.

use std::time::Duration;

use walcast_model::Lsn;

use super::RetentionLimits;

/// A partition, as retention sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Partition {
    pub(super) name: String,
    /// All its changes are before it.
    pub(super) upper: Lsn,
    /// On disk, with indexes.
    pub(super) bytes: u64,
    /// For how long nothing can have been stored in it; `None` when that is not known, and for the newest.
    pub(super) complete: Option<Duration>,
}

/// What must stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Nothing before it will ever be stored; a transaction of which a part is stored begins at it. It is not after the
    /// last change.
    pub(super) position: Lsn,
    /// What a client has acknowledged that the operator has named; it has yet to get what is after it.
    pub(super) acknowledged: Option<Lsn>,
}

/// How many of the partitions, from the oldest on, are due. Never the newest, and none that may still be stored into.
pub(super) fn due(partitions: &[Partition], kept: &Kept, limits: &RetentionLimits) -> usize {
    let free = kept.acknowledged.map_or(kept.position, |acknowledged| acknowledged.min(kept.position));
    let mut bytes: u64 = partitions.iter().map(|partition| partition.bytes).sum();
    let older = partitions.len().saturating_sub(1);
    let is_due = |partition: &&Partition| {
        let is_old = limits.history_retention.zip(partition.complete).is_some_and(|(max, age)| age >= max);
        let is_over = limits.history_bytes_max.is_some_and(|max| bytes > max);
        bytes = bytes.saturating_sub(partition.bytes);
        partition.upper <= free && (is_old || is_over)
    };
    partitions[..older].iter().take_while(is_due).count()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use walcast_model::Lsn;

    use super::{Kept, Partition, RetentionLimits, due};

    /// Partitions of 100 positions and 10 bytes each, complete for so many seconds; the newest has no age.
    fn partitions(ages: &[u64]) -> Vec<Partition> {
        let one = |(index, age): (usize, Option<u64>)| Partition {
            name: index.to_string(),
            upper: Lsn::new(100 * (index as u64 + 1)),
            bytes: 10,
            complete: age.map(Duration::from_secs),
        };
        ages.iter().map(|age| Some(*age)).chain([None]).enumerate().map(one).collect()
    }

    fn limits(seconds: Option<u64>, bytes: Option<u64>) -> RetentionLimits {
        RetentionLimits {
            history_retention: seconds.map(Duration::from_secs),
            history_bytes_max: bytes,
            ..RetentionLimits::default()
        }
    }

    const LATE: Kept = Kept { position: Lsn::new(u64::MAX), acknowledged: None };

    #[test]
    fn by_age_what_was_complete_for_long_goes() {
        let all = partitions(&[50, 40, 30, 20]);
        let by_age = |seconds| due(&all, &LATE, &limits(Some(seconds), None));
        assert_eq!([by_age(60), by_age(50), by_age(31), by_age(30), by_age(0)], [0, 1, 2, 3, 4]);
    }

    #[test]
    fn by_size_the_oldest_go_until_the_rest_fits() {
        let all = partitions(&[1, 1, 1, 1]);
        let by_size = |bytes| due(&all, &LATE, &limits(None, Some(bytes)));
        assert_eq!(
            [by_size(50), by_size(49), by_size(40), by_size(39), by_size(10), by_size(0)],
            [0, 1, 1, 2, 4, 4]
        );
        assert_eq!(due(&all, &LATE, &limits(None, None)), 0);
    }

    #[test]
    fn what_may_still_be_written_stays() {
        let all = partitions(&[9, 9, 9]);
        let up_to =
            |position| due(&all, &Kept { position: Lsn::new(position), ..LATE }, &limits(Some(1), Some(1)));
        assert_eq!([up_to(99), up_to(100), up_to(250), up_to(300), up_to(1000)], [0, 1, 2, 3, 3]);
        assert_eq!(due(&[], &LATE, &limits(Some(1), Some(1))), 0);
        assert_eq!(due(&partitions(&[]), &LATE, &limits(Some(0), Some(0))), 0);
    }

    #[test]
    fn what_a_named_client_has_not_acknowledged_stays() {
        let all = partitions(&[9, 9, 9]);
        let acknowledged =
            |at| due(&all, &Kept { acknowledged: Some(Lsn::new(at)), ..LATE }, &limits(Some(1), Some(1)));
        assert_eq!([acknowledged(99), acknowledged(100), acknowledged(299), acknowledged(300)], [0, 1, 2, 3]);
    }

    #[test]
    fn a_younger_partition_keeps_all_that_follow() {
        assert_eq!(due(&partitions(&[50, 1, 50]), &LATE, &limits(Some(10), None)), 1);
    }
}
