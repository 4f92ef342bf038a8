//! What the database says to channels.

use walcast_model::{Cursor, Lsn};

use super::super::{MESSAGE_PREFIX, META_PREFIX};
use super::wire::{Stream, begin, commit, message};

/// The payloads that came, with where they are.
fn said(stream: &mut Stream) -> Vec<(u64, String)> {
    let messages = stream.assembler.take().messages;
    messages.iter().map(|one| (one.lsn.get(), one.payload.get().to_owned())).collect()
}

fn content(payload: &str) -> Vec<u8> {
    format!(r#"{{"channel":"a","payload":{payload}}}"#).into_bytes()
}

#[test]
fn what_is_outside_of_a_transaction_is_said_at_once_and_once() {
    let mut stream = Stream::new(Cursor::ZERO);
    // All of the test's are at 50.
    stream.feed(&message(false, MESSAGE_PREFIX, &content("1")));
    assert_eq!(said(&mut stream), [(50, "1".to_owned())]);
    stream.feed(&message(false, META_PREFIX, &content("1")));
    assert!(said(&mut stream).is_empty(), "it was there before");
    let said_to = stream.assembler.said_to();
    let mut again = Stream::new(Cursor::ZERO);
    again.assembler.said_before(said_to);
    again.feed(&message(false, MESSAGE_PREFIX, &content("1")));
    assert!(said(&mut again).is_empty(), "on the next connection as well");
    for bad in [&b"x"[..], b"{}", b"\0\xff", &vec![b' '; 1 << 17]] {
        let mut stream = Stream::new(Cursor::ZERO);
        stream.feed(&message(false, MESSAGE_PREFIX, bad));
        assert!(said(&mut stream).is_empty());
    }
}

#[test]
fn what_is_in_a_transaction_is_said_at_its_commit_unless_the_feed_has_it() {
    let transaction = |position: u64| {
        let mut stream = Stream::new(Cursor::from(Lsn::new(position)));
        stream.feed(&begin(100, 7));
        stream.feed(&message(true, MESSAGE_PREFIX, &content("1"))).feed(&message(
            true,
            MESSAGE_PREFIX,
            b"bad",
        ));
        stream.feed(&message(true, META_PREFIX, &content("\"meta\"")));
        stream.feed(&message(true, MESSAGE_PREFIX, &content("2")));
        assert!(said(&mut stream).is_empty());
        stream.feed(&commit(100, 120));
        said(&mut stream)
    };
    assert_eq!(transaction(0), [(100, "1".to_owned()), (100, "2".to_owned())]);
    assert_eq!(transaction(100).len(), 2);
    assert!(transaction(120).is_empty(), "it was sent again");
}

#[test]
fn a_transaction_that_says_very_much_is_cut_off() {
    let mut stream = Stream::new(Cursor::ZERO);
    stream.feed(&begin(100, 7));
    let large = content(&format!("\"{}\"", "x".repeat(60_000)));
    for _ in 0..100 {
        stream.feed(&message(true, MESSAGE_PREFIX, &large));
    }
    stream.feed(&commit(100, 120));
    let count = said(&mut stream).len();
    assert!((17..20).contains(&count), "{count}");
}
