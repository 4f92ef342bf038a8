//! What the fuzz targets check, on the committed corpus and on what is made from it.

use std::path::Path;

use walcast_corpus::Corpus;

#[path = "../fuzz/checks.rs"]
mod checks;

/// Names and values that frames have.
const WORDS: &[&str] = &[
    "\"type\":",
    "\"subscribe\"",
    "\"tables\":",
    "\"table\":",
    "\"cursor\":",
    "\"latest\"",
    "\"where\":",
    "null",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"public.*\"",
    "{",
    "[",
];

fn corpus(target: &str) -> Corpus {
    Corpus::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target))
}

#[test]
fn frames_of_any_text_are_read_or_refused() {
    corpus("frames").words(WORDS).check(checks::frames);
}

#[test]
fn cursors_of_any_text_are_read_or_refused() {
    corpus("cursors").words(&["/", ":", "FFFFFFFF", "18446744073709551615"]).check(checks::cursors);
}
