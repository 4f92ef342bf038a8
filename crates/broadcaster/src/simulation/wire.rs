//! What Postgres would send, as bytes of pgoutput.

use super::source::{Definition, Effect, Write};

/// Builtin type oids.
pub(super) const INT4: u32 = 23;
pub(super) const TEXT: u32 = 25;

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn tuple(out: &mut Vec<u8>, cells: &[Option<String>]) {
    out.extend_from_slice(&u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        match cell {
            None => out.push(b'n'),
            Some(value) => {
                out.push(b't');
                out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                out.extend_from_slice(value.as_bytes());
            }
        }
    }
}

pub(super) fn begin(start: u64, xid: u64) -> Vec<u8> {
    // The WAL has the lower half of a transaction id.
    let low = (xid & 0xFFFF_FFFF) as u32;
    [b"B".as_slice(), &start.to_be_bytes(), &0_u64.to_be_bytes(), &low.to_be_bytes()].concat()
}

pub(super) fn commit(start: u64, end: u64) -> Vec<u8> {
    [b"C\0".as_slice(), &start.to_be_bytes(), &end.to_be_bytes(), &0_u64.to_be_bytes()].concat()
}

pub(super) fn relation(table: &Definition) -> Vec<u8> {
    let mut out = vec![b'R'];
    out.extend_from_slice(&table.oid.to_be_bytes());
    text(&mut out, "public");
    text(&mut out, &table.name);
    out.push(b'd');
    let columns = table.columns();
    out.extend_from_slice(&u16::try_from(columns.len()).unwrap().to_be_bytes());
    for (index, name) in columns.iter().enumerate() {
        out.push(u8::from(index == 0));
        text(&mut out, name);
        let kind = if index == 0 { INT4 } else { TEXT };
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&(-1_i32).to_be_bytes());
    }
    out
}

pub(super) fn change(write: &Write) -> Vec<u8> {
    let oid = write.table.oid.to_be_bytes();
    let row: Vec<Option<String>> = write.cells().into_iter().map(Some).collect();
    match write.effect {
        Effect::Insert | Effect::Update => {
            let op = if write.effect == Effect::Insert { b"I" } else { b"U" };
            let mut out = [op.as_slice(), &oid, b"N"].concat();
            tuple(&mut out, &row);
            out
        }
        Effect::Delete => {
            let mut out = [b"D".as_slice(), &oid, b"K"].concat();
            let key: Vec<Option<String>> =
                row.into_iter().enumerate().map(|(index, cell)| cell.filter(|_| index == 0)).collect();
            tuple(&mut out, &key);
            out
        }
    }
}

pub(super) fn barrier(at: u64, id: &str) -> Vec<u8> {
    let mut out = vec![b'M', 1];
    out.extend_from_slice(&at.to_be_bytes());
    text(&mut out, "walcast.barrier");
    out.extend_from_slice(&u32::try_from(id.len()).unwrap().to_be_bytes());
    out.extend_from_slice(id.as_bytes());
    out
}
