//! What one row costs from the received bytes to JSON: `cargo bench -p walcast-pgoutput`.
//!
//! Prints the best of several runs, in nanoseconds a row and megabytes of payload a second.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use walcast_model::Oid;
use walcast_pgoutput::json::{Types, ValueWriter};
use walcast_pgoutput::{Decoder, Message, TupleColumn};

/// Few rows a run, so that the best of many runs is one that no other process disturbed.
const ROWS: usize = 2_000;
const RUNS: usize = 500;

/// A row of types and texts, as an application's table would have it.
const ORDINARY: [(u32, &str); 10] = [
    (20, "9007199254740993"),
    (2950, "6b1f3c1e-8a5b-4c8e-9a52-0f4f8f6f1b7d"),
    (25, "A title of ordinary length"),
    (1043, "someone@example.com"),
    (1700, "1234.50"),
    (16, "t"),
    (1184, "2026-11-21 01:02:03.123456+00"),
    (23, "42"),
    (25, "A body with \"quotes\" and a\nnew line, long enough to be looked at in words of eight bytes each."),
    (1082, "2026-11-21"),
];

/// A row of what is dear to write.
const NESTED: [(u32, &str); 10] = [
    (20, "1"),
    (1007, "{1,2,3,4,5,6,7,8,NULL,10}"),
    (1009, r#"{plain,"with space","with \"quotes\"",NULL}"#),
    (114, r#"{"name": "x", "id": 1, "tags": ["a", "b"], "nested": {"b": 1.50, "a": null}}"#),
    (3802, r#"{"id": 1, "name": "x", "tags": ["a", "b"], "nested": {"a": null, "b": 1.50}}"#),
    (701, "1e+22"),
    (1022, "{0.1,0.30000000000000004,-0}"),
    (1185, r#"{"2026-11-21 01:02:03+00","2026-11-21 01:02:03.5+00"}"#),
    (25, "é ß 漢字 😀 in a text outside of ASCII"),
    (17, "\\x00112233445566778899aabbccddeeff"),
];

fn payload(row: &[(u32, &str)]) -> Bytes {
    let mut payload = b"I\0\0\x40\0N".to_vec();
    payload.extend((row.len() as u16).to_be_bytes());
    for (_, text) in row {
        payload.push(b't');
        payload.extend((text.len() as u32).to_be_bytes());
        payload.extend(text.as_bytes());
    }
    Bytes::from(payload)
}

/// Writes a row object, as the assembler does; `names` are `"name":`.
fn write_row(message: &Message, names: &[String], writers: &[ValueWriter], out: &mut Vec<u8>) {
    let Message::Insert(insert) = message else { panic!("an insert") };
    for ((column, name), writer) in insert.new.iter().zip(names).zip(writers) {
        out.extend_from_slice(name.as_bytes());
        match column {
            TupleColumn::Text(text) => writer.write(text, out).expect("a valid value"),
            _ => out.extend_from_slice(b"null"),
        }
        out.push(b',');
    }
}

fn bench(name: &str, row: &[(u32, &str)]) {
    let types = Types::new();
    let writers: Vec<ValueWriter> = row.iter().map(|(oid, _)| types.writer(Oid::new(*oid))).collect();
    let names: Vec<String> = (0..row.len()).map(|index| format!("\"column_{index}\":")).collect();
    let payload = payload(row);
    let (mut decode, mut both, mut out) = (f64::MAX, f64::MAX, Vec::new());
    for _ in 0..RUNS {
        let mut decoder = Decoder::new();
        let start = Instant::now();
        for _ in 0..ROWS {
            black_box(decoder.decode(black_box(payload.clone())).expect("a valid message"));
        }
        decode = decode.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
        let start = Instant::now();
        for _ in 0..ROWS {
            out.clear();
            let message = decoder.decode(black_box(payload.clone())).expect("a valid message");
            write_row(&message, &names, &writers, &mut out);
            black_box(&out);
        }
        both = both.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
    }
    let mut line = format!("{name}: {} bytes in, {} of JSON; ", payload.len(), out.len());
    let megabytes = payload.len() as f64 * 1e3 / both;
    let _ = write!(line, "decode {decode:.0} ns, decode and write {both:.0} ns a row, {megabytes:.0} MB/s");
    println!("{line}");
}

/// What each value of a row costs by itself.
fn bench_values(row: &[(u32, &str)]) {
    let types = Types::new();
    let mut out = Vec::new();
    for (oid, text) in row {
        let writer = types.writer(Oid::new(*oid));
        let mut best = f64::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            for _ in 0..ROWS {
                out.clear();
                writer.write(black_box(text.as_bytes()), &mut out).expect("a valid value");
                black_box(&out);
            }
            best = best.min(start.elapsed().as_nanos() as f64 / ROWS as f64);
        }
        println!("  type {oid:>4}, {:>3} bytes: {best:.0} ns", text.len());
    }
}

fn main() {
    bench("ordinary row of 10 columns", &ORDINARY);
    bench_values(&ORDINARY);
    bench("nested row of 10 columns", &NESTED);
    bench_values(&NESTED);
}
