//! Points in time as the WAL carries them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds from the Unix epoch to 2000-01-01T00:00:00Z, from which Postgres counts.
const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;

/// Microseconds since 2000-01-01T00:00:00Z, Postgres's own count; printed as RFC 3339 with microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From Postgres's count: microseconds since 2000-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_postgres_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Postgres's count: microseconds since 2000-01-01T00:00:00Z.
    #[must_use]
    pub const fn postgres_micros(self) -> i64 {
        self.0
    }

    /// The wall clock of this machine.
    #[must_use]
    pub fn now() -> Self {
        Self::from(std::time::SystemTime::now())
    }

    /// Seconds from `earlier` to `self`, negative when the clocks disagree.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}

/// Times before 1970 count as its beginning.
impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        let unix = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(unix.as_micros()).unwrap_or(i64::MAX);
        Self(micros.saturating_sub(POSTGRES_EPOCH_UNIX_SECONDS * 1_000_000))
    }
}

/// Length of a time whose year has four digits, as printed.
const PRINTED_BYTES: usize = "2026-11-21T00:02:03.500000Z".len();

impl Timestamp {
    /// Appends what `Display` prints, without the machinery of `fmt`: each frame has one.
    pub fn write(self, out: &mut Vec<u8>) {
        // Far from overflow: the count was of microseconds.
        let seconds = self.0.div_euclid(1_000_000) + POSTGRES_EPOCH_UNIX_SECONDS;
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let micros = self.0.rem_euclid(1_000_000);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let mut digits = |end: usize, count: usize, mut number: i64| {
            for place in text[end - count..end].iter_mut().rev() {
                *place = b'0' + (number % 10) as u8;
                number /= 10;
            }
        };
        let four_digits = (0..10_000).contains(&year);
        digits(4, 4, if four_digits { year } else { 0 });
        digits(7, 2, month);
        digits(10, 2, day);
        digits(13, 2, second / 3600);
        digits(16, 2, second / 60 % 60);
        digits(19, 2, second % 60);
        digits(26, 6, micros);
        if four_digits {
            out.extend_from_slice(&text);
        } else {
            // No commit is of such a year.
            out.extend_from_slice(format!("{year:04}").as_bytes());
            out.extend_from_slice(&text[4..]);
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(PRINTED_BYTES);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Days since 1970-01-01 to a proleptic Gregorian date, by eras of 400 years counted from March.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A proleptic Gregorian date to days since 1970-01-01; `None` when there is no such day.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted_year = year - i64::from(month <= 2);
    let (era, year_of_era) = (shifted_year.div_euclid(400), shifted_year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Why a text is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time such as 2026-11-21T14:05:00Z or 2026-11-21T14:05:00.123456+02:00")]
pub struct ParseTimestampError {
    text: String,
}

/// RFC 3339; digits after the microsecond are cut, a space may stand for the `T`, as RFC 3339 allows.
fn parse(text: &str) -> Option<Timestamp> {
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let marks = [(4, "-"), (7, "-"), (13, ":"), (16, ":")];
    let separator = matches!(text.get(10..11)?, "T" | "t" | " ");
    if !separator || marks.iter().any(|(at, mark)| text.get(*at..at + 1) != Some(mark)) {
        return None;
    }
    let days = days_from_civil(digits(0..4)?, digits(5..7)?, digits(8..10)?)?;
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    // A leap second is the second after it, as Postgres reads it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = match text.get(19..)?.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", text.get(19..)?),
    };
    let micros: i64 =
        if fraction.is_empty() { None } else { format!("{fraction:0<6}").get(..6)?.parse().ok() }?;
    let offset_minutes = if matches!(zone, "Z" | "z") {
        0
    } else {
        let start = text.len() - zone.len();
        let (hours, minutes) = (digits(start + 1..start + 3)?, digits(start + 4..start + 6)?);
        let sign = if zone.starts_with('+') { 1 } else { -1 };
        let fits = zone.len() == 6 && zone.starts_with(['+', '-']) && zone.get(3..4) == Some(":");
        (fits && hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))?
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_minutes * 60;
    Some(Timestamp((seconds - POSTGRES_EPOCH_UNIX_SECONDS) * 1_000_000 + micros))
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTimestampError { text: text.chars().take(60).collect() })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn prints_rfc_3339_in_utc() {
        let at = |micros| Timestamp::from_postgres_micros(micros).to_string();
        assert_eq!(at(0), "2000-01-01T00:00:00.000000Z");
        assert_eq!(at(-1), "1999-12-31T23:59:59.999999Z");
        assert_eq!(at(848_534_523_500_000), "2026-11-21T00:02:03.500000Z");
        assert_eq!(at(5_097_600_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(i64::MAX), "294277-01-09T04:00:54.775807Z");
        assert_eq!(at(i64::MIN), "-290278-12-22T19:59:05.224192Z");
        assert_eq!(at(-63_113_904_000_000_001), "-001-12-31T23:59:59.999999Z");
    }

    #[test]
    fn reads_rfc_3339_and_nothing_else() {
        let at = |text: &str| text.parse::<Timestamp>().map(Timestamp::postgres_micros);
        assert_eq!(at("2026-11-21T00:02:03.500000Z"), Ok(848_534_523_500_000));
        assert_eq!(at("2026-11-21 02:02:03.5+02:00"), Ok(848_534_523_500_000));
        assert_eq!(at("2026-11-20t23:32:03.5000009-00:30"), Ok(848_534_523_500_000));
        assert_eq!(at("1999-12-31T23:59:59.999999z"), Ok(-1));
        for text in [
            "",
            "2026-11-21",
            "2026-11-21T00:02:03",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:02:03.Z",
            "2026-11-21T00:02:03+2:00",
            "2026-11-21T00:02:03+02:00x",
            "2026-11-21T00:02:03é",
            "+026-11-21T00:02:03Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn text_form_round_trips() {
        for micros in
            [0, -1, 848_534_523_500_000, 5_097_600_000_000, -60_000_000_000_000_000, 252_455_615_999_999_999]
        {
            let timestamp = Timestamp::from_postgres_micros(micros);
            assert_eq!(timestamp.to_string().parse(), Ok(timestamp), "{timestamp}");
        }
    }
}
