//! What the fuzz target checks, on the committed corpus and on what is made from it.

use std::path::Path;

use walcast_corpus::Corpus;

use crate::checks;

/// What filters are made of.
const WORDS: &[&str] = &[
    " AND ",
    " OR ",
    " NOT ",
    " IS NULL",
    " IS TRUE",
    " IN (",
    " BETWEEN ",
    " LIKE ",
    " = ANY (",
    "ARRAY[",
    "::int8",
    "::text",
    " @> ",
    " ->> ",
    "interval '1 day'",
    "'{",
    "''",
    "\"",
    "--",
    "/*",
    "$1",
    "E'",
    "numeric",
    "jsonb",
    "1e131072",
    "owner",
    "num",
];

#[test]
fn filters_of_any_text_are_read_or_refused_and_have_an_answer_for_any_row() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/filters");
    Corpus::read(folder).words(WORDS).check(checks::filters);
}
