//! Points in time: the server's ISO style with `T` for the space, and zones with minutes.

use super::string::write_escaped;

/// Appends a `timestamp`; `infinity` and `-infinity` have no space and stay.
pub(super) fn write_timestamp(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    write_with_t(text, out);
    out.push(b'"');
}

/// Appends a `timestamptz`: like [`write_timestamp`], with `+00:00` for `+00`.
pub(super) fn write_timestamptz(text: &[u8], out: &mut Vec<u8>) {
    let (time, era) = match text.strip_suffix(b" BC") {
        Some(time) => (time, b" BC".as_slice()),
        None => (text, b"".as_slice()),
    };
    out.push(b'"');
    write_with_t(time, out);
    // A zone without minutes is a sign and two digits.
    if let Some([b'+' | b'-', b'0'..=b'9', b'0'..=b'9']) = time.last_chunk() {
        out.extend_from_slice(b":00");
    }
    out.extend_from_slice(era);
    out.push(b'"');
}

/// Appends date and time with `T` for the space between them.
fn write_with_t(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    write_escaped(text, out);
    let space = out.get_mut(start..).and_then(|text| text.iter_mut().find(|byte| **byte == b' '));
    if let Some(space) = space {
        *space = b'T';
    }
}

#[cfg(test)]
mod tests {
    use super::{write_timestamp, write_timestamptz};

    #[test]
    fn iso_style_becomes_rfc_3339_where_there_is_one() {
        for (text, expected) in [
            ("2026-11-21 01:02:03.123456+00", "2026-11-21T01:02:03.123456+00:00"),
            ("0044-03-15 01:02:03+00 BC", "0044-03-15T01:02:03+00:00 BC"),
            ("294276-12-31 23:59:59.999999+05:30", "294276-12-31T23:59:59.999999+05:30"),
            ("1800-01-01 00:00:00-03:06:28 BC", "1800-01-01T00:00:00-03:06:28 BC"),
            ("infinity", "infinity"),
            ("-infinity", "-infinity"),
        ] {
            let mut out = Vec::new();
            write_timestamptz(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{expected}\""));
        }
        let mut out = Vec::new();
        write_timestamp(b"0044-03-15 01:02:03 BC", &mut out);
        assert_eq!(out, b"\"0044-03-15T01:02:03 BC\"");
    }
}
