//! Dates and times, from and to the text that Postgres prints under `DateStyle=ISO`.
//!
//! Dates count days and timestamps microseconds from 2000-01-01, as in Postgres; the infinities are the ends of `i64`.
//! A `timetz` is the time in UTC and, below it, the zone: how Postgres orders them.

use std::fmt::Write as _;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// 4714-11-24 BC, the first day that Postgres knows.
const FIRST_DAY: i64 = -2_451_545;
/// The day after 5874897-12-31.
const DATE_END: i64 = 2_145_031_949;
/// The first microsecond that is no timestamp.
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
const FIRST_TIMESTAMP: i64 = FIRST_DAY * DAY;
/// Seconds that a zone may be from UTC (`MAX_TZDISP_HOUR`).
const ZONE_END: i64 = 16 * 3600;

/// Takes text apart from its front.
#[derive(Clone, Copy)]
struct Scanner<'a>(&'a [u8]);

impl<'a> Scanner<'a> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = self.0.get(1..).unwrap_or_default();
        }
        found
    }

    fn digits(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(end).unwrap_or((self.0, &[]));
        self.0 = rest;
        digits
    }

    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits = self.digits();
        if !(least..=most).contains(&digits.len()) {
            return None;
        }
        Some(digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }

    /// Microseconds after a point, if there is one.
    fn fraction(&mut self) -> Option<i64> {
        if !self.take(b'.') {
            return Some(0);
        }
        let digits = self.digits();
        if digits.is_empty() || digits.len() > 6 {
            return None;
        }
        let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        Some((digits.len()..6).fold(value, |value, _| value * 10))
    }

    /// Year, month, day; whether it is valid depends on the era, which comes last.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let year = self.number(4, 7)?;
        let month = self.take(b'-').then(|| self.number(2, 2))??;
        let day = self.take(b'-').then(|| self.number(2, 2))??;
        Some((year, month, day))
    }

    /// `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff`, at most 24:00:00.
    fn time(&mut self) -> Option<i64> {
        let hour = self.number(2, 2)?;
        let minute = self.take(b':').then(|| self.number(2, 2))??;
        let (second, fraction) =
            if self.take(b':') { (self.number(2, 2)?, self.fraction()?) } else { (0, 0) };
        let time = hour * HOUR + minute * MINUTE + second * SECOND + fraction;
        (minute < 60 && second < 60 && time <= DAY).then_some(time)
    }

    /// `Z`, `+HH`, `+HH:MM` or `+HH:MM:SS`: seconds east of UTC.
    fn zone(&mut self) -> Option<i64> {
        if self.take(b'Z') || self.take(b'z') {
            return Some(0);
        }
        let west = self.take(b'-');
        if !west && !self.take(b'+') {
            return None;
        }
        let hour = self.number(2, 2)?;
        let mut part = || if self.take(b':') { self.number(2, 2) } else { Some(0) };
        let (minute, second) = (part()?, part()?);
        let zone = hour * 3600 + minute * 60 + second;
        (minute < 60 && second < 60 && zone < ZONE_END).then_some(if west { -zone } else { zone })
    }

    /// Whether ` BC` comes next.
    fn before_christ(&mut self) -> bool {
        let found = self.0.strip_prefix(b" BC").or_else(|| self.0.strip_prefix(b" bc"));
        if let Some(rest) = found {
            self.0 = rest;
        }
        found.is_some()
    }

    const fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

fn infinity(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => Some(i64::MAX),
        b"-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

/// Days from 2000-01-01 in the proleptic Gregorian calendar; there is no year 0 in `year`.
fn days((year, month, day): (i64, i64, i64), before_christ: bool) -> Option<i64> {
    if year == 0 {
        return None;
    }
    let year = if before_christ { 1 - year } else { year };
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    // 0000-03-01 is 730,425 days before 2000-01-01.
    Some(era * 146_097 + day_of_era - 730_425)
}

/// A `date` in days.
pub(crate) fn date(text: &[u8]) -> Option<i64> {
    if let Some(infinity) = infinity(text) {
        return Some(infinity);
    }
    let mut scanner = Scanner(text);
    let date = scanner.date()?;
    let days = days(date, scanner.before_christ())?;
    (scanner.is_done() && (FIRST_DAY..DATE_END).contains(&days)).then_some(days)
}

/// A `time` in microseconds.
pub(crate) fn time(text: &[u8]) -> Option<i64> {
    let mut scanner = Scanner(text);
    scanner.time().filter(|_| scanner.is_done())
}

/// A `timetz`: microseconds in UTC above, seconds west of UTC below.
pub(crate) fn timetz(text: &[u8]) -> Option<i128> {
    let mut scanner = Scanner(text);
    let (time, zone) = (scanner.time()?, scanner.zone()?);
    scanner.is_done().then(|| (i128::from(time - zone * SECOND) << 32) + i128::from(-zone))
}

/// What is written about a zone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Absent,
    Required,
}

