//! Frames of a replication stream, cut from the receive buffer without copying.

use bytes::{Buf, Bytes, BytesMut};
use walcast_model::{Lsn, Timestamp};
use walcast_postgres::ServerError;

/// `d` and its length, then `w` and its three numbers.
const XLOG_DATA_HEADER: usize = 5 + 1 + 8 + 8 + 8;
/// `d` and its length, then `k`, its two numbers and its flag.
const KEEPALIVE_LENGTH: usize = 5 + 1 + 8 + 8 + 1;

/// What a stream carries, in the order in which it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamFrame {
    /// A message of the output plugin.
    XLogData {
        /// `dataStart`: zero, or where in the WAL the message belongs. Not a position to resume from.
        start: Lsn,
        /// When the server sent it, by its clock.
        sent_at: Timestamp,
        /// The message: a slice of the receive buffer, which it keeps alive.
        data: Bytes,
    },
    /// The server has decoded everything before `wal_end`: every transaction that committed before it has been sent.
    Keepalive {
        /// The end of the last record that was decoded. Can be lower than in an earlier frame.
        wal_end: Lsn,
        /// When the server sent it, by its clock.
        sent_at: Timestamp,
        /// The server wants a status update now. It gets one without anybody's help.
        reply_requested: bool,
    },
    /// A warning or notice of the server, such as 55000 for a publication that was skipped (PostgreSQL 18).
    Notice(Box<ServerError>),
}

/// How a stream ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The server reported an error.
    Error(Box<ServerError>),
    /// The server ended the stream by itself, in good order: `CommandComplete` (it shuts down) or `CopyDone`.
    Server,
    /// The connection was closed.
    Closed,
    /// The connection broke.
    Broken(std::io::ErrorKind, String),
    /// What came is not the protocol.
    Protocol(String),
}

/// What the bytes so far amount to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// At least so many bytes are missing until the next frame is whole.
    Incomplete(usize),
    /// The stream is over.
    End(End),
}

/// Moves every whole frame from `inbound` to `frames`.
pub(super) fn take_frames(inbound: &mut BytesMut, frames: &mut Vec<StreamFrame>) -> Taken {
    loop {
        let Some((tag, length)) = header(inbound) else {
            return Taken::Incomplete(5 - inbound.len().min(5));
        };
        if length < 5 {
            return Taken::End(End::Protocol(format!("a message of {length} bytes")));
        }
        if inbound.len() < length {
            return Taken::Incomplete(length - inbound.len());
        }
        let message = inbound.split_to(length);
        match tag {
            b'd' => match copy_data(message.freeze()) {
                Ok(frame) => frames.push(frame),
                Err(end) => return Taken::End(end),
            },
            b'N' => frames.push(StreamFrame::Notice(Box::new(ServerError::from_body(&message[5..])))),
            b'E' => return Taken::End(End::Error(Box::new(ServerError::from_body(&message[5..])))),
            // A setting was changed by a reload, or a NOTIFY nobody listens to.
            b'S' | b'A' => {}
            b'c' | b'C' => return Taken::End(End::Server),
            _ => {
                return Taken::End(End::Protocol(format!(
                    "a message {:?} inside the stream",
                    char::from(tag)
                )));
            }
        }
    }
}

/// Tag and length of the next message, the tag counted in.
pub(super) fn header(inbound: &[u8]) -> Option<(u8, usize)> {
    let (&tag, rest) = inbound.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    // Lengths are signed in the protocol; what is beyond is no message, and refused as too short.
    let length = if length > i32::MAX.cast_unsigned() { 0 } else { length as usize + 1 };
    Some((tag, length))
}

fn copy_data(mut message: Bytes) -> Result<StreamFrame, End> {
    let malformed = |what: &str| Err(End::Protocol(format!("a malformed {what} frame")));
    match message.get(5) {
        Some(b'w') if message.len() >= XLOG_DATA_HEADER => {
            message.advance(6);
            let start = Lsn::new(message.get_u64());
            // walEnd: for logical replication the same as dataStart.
            message.advance(8);
            let sent_at = Timestamp::from_postgres_micros(message.get_i64());
            Ok(StreamFrame::XLogData { start, sent_at, data: message })
        }
        Some(b'k') if message.len() == KEEPALIVE_LENGTH => {
            message.advance(6);
            let wal_end = Lsn::new(message.get_u64());
            let sent_at = Timestamp::from_postgres_micros(message.get_i64());
            Ok(StreamFrame::Keepalive { wal_end, sent_at, reply_requested: message.get_u8() != 0 })
        }
        Some(b'w') => malformed("XLogData"),
        Some(b'k') => malformed("Keepalive"),
        _ => malformed("CopyData"),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::{any, prop, proptest};
    use walcast_model::{Lsn, Timestamp};

    use super::{End, StreamFrame, Taken, take_frames};

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![tag];
        message.put_u32(u32::try_from(body.len()).unwrap() + 4);
        message.extend_from_slice(body);
        message
    }

    fn stream() -> Vec<u8> {
        let mut data = vec![b'w'];
        for number in [0x10_u64, 0x10, 7] {
            data.put_u64(number);
        }
        data.extend_from_slice(b"payload");
        let mut keepalive = vec![b'k'];
        keepalive.put_u64(0x20);
        keepalive.put_i64(8);
        keepalive.put_u8(1);
        let warning = message(b'N', b"SWARNING\0C55000\0Mskipped\0\0");
        let setting = message(b'S', b"TimeZone\0UTC\0");
        [message(b'd', &data), setting, warning, message(b'd', &keepalive), message(b'C', b"COPY 0\0")]
            .concat()
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_arrive() {
        let bytes = stream();
        for step in 1..=bytes.len() {
            let (mut inbound, mut frames, mut end) = (BytesMut::new(), Vec::new(), None);
            for piece in bytes.chunks(step) {
                inbound.extend_from_slice(piece);
                if let Taken::End(taken) = take_frames(&mut inbound, &mut frames) {
                    end = Some(taken);
                }
            }
            assert_eq!(end, Some(End::Server), "{step}");
            let [StreamFrame::XLogData { start, data, .. }, StreamFrame::Notice(notice), keepalive] =
                frames.as_slice()
            else {
                panic!("{frames:?}")
            };
            assert_eq!((*start, data.as_ref()), (Lsn::new(0x10), b"payload".as_slice()));
            assert_eq!((notice.severity.as_str(), notice.sqlstate.as_str()), ("WARNING", "55000"));
            let (wal_end, sent_at) = (Lsn::new(0x20), Timestamp::from_postgres_micros(8));
            assert_eq!(*keepalive, StreamFrame::Keepalive { wal_end, sent_at, reply_requested: true });
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_stream() {
        for bytes in [
            b"d\0\0\0\x04".as_slice(),
            b"d\0\0\0\x05x",
            b"d\0\0\0\x06wx",
            b"d\0\0\0\x03",
            b"d\xff\xff\xff\xff",
            b"k\0\0\0\x04",
        ] {
            let (mut inbound, mut frames) = (BytesMut::from(bytes), Vec::new());
            let taken = take_frames(&mut inbound, &mut frames);
            assert!(matches!(taken, Taken::End(End::Protocol(_))), "{bytes:?}: {taken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            take_frames(&mut BytesMut::from(bytes.as_slice()), &mut Vec::new());
        }
    }
}
