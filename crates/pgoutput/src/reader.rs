//! The checked cursor over one message.

use bytes::{Buf, Bytes};
use walcast_model::{CommitEnd, CommitStart, Lsn, Oid, Timestamp};

use crate::decode::DecodeError;
use crate::message::Name;

/// Takes big-endian fields off the front of a message. Every read is checked against the bytes that are left,
/// and names its field when they do not suffice.
#[derive(Debug)]
pub(crate) struct Reader {
    tag: u8,
    left: Bytes,
}

type Result<T> = std::result::Result<T, DecodeError>;

impl Reader {
    /// Reads the fields after the type byte `tag`.
    pub(crate) const fn new(tag: u8, left: Bytes) -> Self {
        Self { tag, left }
    }

    /// The message's type byte.
    pub(crate) const fn tag(&self) -> u8 {
        self.tag
    }

    /// The bytes that were not read yet.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// A look at what was not read yet.
    pub(crate) fn peek(&self) -> &[u8] {
        &self.left
    }

    /// The error for a field that the message is too short for.
    pub(crate) fn truncated(&self, field: &'static str) -> DecodeError {
        DecodeError::Truncated { message: self.tag.into(), field, left: self.left.len() }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let Some(array) = self.left.first_chunk::<N>().copied() else {
            return Err(self.truncated(field));
        };
        self.left.advance(N);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(crate) fn oid(&mut self, field: &'static str) -> Result<Oid> {
        self.u32(field).map(Oid::new)
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<Lsn> {
        self.array(field).map(|bytes| Lsn::new(u64::from_be_bytes(bytes)))
    }

    pub(crate) fn commit_start(&mut self, field: &'static str) -> Result<CommitStart> {
        self.lsn(field).map(CommitStart::new)
    }

    pub(crate) fn commit_end(&mut self, field: &'static str) -> Result<CommitEnd> {
        self.lsn(field).map(CommitEnd::new)
    }

    pub(crate) fn timestamp(&mut self, field: &'static str) -> Result<Timestamp> {
        self.array(field).map(|bytes| Timestamp::from_postgres_micros(i64::from_be_bytes(bytes)))
    }

    /// The next `count` bytes, as a slice of the payload.
    pub(crate) fn bytes(&mut self, count: usize, field: &'static str) -> Result<Bytes> {
        match self.left.len() {
            // The usual last field: the handle moves, its count of references stays.
            len if len == count => Ok(std::mem::take(&mut self.left)),
            len if len > count => Ok(self.left.split_to(count)),
            _ => Err(self.truncated(field)),
        }
    }

    /// A text that ends with NUL.
    pub(crate) fn name(&mut self, field: &'static str) -> Result<Name> {
        let end = memchr::memchr(0, &self.left).ok_or_else(|| self.truncated(field))?;
        let name = self.left.split_to(end);
        self.left.advance(1);
        Ok(Name::new(name))
    }

    /// Flags of which only those in `known` may be set: others could mean anything.
    pub(crate) fn flags(&mut self, known: u8, field: &'static str) -> Result<u8> {
        let flags = self.u8(field)?;
        if flags & !known != 0 {
            return Err(self.invalid(field, flags));
        }
        Ok(flags)
    }

    /// The error for a byte that has no meaning in its place.
    pub(crate) fn invalid(&self, field: &'static str, value: u8) -> DecodeError {
        DecodeError::Invalid { message: self.tag.into(), field, value }
    }

    /// Ends the message: nothing may be left.
    pub(crate) fn finish(self) -> Result<()> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing { message: self.tag.into(), bytes: self.left.len() })
    }
}
