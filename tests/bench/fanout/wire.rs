//! As much of RFC 6455 as sender and receiver need here.

use memchr::memmem;

/// What every client of the bench asks with: the example of RFC 6455 section 1.2.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to it.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 0x81;

/// A text frame of a server.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    out.push(TEXT);
    match u8::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(length),
        _ => {
            out.push(126);
            // The bench has no larger ones.
            out.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
    out
}

/// A text frame of a client, under a mask that changes nothing.
pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
    let mut out = frame(payload);
    out[1] |= 0x80;
    let head = out.len() - payload.len();
    out.splice(head..head, [0; 4]);
    out
}

/// The payload of the first frame of a server in `bytes`, and how long the frame is; `None` while it is not whole.
pub(crate) fn first(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (head, length) = match *bytes.get(1)? & 0x7f {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?).into()),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, short.into()),
    };
    Some((bytes.get(head..head + length)?, head + length))
}

/// The number that follows `what`.
pub(crate) fn number_after(text: &[u8], what: &[u8]) -> Option<u64> {
    let at = memmem::find(text, what)? + what.len();
    let digits = text.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}
