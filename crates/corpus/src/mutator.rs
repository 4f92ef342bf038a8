//! Inputs that are made from others.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// No input is made longer than this.
const LENGTH_MAX: usize = 64 << 10;
/// Changes in a row that make one input of another.
const STEPS_MAX: u32 = 6;
/// Bytes at which parsers decide something.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\"'\\{}[](),.:;/*-+0919eE \n\t%_$=<>!|&";

/// Makes inputs: takes one of the corpus and changes it a few times.
#[derive(Debug)]
pub struct Mutator<'a> {
    inputs: &'a [Vec<u8>],
    words: &'a [Vec<u8>],
    random: StdRng,
}

impl<'a> Mutator<'a> {
    /// From `inputs`, with `words` put in between.
    #[must_use]
    pub const fn new(inputs: &'a [Vec<u8>], words: &'a [Vec<u8>], random: StdRng) -> Self {
        Self { inputs, words, random }
    }

    /// The next input, in the place of what `input` had.
    pub fn next_into(&mut self, input: &mut Vec<u8>) {
        input.clear();
        input.extend_from_slice(self.other());
        for _ in 0..self.random.random_range(1..=STEPS_MAX) {
            self.change(input);
        }
        input.truncate(LENGTH_MAX);
    }

    fn other(&mut self) -> &'a [u8] {
        self.inputs.choose(&mut self.random).map_or(&[], Vec::as_slice)
    }

    /// A place in the input, or its end.
    fn place(&mut self, input: &[u8]) -> usize {
        self.random.random_range(0..=input.len())
    }

    /// A stretch of it, rather a short one.
    fn stretch(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.place(input);
        let longest = input.len() - start;
        let length = if self.random.random_bool(0.7) { longest.min(8) } else { longest };
        start..start + self.random.random_range(0..=length)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        match self.random.random_range(0..10) {
            0 => {
                let at = self.place(input);
                input.insert(at, *BYTES.choose(&mut self.random).unwrap_or(&0));
            }
            1 => {
                let at = self.place(input);
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.random();
                }
            }
            2 => {
                let at = self.place(input);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
            3 => drop(input.drain(self.stretch(input))),
            4 => {
                let (stretch, at) = (self.stretch(input), self.place(input));
                let copy = input[stretch].to_vec();
                input.splice(at..at, copy);
            }
            5 => {
                // Deep nesting and long numbers come from repetition.
                let (stretch, at) = (self.stretch(input), self.place(input));
                let times = 1 << self.random.random_range(0..12);
                let most = LENGTH_MAX / stretch.len().max(1);
                let copies = input[stretch].repeat(times.min(most));
                input.splice(at..at, copies);
            }
            6 => {
                let (stretch, other) = (self.stretch(input), self.other());
                let part = other[self.stretch(other)].to_vec();
                input.splice(stretch, part);
            }
            7 => {
                let cut = self.place(input);
                input.truncate(cut);
                let other = self.other();
                input.extend_from_slice(&other[self.place(other)..]);
            }
            8 => {
                let at = self.place(input);
                let number = ["0", "-1", "4294967296", "18446744073709551616", "1e999", "FFFFFFFF/FFFFFFFF"];
                let number = number.choose(&mut self.random).unwrap_or(&"0");
                input.splice(at..at, number.bytes());
            }
            _ => {
                let stretch = self.stretch(input);
                let word = self.words.choose(&mut self.random).map_or(&[][..], Vec::as_slice);
                input.splice(stretch, word.iter().copied());
            }
        }
    }
}
