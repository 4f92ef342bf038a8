//! Positions in the WAL, typed by role wherever a mix-up would lose a change.
//!
//! The order of the positions of one transaction, which nothing here may break:
//!
//! ```text
//! CommitStart (Begin.final_lsn)  <  CommitEnd (Commit.end_lsn)  <=  CommitStart of the next transaction
//! ```
//!
//! The end of one commit record *is* often the start of the next one, so "after this transaction" is the
//! half-open [`Cursor`] `(CommitEnd, 0)` and never a strict comparison with a start.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in the WAL of one Postgres cluster, printed as Postgres prints it: `16/B374D848`.
///
/// Only comparable inside one feed ([`crate::FeedId`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// `0/0`: before everything; Postgres's `InvalidXLogRecPtr`.
    pub const ZERO: Self = Self(0);
    /// After everything that can ever be.
    pub const MAX: Self = Self(u64::MAX);

    /// The position `bytes` bytes after the start of the WAL.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the WAL.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Bytes of WAL from `earlier` to `self`; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Appends what `Display` prints, without the machinery of `fmt`: each frame has two of them.
    pub fn write(self, out: &mut Vec<u8>) {
        write_hex(out, (self.0 >> 32) as u32);
        out.push(b'/');
        write_hex(out, self.0 as u32);
    }
}

/// Appends a number in capital hexadecimal digits, without leading zeros.
fn write_hex(out: &mut Vec<u8>, number: u32) {
    let digits = (u32::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (number >> (4 * place) & 15) as u8;
        out.push(if digit < 10 { b'0' + digit } else { b'A' - 10 + digit });
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a WAL position such as 16/B374D848 or 16/B374D848:3")]
pub struct ParsePositionError {
    text: String,
}

impl ParsePositionError {
    fn new(text: &str) -> Self {
        // Hostile input can be long; a message that names it should not be.
        Self { text: text.chars().take(40).collect() }
    }
}

fn hex_half(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() <= 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Lsn {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(hex_half(high)? << 32 | hex_half(low)?)))
            .ok_or_else(|| ParsePositionError::new(text))
    }
}

/// Where a transaction's commit record starts: `Begin.final_lsn`, equal to `Commit.commit_lsn`. Unique in
/// a feed, and the order in which transactions are delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommitStart(Lsn);

impl CommitStart {
    /// Takes a position that a `Begin`, a `Commit` or a stored transaction names as its commit record's start.
    #[must_use]
    pub const fn new(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position itself.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// The byte after a transaction's commit record: `Commit.end_lsn`. The cursor after a whole transaction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommitEnd(Lsn);

impl CommitEnd {
    /// Takes a position that a `Commit` or a stored transaction names as its commit record's end.
    #[must_use]
    pub const fn new(lsn: Lsn) -> Self {
        Self(lsn)
    }

    /// The position itself.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// The place of a change in its transaction: 0, 1, 2 …; -1 for a message that was written outside a
/// transaction and precedes the transaction at its position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Seq(i64);

impl Seq {
    /// The first change of a transaction.
    pub const FIRST: Self = Self(0);
    /// A message outside a transaction.
    pub const MESSAGE: Self = Self(-1);

    /// The change with this number. Numbers below -1 do not occur.
    #[must_use]
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The seq `count` changes later.
    #[must_use]
    pub const fn plus(self, count: usize) -> Self {
        Self(self.0.saturating_add(count as i64))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A client's position, half-open: *everything before it has been applied*. Resuming at `(L, s)` starts
/// with the first change for which `(lsn, seq) >= (L, s)`.
///
/// Text form `LSN[:seq]`; `LSN` means `LSN:0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    lsn: Lsn,
    seq: Seq,
}

impl Cursor {
    /// `0/0`: nothing applied; an initial sync comes first.
    pub const ZERO: Self = Self { lsn: Lsn::ZERO, seq: Seq::FIRST };
    /// After everything.
    pub const MAX: Self = Self { lsn: Lsn::MAX, seq: Seq(i64::MAX) };

    /// The cursor before change `seq` of the transaction whose commit record starts at `lsn`.
    #[must_use]
    pub const fn new(lsn: Lsn, seq: Seq) -> Self {
        Self { lsn, seq }
    }

    /// The WAL position.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.lsn
    }

    /// The place inside the transaction at [`Cursor::lsn`]; zero between transactions.
    #[must_use]
    pub const fn seq(self) -> Seq {
        self.seq
    }

    /// The cursor after a whole transaction.
    #[must_use]
    pub const fn after(end: CommitEnd) -> Self {
        Self::new(end.lsn(), Seq::FIRST)
    }

    /// Appends what `Display` prints.
    pub fn write(self, out: &mut Vec<u8>) {
        self.lsn.write(out);
        if self.seq != Seq::FIRST {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(self.seq.0).as_bytes());
        }
    }
}

impl From<Lsn> for Cursor {
    fn from(lsn: Lsn) -> Self {
        Self::new(lsn, Seq::FIRST)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seq == Seq::FIRST { self.lsn.fmt(f) } else { write!(f, "{}:{}", self.lsn, self.seq) }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Cursor {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParsePositionError::new(text);
        let Some((lsn, seq)) = text.split_once(':') else {
            return text.parse::<Lsn>().map(Self::from);
        };
        let digits = seq.strip_prefix('-').unwrap_or(seq);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(error());
        }
        let seq: i64 = seq.parse().map_err(|_| error())?;
        if seq < -1 {
            return Err(error());
        }
        Ok(Self::new(lsn.parse().map_err(|_| error())?, Seq(seq)))
    }
}

macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_serde!(Lsn);
text_serde!(Cursor);

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Cursor, Lsn, Seq};

    #[test]
    fn what_is_written_is_what_is_printed_at_every_number_of_digits() {
        for bits in 0..=u64::BITS {
            let lsn = Lsn::new(u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0));
            let mut written = Vec::new();
            lsn.write(&mut written);
            assert_eq!(String::from_utf8(written).unwrap(), lsn.to_string());
        }
    }

    #[test]
    fn oversize_signed_and_padded_halves_are_refused() {
        for text in [
            "",
            "/",
            "0/",
            "/0",
            "123456789/0",
            "0/123456789",
            "+1/0",
            "0/-1",
            " 0/0",
            "0/0 ",
            "0-0",
            "0/0/0",
        ] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
        for text in ["0/0:", "0/0:-2", "0/0:x", "0/0:+1", ":0", "0/0:99999999999999999999", "0/0:-"] {
            assert!(text.parse::<Cursor>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_message_outside_a_transaction_sorts_before_the_transaction_at_its_position() {
        let lsn = Lsn::new(7);
        assert!(Cursor::new(lsn, Seq::MESSAGE) < Cursor::new(lsn, Seq::FIRST));
        assert_eq!("0/7:-1".parse(), Ok(Cursor::new(lsn, Seq::MESSAGE)));
    }

    proptest! {
        #[test]
        fn text_form_round_trips(lsn in any::<u64>(), seq in -1..i64::MAX) {
            let cursor = Cursor::new(Lsn::new(lsn), Seq::new(seq));
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
            let mut written = Vec::new();
            cursor.write(&mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), cursor.to_string());
        }
    }
}
