use std::sync::Arc;

use bytes::Bytes;
use walcast_model::last_image::StorageId;
use walcast_model::{Cursor, Lsn, Oid, RelationDigest, Seq};

use super::{ImageQuestion, Images, Sought};

const T: Oid = Oid::new(1);
const A: (RelationDigest, StorageId) = (RelationDigest::new(1), StorageId::new(1));
const B: (RelationDigest, StorageId) = (RelationDigest::new(1), StorageId::new(2));

fn images() -> Images {
    let mut images = Images::new(Arc::new(|_| true), at(5));
    images.define(T, Some(A));
    images
}

fn at(lsn: u64) -> Cursor {
    Cursor::new(Lsn::new(lsn), Seq::FIRST)
}

fn key() -> Bytes {
    Bytes::from_static(b"{\"id\":1}")
}

fn row(text: &'static str) -> Option<Bytes> {
    Some(Bytes::from_static(text.as_bytes()))
}

fn question((digest, storage): (RelationDigest, StorageId)) -> ImageQuestion {
    ImageQuestion { relation: T, digest, storage, key: key() }
}

fn sought(images: &Images) -> String {
    match images.sought(T, &key()) {
        Sought::Unknown => "unknown".to_owned(),
        Sought::Nothing => "nothing".to_owned(),
        Sought::Whole(image) => String::from_utf8(image.to_vec()).unwrap(),
    }
}

#[test]
fn what_is_not_stored_yet_comes_before_what_history_said() {
    let mut images = images();
    assert_eq!(sought(&images), "unknown");
    images.found(question(A), row("old"));
    assert_eq!(sought(&images), "old");
    images.record(T, key(), row("new"), at(10));
    // An answer that was asked for ahead of the change.
    images.found(question(A), row("old"));
    assert_eq!(sought(&images), "new");
    images.record(T, key(), None, at(20));
    assert_eq!(sought(&images), "nothing");
    // The first of the two is stored: the second counts. Both: history knows.
    images.mark_stored(at(20));
    assert_eq!(sought(&images), "nothing");
    images.mark_stored(at(21));
    assert_eq!(sought(&images), "unknown");
}

#[test]
fn what_history_said_is_forgotten_before_it_can_be_old() {
    let mut images = images();
    images.found(question(A), row("old"));
    images.forget_found();
    assert_eq!(sought(&images), "unknown");
}

#[test]
fn a_table_that_was_cleared_has_nothing_until_history_knows() {
    let mut images = images();
    images.record(T, key(), row("a"), at(10));
    images.clear(T, at(20));
    images.found(question(A), row("old"));
    assert_eq!(sought(&images), "nothing");
    images.record(T, key(), row("b"), at(30));
    images.mark_stored(at(15));
    assert_eq!(sought(&images), "b");
    images.mark_stored(at(31));
    assert_eq!(sought(&images), "unknown");
}

#[test]
fn a_definition_that_comes_back_does_not_bring_back_its_images() {
    let mut images = images();
    images.define(T, Some(B));
    assert_eq!(sought(&images), "nothing");
    images.record(T, Bytes::from_static(b"{\"id\":2}"), None, at(10));
    images.define(T, Some(A));
    images.mark_stored(at(11));
    images.found(question(A), row("old"));
    assert_eq!(sought(&images), "nothing");
    images.record(T, Bytes::from_static(b"{\"id\":2}"), None, at(20));
    images.mark_stored(at(21));
    assert_eq!(sought(&images), "unknown");
    images.found(question(B), row("old"));
    assert_eq!(sought(&images), "unknown");
}

#[test]
fn history_is_to_have_what_was_stored_before_and_what_was_dropped_since() {
    let mut images = images();
    assert_eq!(images.history_at(), at(5));
    images.record(T, key(), row("a"), at(10));
    images.mark_stored(at(10));
    assert_eq!(images.history_at(), at(5));
    images.mark_stored(at(11));
    assert_eq!(images.history_at(), Cursor::new(Lsn::new(10), Seq::new(1)));
}
