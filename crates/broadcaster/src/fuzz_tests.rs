//! Frames of any text, as far as a subscription's request: read, or refused with what to do instead.

use std::path::Path;

use walcast_corpus::Corpus;
use walcast_protocol::ClientMessage;

use crate::request::Request;

#[test]
fn frames_of_any_text_become_requests_or_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/fuzz/corpus/frames");
    let words = [
        "{\"table\":\"*\"}",
        "\"cursor\":\"acked\",",
        "\"where\":\"x\",",
        "\"columns\":[],",
        "\"payload\":\"row\",",
    ];
    Corpus::read(folder).words(&words).check(|data| {
        let Some(ClientMessage::Subscribe(message)) =
            std::str::from_utf8(data).ok().and_then(|text| ClientMessage::decode(text).ok())
        else {
            return;
        };
        if let Err(refusal) = Request::try_from(message) {
            assert!(!refusal.message.is_empty());
        }
    });
}
