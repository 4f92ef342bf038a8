//! Values as bytes: equal for equal values of one reading, and sorted as they are where a range can be looked up.

use crate::value::Datum;
use crate::value::read::Reading;

/// Appends the key of a value; `false` when values of this kind have none.
pub(super) fn write(datum: Datum<'_>, out: &mut Vec<u8>) -> bool {
    match datum {
        Datum::Int(value) => out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes()),
        Datum::Wide(value) => out.extend_from_slice(&(value ^ i128::MIN).to_be_bytes()),
        Datum::Float(value) => {
            // One zero, and one NaN above everything.
            let bits = if value.is_nan() { f64::NAN.abs().to_bits() } else { (value + 0.0).to_bits() };
            let mask = if bits >> 63 == 1 { u64::MAX } else { 1 << 63 };
            out.extend_from_slice(&(bits ^ mask).to_be_bytes());
        }
        Datum::Number(number) => number.write_key(out),
        Datum::Text(text) => out.extend(text.bytes()),
        Datum::Network(network) => network.write_key(out),
        Datum::Json(_) => return false,
    }
    true
}

/// Whether the keys of a reading sort as its values do.
pub(super) const fn is_sorted(reading: &Reading) -> bool {
    !matches!(reading, Reading::Network | Reading::Json)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::write;
    use crate::value::{Datum, compare};

    fn key(datum: Datum<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(write(datum, &mut out));
        out
    }

    proptest! {
        #[test]
        fn keys_sort_as_values_do(left in any::<(i64, f64, i128)>(), right in any::<(i64, f64, i128)>()) {
            for (left, right) in [
                (Datum::Int(left.0), Datum::Int(right.0)),
                (Datum::Float(left.1), Datum::Float(right.1)),
                (Datum::Wide(left.2), Datum::Wide(right.2)),
            ] {
                prop_assert_eq!(key(left).cmp(&key(right)), compare(left, right).unwrap());
            }
        }
    }

    #[test]
    fn floats_that_are_equal_have_one_key() {
        let float = |value: f64| key(Datum::Float(value));
        assert_eq!(float(0.0), float(-0.0));
        assert_eq!(float(f64::NAN), float(-f64::NAN));
        assert!(float(f64::NAN) > float(f64::INFINITY));
    }
}
