//! `interval`: compared in microseconds, with days of 24 hours and months of 30 days, as Postgres does it.

use std::fmt::Write as _;

use super::time::{DAY, HOUR, MINUTE, SECOND};

const MONTH: i128 = 30 * DAY as i128;

/// The infinite intervals of Postgres 17.
pub(crate) const INFINITY: i128 = i128::MAX;
pub(crate) const NEGATIVE_INFINITY: i128 = i128::MIN;

/// The kinds of fields that a text may have once each.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Years,
    Months,
    Weeks,
    Days,
    Hours,
    Minutes,
    Seconds,
}

impl Field {
    fn named(unit: &str) -> Option<Self> {
        Some(match unit {
            "year" | "years" => Self::Years,
            "mon" | "mons" | "month" | "months" => Self::Months,
            "week" | "weeks" => Self::Weeks,
            "day" | "days" => Self::Days,
            "hour" | "hours" => Self::Hours,
            "min" | "mins" | "minute" | "minutes" => Self::Minutes,
            "sec" | "secs" | "second" | "seconds" => Self::Seconds,
            _ => return None,
        })
    }

    const fn microseconds(self) -> i128 {
        match self {
            Self::Years => 12 * MONTH,
            Self::Months => MONTH,
            Self::Weeks => 7 * DAY as i128,
            Self::Days => DAY as i128,
            Self::Hours => HOUR as i128,
            Self::Minutes => MINUTE as i128,
            Self::Seconds => SECOND as i128,
        }
    }
}

fn split_sign(text: &str) -> (i128, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn digits(text: &str, most: usize) -> Option<i128> {
    let valid = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    valid.then(|| text.parse().ok())?
}

/// Digits with at most six after a point, in millionths.
fn millionths(text: &str, most: usize) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, rest)| (whole, Some(rest)));
    let whole = digits(whole, most)? * i128::from(SECOND);
    let Some(fraction) = fraction else { return Some(whole) };
    let scale = 10_i128.checked_pow(u32::try_from(6_usize.checked_sub(fraction.len())?).ok()?)?;
    Some(whole + digits(fraction, 6)? * scale)
}

/// `[+-]HH:MM:SS[.ffffff]`, any number of hours.
fn clock(text: &str) -> Option<i128> {
    let (sign, text) = split_sign(text);
    let mut parts = text.split(':');
    let hours = digits(parts.next()?, 10)?;
    let minutes = digits(parts.next()?, 2).filter(|minutes| *minutes < 60)?;
    let seconds =
        millionths(parts.next().unwrap_or("00"), 2).filter(|seconds| *seconds < i128::from(MINUTE))?;
    parts
        .next()
        .is_none()
        .then_some(sign * (hours * i128::from(HOUR) + minutes * i128::from(MINUTE) + seconds))
}

/// Reads `1 year 2 mons -3 days +04:05:06.789`, each field at most once and with a sign of its own.
pub(crate) fn parse(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    match text {
        "infinity" => return Some(INFINITY),
        "-infinity" => return Some(NEGATIVE_INFINITY),
        _ => {}
    }
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (mut total, mut seen, mut found) = (0_i128, Vec::new(), false);
    while let Some(word) = words.next() {
        found = true;
        if word.contains(':') {
            if words.next().is_some()
                || seen.iter().any(|field| matches!(field, Field::Hours | Field::Minutes | Field::Seconds))
            {
                return None;
            }
            return Some(total + clock(word)?);
        }
        let field = Field::named(words.next()?)?;
        if seen.contains(&field) {
            return None;
        }
        seen.push(field);
        let (sign, number) = split_sign(word);
        let amount = if field == Field::Seconds {
            sign * millionths(number, 10)?
        } else {
            // What Postgres keeps in 32 bits, however it is called.
            let amount = digits(number, 10).filter(|amount| *amount <= i128::from(i32::MAX))?;
            sign * amount * field.microseconds()
        };
        total += amount;
    }
    found.then_some(total)
}

/// A text that Postgres reads as an interval of this length, whatever `IntervalStyle` says: each field has its sign.
pub(crate) fn write(total: i128) -> String {
    let (sign, rest) = if total < 0 { ('-', -total) } else { ('+', total) };
    let (months, rest) = (rest / MONTH, rest % MONTH);
    let (days, time) = (rest / i128::from(DAY), rest % i128::from(DAY));
    let mut text = format!("{sign}{months} mons {sign}{days} days {sign}");
    let part = |unit: i64| time / i128::from(unit);
    // Cannot fail: the target is a string.
    let _ = write!(text, "{:02}:{:02}:{:02}", part(HOUR), part(MINUTE) % 60, part(SECOND) % 60);
    let _ = write!(text, ".{:06}", time % i128::from(SECOND));
    text
}

/// The most months, days and time of an interval, for which Postgres has room.
pub(crate) const fn in_range(total: i128) -> bool {
    total / MONTH <= i32::MAX as i128 && total / MONTH >= -(i32::MAX as i128)
}

#[cfg(test)]
mod tests {
    use super::{DAY, HOUR, MINUTE, SECOND, parse, write};

    #[test]
    fn fields_add_up() {
        let (day, hour, minute, second) = (DAY as i128, HOUR as i128, MINUTE as i128, SECOND as i128);
        for (text, expected) in [
            ("00:00:00", 0),
            ("1 year 2 mons -3 days +04:05:06.789", 417 * day + 4 * hour + 5 * minute + 6_789_000),
            ("-1 days", -day),
            ("1 week 2 days", 9 * day),
            ("90 mins", 90 * minute),
            ("1.5 seconds", 1_500_000),
            ("-00:00:01", -second),
            ("2562047788:00:54.775807", 9_223_372_036_854_775_807),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(expected), "{text}");
            assert_eq!(parse(write(expected).as_bytes()), Some(expected), "{text}");
        }
        for text in
            ["", "1", "1 day 1 day", "1 hour 01:00:00", "1.5 days", "P1D", "1 day ago", "01:60:00", "@ 1 day"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