/// A `timestamp` or `timestamptz` in microseconds; a date alone is its midnight.
pub(crate) fn timestamp(text: &[u8], zone: Zone) -> Option<i64> {
    if let Some(infinity) = infinity(text) {
        return Some(infinity);
    }
    let mut scanner = Scanner(text);
    let date = scanner.date()?;
    let mut time = 0;
    if matches!(scanner.0, [b'T' | b't' | b' ', b'0'..=b'9', ..]) {
        scanner.0 = scanner.0.get(1..)?;
        time = scanner.time()?;
    } else if zone == Zone::Required {
        return None;
    }
    let east = if zone == Zone::Required { scanner.zone()? } else { 0 };
    let days = days(date, scanner.before_christ())?;
    let value = days.checked_mul(DAY)?.checked_add(time)?.checked_sub(east * SECOND)?;
    (scanner.is_done() && (FIRST_TIMESTAMP..TIMESTAMP_END).contains(&value)).then_some(value)
}

/// The date of a day, without its era, and whether that is BC.
fn civil(days: i64) -> (String, bool) {
    let days = days + 730_425;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * of_era + of_era / 4 - of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + of_era + i64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    let (year, before_christ) = if year > 0 { (year, false) } else { (1 - year, true) };
    (format!("{year:04}-{month:02}-{day:02}"), before_christ)
}

fn clock(out: &mut String, time: i64) {
    // Cannot fail: the target is a string.
    let _ = write!(out, "{:02}:{:02}:{:02}", time / HOUR, time / MINUTE % 60, time / SECOND % 60);
    if time % SECOND != 0 {
        let _ = write!(out, ".{:06}", time % SECOND);
    }
}

fn infinity_name(value: i64) -> Option<&'static str> {
    match value {
        i64::MAX => Some("infinity"),
        i64::MIN => Some("-infinity"),
        _ => None,
    }
}

pub(crate) fn write_date(days: i64) -> String {
    if let Some(name) = infinity_name(days) {
        return name.to_owned();
    }
    let (date, before_christ) = civil(days);
    if before_christ { date + " BC" } else { date }
}

pub(crate) fn write_time(time: i64) -> String {
    let mut text = String::new();
    clock(&mut text, time);
    text
}

pub(crate) fn write_timetz(value: i128) -> String {
    let (utc, west) = split_timetz(value);
    let mut text = String::new();
    clock(&mut text, utc - west * SECOND);
    let zone = west.abs();
    let sign = if west > 0 { '-' } else { '+' };
    let _ = write!(text, "{sign}{:02}:{:02}:{:02}", zone / 3600, zone / 60 % 60, zone % 60);
    text
}

fn split_timetz(value: i128) -> (i64, i64) {
    // The zone is at most a day, so that the rounding of the shift is undone by its sign.
    let half = 1_i128 << 31;
    let utc = (value + half) >> 32;
    (i64::try_from(utc).unwrap_or(0), i64::try_from(value - (utc << 32)).unwrap_or(0))
}

pub(crate) fn write_timestamp(value: i64, zone: Zone) -> String {
    if let Some(name) = infinity_name(value) {
        return name.to_owned();
    }
    let (mut text, before_christ) = civil(value.div_euclid(DAY));
    text.push(' ');
    clock(&mut text, value.rem_euclid(DAY));
    if zone == Zone::Required {
        text.push_str("+00");
    }
    if before_christ { text + " BC" } else { text }
}

#[cfg(test)]
mod tests {
    use super::{DAY, Zone, date, timestamp, timetz, write_date, write_timestamp, write_timetz};

    #[test]
    fn days_are_counted_from_2000() {
        for (text, expected) in [
            ("2000-01-01", 0),
            ("1999-12-31", -1),
            ("2000-03-01", 60),
            ("1970-01-01", -10_957),
            ("0001-01-01", -730_119),
            ("0001-12-31 BC", -730_120),
            ("4714-11-24 BC", -2_451_545),
            ("5874897-12-31", 2_145_031_948),
        ] {
            assert_eq!(date(text.as_bytes()), Some(expected), "{text}");
            assert_eq!(write_date(expected), text);
        }
        for text in
            ["2000-02-30", "1900-02-29", "2000-13-01", "2000-1-1", "00-01-01", "today", "4714-11-23 BC"]
        {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn timestamps_survive_their_text() {
        for text in ["2026-11-21 01:02:03.123456+00", "0044-03-15 23:59:59+00 BC", "infinity", "-infinity"] {
            let value = timestamp(text.as_bytes(), Zone::Required).unwrap();
            assert_eq!(write_timestamp(value, Zone::Required), text);
        }
        let zoned = |text: &str| timestamp(text.as_bytes(), Zone::Required);
        assert_eq!(zoned("2000-01-01T24:00:00Z"), Some(DAY));
        assert_eq!(zoned("2000-01-01T05:30+05:30"), Some(0));
        assert_eq!(zoned("2000-01-01"), None);
        assert_eq!(timestamp(b"2000-01-01 00:00+00", Zone::Absent), None);
        for text in ["01:02:03.500000+05:30:00", "00:00:00-15:59:59", "24:00:00+15:59:59"] {
            assert_eq!(write_timetz(timetz(text.as_bytes()).unwrap()), text);
        }
    }
}
