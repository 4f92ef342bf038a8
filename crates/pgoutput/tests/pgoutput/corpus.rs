//! What the fuzz targets check, on the committed corpus and on what is made from it.

use std::path::Path;

use walcast_corpus::Corpus;

use crate::checks;

fn corpus(target: &str) -> Corpus {
    Corpus::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target))
}

#[test]
fn messages_of_any_bytes_are_decoded_or_refused() {
    corpus("decode").check(checks::decode);
}

#[test]
fn values_of_any_text_become_json_or_are_refused() {
    corpus("values").check(checks::values);
}
