//! A committed corpus, and inputs without end that are made from it.
//!
//! The checks of `crates/*/fuzz` run here as ordinary tests, without nightly or libFuzzer: first on every committed input,
//! then, 20,000 times or for `WALCAST_FUZZ_SECONDS`, on what [`Mutator`] makes of them. libFuzzer finds more in the same
//! time, because it sees which code an input reaches; this runs everywhere. An input that fails is kept as a file, which the
//! corpus can have.
//!
//! ```no_run
//! walcast_corpus::Corpus::read("fuzz/corpus/decode").words(&["\"id\""]).check(|input| drop(input.len()));
//! ```

mod mutator;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use mutator::Mutator;

/// Says for how long [`Corpus::check`] makes inputs, instead of [`MADE`].
const SECONDS_VARIABLE: &str = "WALCAST_FUZZ_SECONDS";
/// How many inputs are made where no time is given, whatever the machine is like.
const MADE: u64 = 20_000;
/// Where it starts from; the same seed makes the same inputs.
const SEED_VARIABLE: &str = "WALCAST_FUZZ_SEED";
/// Bytes of an input that fails that are printed.
const SHOWN_BYTES: usize = 400;
/// Fewer are no corpus.
const INPUTS_MIN: usize = 5;

/// The inputs of one target.
#[derive(Debug)]
pub struct Corpus {
    name: String,
    inputs: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Corpus {
    /// The files of a folder, each an input.
    ///
    /// # Panics
    /// When they cannot be read, or are too few to be a corpus.
    #[must_use]
    pub fn read(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let inputs = read(folder).unwrap_or_else(|error| panic!("the corpus {}: {error}", folder.display()));
        assert!(inputs.len() >= INPUTS_MIN, "the corpus {} has {} inputs", folder.display(), inputs.len());
        Self { name: folder.display().to_string(), inputs, words: Vec::new() }
    }

    /// Words that are put into inputs, beside what the inputs have themselves.
    #[must_use]
    pub fn words(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        self
    }

    /// Runs `check`, which panics when something does not hold, on the corpus and on 20,000 inputs that are made from it, or on
    /// as many as can be made in the time that `WALCAST_FUZZ_SECONDS` says; how many inputs that were.
    ///
    /// # Panics
    /// As `check` does, after the input was printed; when a variable is no number.
    pub fn check(&self, check: impl Fn(&[u8])) -> u64 {
        let number = |name| {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
        };
        let seed = number(SEED_VARIABLE).unwrap_or(1);
        match number(SECONDS_VARIABLE).map(Duration::from_secs) {
            Some(time) => {
                let end = Instant::now() + time;
                self.check_while(|_| Instant::now() < end, seed, check)
            }
            None => self.check_while(|made| made < MADE, seed, check),
        }
    }

    /// Makes inputs while `goes_on` says so, which is told how many were made.
    fn check_while(&self, goes_on: impl Fn(u64) -> bool, seed: u64, check: impl Fn(&[u8])) -> u64 {
        let attempt = |input: &[u8], from: &str| {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(input))) {
                let file = std::env::temp_dir().join(format!("walcast-corpus-{}", std::process::id()));
                let place = fs::write(&file, input)
                    .map_or_else(|error| error.to_string(), |()| file.display().to_string());
                let start = input.get(..SHOWN_BYTES).unwrap_or(input).escape_ascii();
                eprintln!(
                    "{}: an input {from} fails, {} bytes, kept as {place}:\n  {start}",
                    self.name,
                    input.len()
                );
                resume_unwind(panic);
            }
        };
        for input in &self.inputs {
            attempt(input, "of the corpus");
        }
        let mut mutator = Mutator::new(&self.inputs, &self.words, StdRng::seed_from_u64(seed));
        let (mut input, mut made) = (Vec::new(), 0);
        while goes_on(made) {
            mutator.next_into(&mut input);
            attempt(&input, &format!("made with {SEED_VARIABLE}={seed}"));
            made += 1;
        }
        let count = self.inputs.len() as u64 + made;
        println!("{}: {count} inputs", self.name);
        count
    }
}

/// In the order of the files' names.
fn read(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let files: std::io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let mut files = files?;
    files.sort();
    files.iter().map(fs::read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(folder: &Path) -> Corpus {
        for number in 0..INPUTS_MIN {
            fs::write(folder.join(number.to_string()), format!("input {number}")).unwrap();
        }
        Corpus::read(folder).words(&["word"])
    }

    #[test]
    fn the_corpus_comes_first_and_a_seed_makes_the_same_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = corpus(folder.path());
        let seen = |seed| {
            let seen = std::cell::RefCell::new(Vec::new());
            corpus.check_while(|made| made < 200, seed, |input| seen.borrow_mut().push(input.to_vec()));
            seen.into_inner()
        };
        let (first, again, other) = (seen(1), seen(1), seen(2));
        assert_eq!(first[..INPUTS_MIN], corpus.inputs);
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert!(first.iter().any(|input| input.windows(4).any(|part| part == b"word")));
    }

    #[test]
    fn what_fails_fails_the_test() {
        let folder = tempfile::tempdir().unwrap();
        let corpus = corpus(folder.path());
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            corpus.check_while(|made| made < 1_000_000, 1, |input| assert!(!input.starts_with(b"input 9")))
        }));
        assert!(outcome.is_err(), "one digit from the corpus");
    }
}
