//! What must hold for any text of a client; run by the fuzz targets and by `cargo test`.

use walcast_model::Cursor;
use walcast_protocol::{ClientMessage, StartAt};

/// A frame of a client: it is understood or refused, in few words, and what is understood means the same when it is
/// written down and read again.
pub(crate) fn frames(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ClientMessage::decode(text) {
        Ok(message) => {
            let written = serde_json::to_string(&message).expect("a message can be written");
            let again = ClientMessage::decode(&written).expect("what was written can be read");
            let twice = serde_json::to_string(&again).expect("a message can be written");
            assert_eq!(written, twice);
        }
        // It goes back to the client and into metrics: a long frame must not make it long.
        Err(error) => assert!(error.to_string().len() < 2000, "{} bytes of error", error.to_string().len()),
    }
}

/// A cursor: read or refused, and what is read is the same when it is written and read again.
pub(crate) fn cursors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        let written = cursor.to_string();
        assert_eq!(written.parse(), Ok(cursor), "{text:?} is written as {written:?}");
        assert!(written.len() <= 40, "{written:?}");
    }
    match text.parse::<StartAt>() {
        Ok(start) => assert_eq!(start.to_string().parse(), Ok(start)),
        Err(error) => assert!(error.to_string().len() < 500),
    }
}
