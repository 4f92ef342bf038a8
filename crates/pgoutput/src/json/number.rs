//! Numbers: in the plain digits that `numeric` prints, whatever the notation they came in.
//!
//! `to_jsonb` reads a number's text with `numeric_in`: exponents are multiplied out, the scale (digits after the
//! point) is kept, zero has no sign.

use super::{ValueError, malformed, string};

/// Digits before the point that `numeric` can hold.
const WHOLE_DIGITS_MAX: i64 = 131_072;
/// Digits after the point that `numeric` can hold.
const SCALE_MAX: i64 = 16_383;
/// An exponent beyond this is beyond `numeric` for every text that fits into memory.
const EXPONENT_CLAMP: i64 = 1 << 40;

/// A number in the grammar of JSON, except that leading zeros may stand.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: Option<i64>,
}

/// Appends an integer as it is.
pub(super) fn write_integer(text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty()
        || !digits.iter().all(u8::is_ascii_digit)
        || (digits.len() > 1 && digits.starts_with(b"0"))
    {
        return Err(malformed("an integer"));
    }
    out.extend_from_slice(text);
    Ok(())
}

/// Appends a float or numeric: a number, or `"NaN"`, `"Infinity"`, `"-Infinity"`.
pub(super) fn write(text: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        string::write(text, out);
        return Ok(());
    }
    write_finite(text, usize::MAX, out).map(|_| ())
}

/// Appends a finite number, in plain digits if that takes at most `expanded_max` bytes and `numeric` can hold it, else
/// as it is. Answers by how many bytes it grew.
pub(super) fn write_finite(text: &[u8], expanded_max: usize, out: &mut Vec<u8>) -> Result<usize, ValueError> {
    let decimal = Decimal::parse(text).ok_or_else(|| malformed("a number"))?;
    let padded = decimal.whole.len() > 1 && decimal.whole.starts_with(b"0");
    let negative_zero = decimal.negative && decimal.is_zero();
    if decimal.exponent.is_none() && !padded && !negative_zero && decimal.in_range() {
        out.extend_from_slice(text);
        return Ok(0);
    }
    let grown = decimal.expanded_len().saturating_sub(text.len());
    if decimal.in_range() && grown <= expanded_max {
        decimal.write_expanded(out);
        return Ok(grown);
    }
    if padded {
        return Err(malformed("a number"));
    }
    out.extend_from_slice(text);
    Ok(0)
}

fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, rest) = split_digits(rest);
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => {
                let (fraction, rest) = split_digits(rest);
                if fraction.is_empty() {
                    return None;
                }
                (fraction, rest)
            }
            None => (rest.get(..0)?, rest),
        };
        if whole.is_empty() {
            return None;
        }
        let exponent = match rest.split_first() {
            None => None,
            Some((b'e' | b'E', rest)) => Some(parse_exponent(rest)?),
            Some(_) => return None,
        };
        Some(Self { negative, whole, fraction, exponent })
    }

    fn digits(&self) -> impl Iterator<Item = u8> + Clone {
        self.whole.iter().chain(self.fraction).copied()
    }

    fn is_zero(&self) -> bool {
        self.digits().all(|digit| digit == b'0')
    }

    fn exponent(&self) -> i64 {
        self.exponent.unwrap_or(0)
    }

    /// Digits after the point in plain notation.
    fn scale(&self) -> i64 {
        (length(self.fraction) - self.exponent()).max(0)
    }

    /// Digits before the point in plain notation, negative when zeros follow the point first.
    fn whole_digits(&self) -> i64 {
        let leading = self.digits().take_while(|digit| *digit == b'0').count();
        length(self.whole) + self.exponent() - i64::try_from(leading).unwrap_or(i64::MAX)
    }

    fn in_range(&self) -> bool {
        // Almost every number is too short to be out of range.
        if self.exponent.is_none()
            && length(self.whole) <= WHOLE_DIGITS_MAX
            && length(self.fraction) <= SCALE_MAX
        {
            return true;
        }
        self.scale() <= SCALE_MAX && (self.is_zero() || self.whole_digits() <= WHOLE_DIGITS_MAX)
    }

    fn expanded_len(&self) -> usize {
        let whole = if self.is_zero() { 1 } else { self.whole_digits().max(1) };
        usize::try_from(whole.saturating_add(self.scale()).saturating_add(2)).unwrap_or(usize::MAX)
    }

    /// Only for numbers in range, so that the output is bounded.
    fn write_expanded(&self, out: &mut Vec<u8>) {
        let scale = usize::try_from(self.scale()).unwrap_or(0);
        let zero = self.is_zero();
        if self.negative && !zero {
            out.push(b'-');
        }
        let mut digits = self.digits().skip_while(|digit| *digit == b'0').chain(std::iter::repeat(b'0'));
        let whole = if zero { 0 } else { self.whole_digits() };
        match usize::try_from(whole) {
            Ok(whole) if whole > 0 => out.extend(digits.by_ref().take(whole)),
            _ => out.push(b'0'),
        }
        if scale > 0 {
            out.push(b'.');
            let zeros = usize::try_from(whole.saturating_neg()).unwrap_or(0).min(scale);
            out.extend(std::iter::repeat_n(b'0', zeros));
            out.extend(digits.take(scale - zeros));
        }
    }
}

fn length(digits: &[u8]) -> i64 {
    i64::try_from(digits.len()).unwrap_or(i64::MAX)
}

fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(digit - b'0')).min(EXPONENT_CLAMP);
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::{write, write_integer};

    fn written(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write(text.as_bytes(), &mut out).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn numbers_are_written_in_plain_digits_with_their_scale() {
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("1.50", "1.50"),
            ("-12.5", "-12.5"),
            ("1e+22", "10000000000000000000000"),
            ("1.5e3", "1500"),
            ("1.50e1", "15.0"),
            ("12E-2", "0.12"),
            ("-1.25e-5", "-0.0000125"),
            ("0e5", "0"),
            ("0e-5", "0.00000"),
            ("0e200000", "0"),
            ("0.001e1", "0.01"),
            ("007", "7"),
            ("00.5", "0.5"),
            ("NaN", "\"NaN\""),
            ("-Infinity", "\"-Infinity\""),
            ("1e131072", "1e131072"),
            ("1e-16384", "1e-16384"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert_eq!(written(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(written("1e131071").map(|json| json.len()), Some(131_072));
        assert_eq!(written("5e-324").map(|json| json.len()), Some(326));
    }

    #[test]
    fn what_is_not_a_number_is_an_error() {
        for text in ["", "-", ".", "1.", ".5", "1e", "1e+", "+1", "1 ", "0x1", "nan", "1e5x", "1.2.3", "--1"]
        {
            assert_eq!(written(text), None, "{text}");
        }
        for text in ["", "-", "1.0", "x", "01", "+1"] {
            assert!(write_integer(text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
        }
    }
}
