//! The committed corpus, through what the fuzz targets check.

use std::fs;
use std::path::Path;

use crate::checks;

fn each(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "only {inputs} inputs for {target}");
}

#[test]
fn the_decode_corpus_passes() {
    each("decode", checks::decode);
}

#[test]
fn the_values_corpus_passes() {
    each("values", checks::values);
}
