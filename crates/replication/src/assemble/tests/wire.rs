//! Messages as bytes, and a stream that answers its own questions.

use std::collections::HashMap;

use bytes::Bytes;
use walcast_model::{Cursor, Lsn, Xid};
use walcast_pgoutput::Decoder;

use super::super::{
    AssembleError, Assembler, AssemblerSettings, CatalogAnswer, RelationFacts, Step, StorageFacts,
};

/// One cell of a row.
#[derive(Clone, Copy)]
pub(super) enum Cell {
    Null,
    Unchanged,
    Text(&'static str),
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn tuple(out: &mut Vec<u8>, cells: &[Cell]) {
    out.extend_from_slice(&u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        match cell {
            Cell::Null => out.push(b'n'),
            Cell::Unchanged => out.push(b'u'),
            Cell::Text(value) => {
                out.push(b't');
                out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                out.extend_from_slice(value.as_bytes());
            }
        }
    }
}

pub(super) fn begin(start: u64, xid: u32) -> Vec<u8> {
    [b"B".as_slice(), &start.to_be_bytes(), &0_u64.to_be_bytes(), &xid.to_be_bytes()].concat()
}

pub(super) fn commit(start: u64, end: u64) -> Vec<u8> {
    [b"C\0".as_slice(), &start.to_be_bytes(), &end.to_be_bytes(), &0_u64.to_be_bytes()].concat()
}

pub(super) fn relation(
    oid: u32,
    schema: &str,
    name: &str,
    identity: u8,
    columns: &[(bool, &str, u32)],
) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend_from_slice(&oid.to_be_bytes());
    text(&mut out, schema);
    text(&mut out, name);
    out.push(identity);
    out.extend_from_slice(&u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (flag, name, oid) in columns {
        out.push(u8::from(*flag));
        text(&mut out, name);
        out.extend_from_slice(&oid.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    out
}

pub(super) fn insert(oid: u32, row: &[Cell]) -> Vec<u8> {
    let mut out = [b"I".as_slice(), &oid.to_be_bytes(), b"N"].concat();
    tuple(&mut out, row);
    out
}

pub(super) fn update(oid: u32, old: Option<(u8, &[Cell])>, new: &[Cell]) -> Vec<u8> {
    let mut out = [b"U".as_slice(), &oid.to_be_bytes()].concat();
    if let Some((kind, old)) = old {
        out.push(kind);
        tuple(&mut out, old);
    }
    out.push(b'N');
    tuple(&mut out, new);
    out
}

pub(super) fn delete(oid: u32, kind: u8, old: &[Cell]) -> Vec<u8> {
    let mut out = [b"D".as_slice(), &oid.to_be_bytes(), &[kind]].concat();
    tuple(&mut out, old);
    out
}

pub(super) fn truncate(flags: u8, oids: &[u32]) -> Vec<u8> {
    let mut out = [b"T".as_slice(), &u32::try_from(oids.len()).unwrap().to_be_bytes(), &[flags]].concat();
    for oid in oids {
        out.extend_from_slice(&oid.to_be_bytes());
    }
    out
}

pub(super) fn message(transactional: bool, prefix: &str, content: &[u8]) -> Vec<u8> {
    let mut out = vec![b'M', u8::from(transactional)];
    out.extend_from_slice(&50_u64.to_be_bytes());
    text(&mut out, prefix);
    out.extend_from_slice(&u32::try_from(content.len()).unwrap().to_be_bytes());
    out.extend_from_slice(content);
    out
}

/// An assembler with its decoder and a catalog.
pub(super) struct Stream {
    pub(super) assembler: Assembler,
    decoder: Decoder,
    catalog: HashMap<u32, RelationFacts>,
}

impl Stream {
    pub(super) fn new(position: Cursor) -> Self {
        Self::with_part_bytes(position, 1 << 20)
    }

    pub(super) fn with_part_bytes(position: Cursor, part_bytes_max: usize) -> Self {
        let settings = AssemblerSettings { part_bytes_max, secret: "secret".into() };
        let assembler = Assembler::new(settings, position, Xid::new(1));
        Self { assembler, decoder: Decoder::new(), catalog: HashMap::new() }
    }

    pub(super) fn facts(&mut self, oid: u32, facts: RelationFacts) {
        self.catalog.insert(oid, facts);
    }

    pub(super) fn forget(&mut self, oid: u32) {
        self.catalog.remove(&oid);
    }

    pub(super) fn try_feed(&mut self, payload: &[u8]) -> Result<(), AssembleError> {
        let message = self.decoder.decode(Bytes::copy_from_slice(payload)).expect("a message");
        if let Step::NeedsCatalog(question) = self.assembler.message(message)? {
            let type_names = question.type_names.iter().map(|(oid, _)| format!("type {oid}")).collect();
            let relation = self.catalog.get(&question.relation.get()).cloned();
            self.assembler.answer(&CatalogAnswer { relation, type_names, storage: StorageFacts::None });
        }
        Ok(())
    }

    /// One message that stands at `start`, and what is to be done before the next.
    pub(super) fn step(&mut self, start: u64, payload: &[u8]) -> Step {
        self.assembler.at(Lsn::new(start));
        let message = self.decoder.decode(Bytes::copy_from_slice(payload)).expect("a message");
        self.assembler.message(message).expect("a stream in order")
    }

    pub(super) fn feed(&mut self, payload: &[u8]) -> &mut Self {
        self.try_feed(payload).expect("a stream in order");
        self
    }
}
