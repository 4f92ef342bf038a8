//! Transaction ids, and which of them a snapshot sees.

use std::fmt;
use std::str::FromStr;

/// A 64-bit transaction id (`xid8`): the 32 bits that the WAL carries, widened by the epoch of a reference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Xid(u64);

impl Xid {
    /// The id as Postgres counts it in 64 bits.
    #[must_use]
    pub const fn new(full: u64) -> Self {
        Self(full)
    }

    /// The id in 64 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Widens the 32 bits of a `Begin` next to a recent `reference`, exact within 2^31 transactions of it
    /// on either side.
    #[must_use]
    pub const fn widen(low: u32, reference: Self) -> Self {
        let distance = low.wrapping_sub(reference.0 as u32) as i32;
        Self(reference.0.wrapping_add_signed(distance as i64))
    }

    /// Appends what `Display` prints.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(self.0).as_bytes());
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What `pg_current_snapshot()` prints: `xmin:xmax:xip,xip…`, all of them top-level 64-bit ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    xmin: Xid,
    xmax: Xid,
    /// In progress when the snapshot was taken, sorted.
    in_progress: Vec<Xid>,
}

/// Why a text is not a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a snapshot such as 1147:1149:1147")]
pub struct ParseSnapshotError {
    text: String,
}

impl Snapshot {
    /// Every transaction below it is visible if it committed.
    #[must_use]
    pub const fn xmin(&self) -> Xid {
        self.xmin
    }

    /// No transaction at or above it is visible.
    #[must_use]
    pub const fn xmax(&self) -> Xid {
        self.xmax
    }

    /// Whether a transaction that has committed is part of this snapshot, as `pg_visible_in_snapshot` says.
    #[must_use]
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// Whether it sees every transaction that `other`, a snapshot of the same source, sees.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        self.xmax >= other.xmax && !self.in_progress.iter().any(|xid| other.sees(*xid))
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (index, xid) in self.in_progress.iter().enumerate() {
            write!(f, "{}{xid}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = ParseSnapshotError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut fields = text.split(':');
            let xmin = Xid(fields.next()?.parse().ok()?);
            let xmax = Xid(fields.next()?.parse().ok()?);
            let list = fields.next()?;
            let ids = list.split(',').filter(|id| !id.is_empty());
            let mut in_progress = ids.map(|id| id.parse().ok().map(Xid)).collect::<Option<Vec<_>>>()?;
            in_progress.sort_unstable();
            fields.next().is_none().then_some(Self { xmin, xmax, in_progress })
        };
        parse().ok_or_else(|| ParseSnapshotError { text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, Xid};

    #[test]
    fn an_open_transaction_below_xmax_is_not_seen() {
        let snapshot: Snapshot = "1147:1149:1147".parse().unwrap();
        let sees: Vec<bool> = (1146..1150).map(|xid| snapshot.sees(Xid::new(xid))).collect();
        assert_eq!(sees, [true, false, true, false]);
        for text in ["1:2:", "1147:1149:1147", "1:9:3,5"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        assert!("1:2".parse::<Snapshot>().is_err());
        assert!("1:2:x".parse::<Snapshot>().is_err());
    }

    #[test]
    fn widening_crosses_the_32_bit_wrap_both_ways() {
        let epoch = 7_u64 << 32;
        assert_eq!(Xid::widen(3, Xid::new(epoch | 0xFFFF_FFFF)), Xid::new((8 << 32) | 3));
        assert_eq!(Xid::widen(0xFFFF_FFFF, Xid::new((8 << 32) | 3)), Xid::new(epoch | 0xFFFF_FFFF));
        assert_eq!(Xid::widen(750, Xid::new(748)), Xid::new(750));
    }
}
