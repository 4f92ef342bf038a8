//! An answer without end, packed with gzip (RFC 1952) so that what was given to it can be read at once.
//!
//! A compressor takes 272 KiB, which is too much for each of thousands of streams that mostly wait. So no stream has one. A
//! thread has one, which knows nothing of what was packed before; what it makes ends at a byte, and any number of such
//! pieces make one stream (RFC 1951, section 3.2.4). A stream keeps the last of its own text: the compressor is shown that
//! first, so that the next event is written as what differs from the ones before it.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};

/// Text that a stream keeps, in bytes. More makes the events of one table no smaller, as long as they fit.
const KEPT_BYTES: usize = 2048;
/// Text that is packed at a time, in bytes: others are not kept waiting.
pub(super) const PIECE_BYTES_MAX: usize = 64 << 10;
/// What packing may add to a piece that cannot be packed, in bytes: the head, blocks that are stored, the flush.
const OVERHEAD_BYTES: usize = 128;

/// No name, no time, packed fast, on a system that nobody knows.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];
/// An empty block that is the last one.
const LAST_BLOCK: [u8; 2] = [3, 0];

thread_local! {
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// How far one stream is.
#[derive(Default)]
pub(super) struct Packing {
    has_begun: bool,
    sum: Crc,
    /// The last of the text.
    kept: Vec<u8>,
}

impl Packing {
    /// Packs the next piece of text, of at most [`PIECE_BYTES_MAX`].
    ///
    /// # Errors
    /// When the compressor refuses, which it has no reason for.
    pub(super) fn pack(&mut self, text: &[u8]) -> io::Result<Bytes> {
        let mut out = Vec::with_capacity(OVERHEAD_BYTES.max(text.len() / 2));
        if !std::mem::replace(&mut self.has_begun, true) {
            out.extend_from_slice(&HEAD);
        }
        COMPRESSOR.with_borrow_mut(|compressor| {
            compressor.reset();
            if !self.kept.is_empty() {
                // Sent already: only what the compressor has learnt by it is wanted.
                compress(compressor, &self.kept, &mut Vec::with_capacity(KEPT_BYTES + OVERHEAD_BYTES))?;
            }
            compress(compressor, text, &mut out)
        })?;
        self.sum.update(text);
        self.keep(text);
        Ok(out.into())
    }

    /// What ends the stream.
    pub(super) fn end(self) -> Bytes {
        let head: &[u8] = if self.has_begun { &[] } else { &HEAD };
        [head, &LAST_BLOCK, &self.sum.sum().to_le_bytes(), &self.sum.amount().to_le_bytes()].concat().into()
    }

    fn keep(&mut self, text: &[u8]) {
        let last = &text[text.len().saturating_sub(KEPT_BYTES)..];
        let left = KEPT_BYTES - last.len();
        self.kept.drain(..self.kept.len().saturating_sub(left));
        self.kept.extend_from_slice(last);
    }
}

/// All of a text, up to the end of a byte.
fn compress(compressor: &mut Compress, text: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let before = compressor.total_in();
    loop {
        let taken = usize::try_from(compressor.total_in() - before).map_err(io::Error::other)?;
        compressor.compress_vec(&text[taken..], out, FlushCompress::Sync)?;
        let is_taken = compressor.total_in() - before == text.len() as u64;
        // Where there is room left, nothing is kept back.
        if is_taken && out.len() < out.capacity() {
            return Ok(());
        }
        out.reserve(out.len().max(OVERHEAD_BYTES));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::{Decompress, FlushDecompress};

    use super::{HEAD, KEPT_BYTES, PIECE_BYTES_MAX, Packing};

    /// Text like that of events, which cannot be packed where `noise` says so.
    fn text(number: u32, length: usize, noise: bool) -> Vec<u8> {
        let mut state = number.wrapping_mul(2_654_435_761).max(1);
        let byte = |at: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            if noise { state.to_le_bytes()[0] } else { b"data: {\"id\":1,"[at % 14] }
        };
        (0..length).map(byte).collect()
    }

    #[test]
    fn each_piece_can_be_read_at_once_and_all_of_them_are_one_file() {
        let mut packing = Packing::default();
        let mut reader = Decompress::new(false);
        let (mut all, mut plain) = (Vec::new(), Vec::new());
        let lengths = [1, 300, 0, 5, 2047, 2048, 2049, 300, 40_000, PIECE_BYTES_MAX, 7, 300];
        for (number, length) in (0..).zip(lengths.into_iter().cycle().take(60)) {
            let piece = text(number, length, number % 3 == 0);
            let packed = packing.pack(&piece).unwrap();
            let deflated = if number == 0 { packed.strip_prefix(HEAD.as_slice()).unwrap() } else { &packed };
            let mut read = Vec::with_capacity(length + 1);
            reader.decompress_vec(deflated, &mut read, FlushDecompress::Sync).unwrap();
            assert!(read == piece, "piece {number} of {length} bytes");
            assert!(packing.kept.len() <= KEPT_BYTES && packing.kept.capacity() <= 2 * KEPT_BYTES);
            all.extend_from_slice(&packed);
            plain.extend_from_slice(&piece);
            assert!(plain.ends_with(&packing.kept));
        }
        all.extend_from_slice(&packing.end());
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(all.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == plain);
    }

    #[test]
    fn an_event_is_small_when_it_is_like_those_before_it() {
        let mut packing = Packing::default();
        let event = |number: u32| {
            let row = format!("{{\"id\":{number},\"state\":\"paid\",\"customer_id\":{}}}", number * 7);
            format!(
                "event: transaction\nid: f_7Jq2@16/{number:X}\ndata: {{\"changes\":[{{\"op\":\"insert\",\"table\":\"public.orders\",\"key\":{{\"id\":{number}}},\"row\":{row}}}]}}\n\n"
            )
        };
        let sizes: Vec<usize> = (1000..1010)
            .map(|number| packing.pack(event(number).as_bytes()).unwrap().len() * 100 / event(number).len())
            .collect();
        assert!(sizes[0] < 100 && sizes[1..].iter().all(|percent| *percent < 35), "{sizes:?}");
    }

    #[test]
    fn a_stream_that_says_nothing_is_an_empty_file() {
        let mut read = Vec::new();
        let end = Packing::default().end();
        flate2::read::GzDecoder::new(end.as_ref()).read_to_end(&mut read).unwrap();
        assert!(read.is_empty());
    }
}
