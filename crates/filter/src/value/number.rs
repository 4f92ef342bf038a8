//! `numeric`: any number of digits, compared digit by digit.

use std::cmp::Ordering;

use crate::limits::NUMBER_DIGITS_MAX;

/// A number in plain digits without needless zeros: `-12.5`, `0`, `NaN`, `Infinity`, `-Infinity`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Number(Box<str>);

/// A number that is looked at in place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NumberRef<'a> {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// Without leading zeros.
        whole: &'a [u8],
        /// Without trailing zeros.
        fraction: &'a [u8],
    },
    Infinity,
    NaN,
}

/// Why a text is not a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumberError {
    Malformed,
    TooLong,
}

impl<'a> NumberRef<'a> {
    /// Reads plain digits, as `numeric` prints them, or the name of a special value.
    pub(crate) fn read(text: &'a [u8]) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix(b"-") {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let point = digits.iter().position(|byte| !byte.is_ascii_digit());
        let (whole, fraction) = match point {
            None => (digits, [].as_slice()),
            Some(at) if digits.get(at) == Some(&b'.') => (digits.get(..at)?, digits.get(at + 1..)?),
            Some(_) => {
                return match text {
                    b"NaN" => Some(Self::NaN),
                    b"Infinity" => Some(Self::Infinity),
                    b"-Infinity" => Some(Self::NegativeInfinity),
                    _ => None,
                };
            }
        };
        if whole.is_empty() && fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = whole.iter().take_while(|byte| **byte == b'0').count();
        let trailing = fraction.iter().rev().take_while(|byte| **byte == b'0').count();
        let (whole, fraction) = (whole.get(zeros..)?, fraction.get(..fraction.len() - trailing)?);
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Some(Self::Finite { negative, whole, fraction })
    }

    /// The order of `numeric`: NaN equals itself and is greater than everything else.
    pub(crate) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (
                Self::Finite { negative, whole, fraction },
                Self::Finite { negative: other_negative, whole: other_whole, fraction: other_fraction },
            ) => {
                if negative != other_negative {
                    return other_negative.cmp(&negative);
                }
                let magnitude = whole
                    .len()
                    .cmp(&other_whole.len())
                    .then_with(|| whole.cmp(other_whole))
                    .then_with(|| fraction.cmp(other_fraction));
                if negative { magnitude.reverse() } else { magnitude }
            }
            _ => self.class().cmp(&other.class()),
        }
    }

    const fn class(self) -> u8 {
        match self {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        }
    }

    /// Bytes that sort as the numbers do, and that are equal for equal ones.
    pub(crate) fn write_key(self, out: &mut Vec<u8>) {
        let Self::Finite { negative, whole, fraction } = self else {
            out.push(if self.class() == 0 { 0 } else { 3 + self.class() });
            return;
        };
        let zero = whole.is_empty() && fraction.is_empty();
        out.push(if zero {
            2
        } else if negative {
            1
        } else {
            3
        });
        if zero {
            return;
        }
        let start = out.len();
        out.extend_from_slice(&u32::try_from(whole.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(whole);
        out.extend_from_slice(fraction);
        if negative {
            // A longer fraction is a smaller number, so the end has to be greater than every digit.
            for byte in out.iter_mut().skip(start) {
                *byte = !*byte;
            }
            out.push(u8::MAX);
        }
    }
}

impl Number {
    pub(crate) fn as_ref(&self) -> NumberRef<'_> {
        NumberRef::read(self.0.as_bytes()).unwrap_or(NumberRef::NaN)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_int(value: i64) -> Self {
        Self(value.to_string().into())
    }

    /// Reads what `numeric_in` takes, without the underscores and prefixes that only Postgres 16 and later know.
    pub(crate) fn parse(text: &str) -> Result<Self, NumberError> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        let (negative, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => (text.starts_with('-'), digits),
            None => (false, text),
        };
        if digits.eq_ignore_ascii_case("nan") {
            let signed = digits.len() != text.len();
            return if signed { Err(NumberError::Malformed) } else { Ok(Self("NaN".into())) };
        }
        if digits.eq_ignore_ascii_case("infinity") || digits.eq_ignore_ascii_case("inf") {
            return Ok(Self(if negative { "-Infinity" } else { "Infinity" }.into()));
        }
        Self::finite(negative, digits)
    }

    fn finite(negative: bool, text: &str) -> Result<Self, NumberError> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            None => (text, 0),
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(NumberError::Malformed);
                }
                let value: i64 = digits.parse().map_err(|_| NumberError::TooLong)?;
                (mantissa, if exponent.starts_with('-') { -value } else { value })
            }
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(NumberError::Malformed);
        }
        let limit = i64::try_from(NUMBER_DIGITS_MAX).unwrap_or(i64::MAX);
        let length = |digits: &[u8]| i64::try_from(digits.len()).unwrap_or(i64::MAX);
        if exponent.abs() > limit || length(&digits) > limit {
            return Err(NumberError::TooLong);
        }
        let point = length(whole.as_bytes()) + exponent;
        let mut plain = String::new();
        let digit = |at: i64| {
            let digit = usize::try_from(at).ok().and_then(|at| digits.get(at));
            char::from(digit.copied().unwrap_or(b'0'))
        };
        plain.extend((0..point.max(1)).map(|at| if point <= 0 { '0' } else { digit(at) }));
        plain.push('.');
        plain.extend((point.min(0)..length(&digits) - point.max(0)).map(|at| {
            // Below zero these are the zeros that the exponent puts behind the point.
            if point < 0 { digit(at) } else { digit(at + point) }
        }));
        let trimmed = plain.trim_start_matches('0').trim_end_matches('0');
        let zero = trimmed == ".";
        let body = trimmed.strip_suffix('.').unwrap_or(trimmed);
        let sign = if negative && !zero { "-" } else { "" };
        let lead = if body.is_empty() || body.starts_with('.') { "0" } else { "" };
        Ok(Self(format!("{sign}{lead}{body}").into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Number, NumberError, NumberRef};

    fn plain(text: &str) -> Result<String, NumberError> {
        Number::parse(text).map(|number| number.as_str().to_owned())
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("007.50", "7.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("-1.25e-3", "-0.00125"),
            ("12.5e1", "125"),
            ("12345e-2", "123.45"),
            ("0.001e2", "0.1"),
            (" +4 ", "4"),
            ("nan", "NaN"),
            ("-inf", "-Infinity"),
        ] {
            assert_eq!(plain(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "-", ".", "1e", "0x1", "1_000", "e5", "1 2", "+nan"] {
            assert_eq!(plain(text), Err(NumberError::Malformed), "{text}");
        }
        assert_eq!(plain("1e5000"), Err(NumberError::TooLong));
    }

    proptest! {
        #[test]
        fn keys_sort_as_numbers_do(left in "-?[0-9]{1,4}(\\.[0-9]{1,4})?", right in "-?[0-9]{1,4}(\\.[0-9]{1,4})?") {
            let key = |text: &str| {
                let mut out = Vec::new();
                NumberRef::read(text.as_bytes()).unwrap().write_key(&mut out);
                out
            };
            let (one, other) = (NumberRef::read(left.as_bytes()).unwrap(), NumberRef::read(right.as_bytes()).unwrap());
            prop_assert_eq!(key(&left).cmp(&key(&right)), one.compare(other));
            let value = |text: &str| text.parse::<f64>().unwrap();
            prop_assert_eq!(value(&left).partial_cmp(&value(&right)).unwrap(), one.compare(other));
        }
    }
}
