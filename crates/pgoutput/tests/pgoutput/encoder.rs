//! What a server sends, written by the layouts of the documentation and by nothing of the decoder.

/// The body of a message being written.
#[derive(Clone, Debug)]
pub(crate) struct Body(Vec<u8>);

/// One column of a tuple.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

impl Body {
    pub(crate) fn new(tag: u8) -> Self {
        Self(vec![tag])
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn i64(mut self, value: i64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(crate) fn xid(self, stream: Option<u32>) -> Self {
        match stream {
            Some(xid) => self.u32(xid),
            None => self,
        }
    }

    /// A text that ends with NUL; `text` has none.
    pub(crate) fn name(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self.u8(0)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend((bytes.len() as u32).to_be_bytes());
        self.0.extend(bytes);
        self
    }

    pub(crate) fn tuple(mut self, kind: u8, cells: &[Cell]) -> Self {
        self = self.u8(kind).u16(cells.len() as u16);
        for cell in cells {
            self = match cell {
                Cell::Null => self.u8(b'n'),
                Cell::Unchanged => self.u8(b'u'),
                Cell::Text(value) => self.u8(b't').bytes(value),
                Cell::Binary(value) => self.u8(b'b').bytes(value),
            };
        }
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}
