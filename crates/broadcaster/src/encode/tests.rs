use walcast_model::{CommitEnd, Lsn, Op, PartBuilder, Seq};
use walcast_protocol::ServerMessage;

use super::{Heads, View, part as encode};
use crate::limits::Limits;
use crate::testing::{Bench, decode, key, table, transaction};

#[tokio::test]
async fn a_frame_of_few_columns_holds_no_room_for_all() {
    let bench = Bench::new(1 << 20, Limits::default());
    let a = table("a", &["x", "y"]);
    let mut builder = PartBuilder::new(transaction(10, 7), Seq::FIRST);
    let mut change = builder.change(Op::Insert, &a);
    let wide = format!(r#"{{"id":1,"x":2,"y":"{}"}}"#, "y".repeat(100_000));
    let Ok(()) = change.row(|out| -> Written {
        out.extend_from_slice(wide.as_bytes());
        Ok(())
    });
    change.finish().unwrap();
    let part = builder.finish(Some(CommitEnd::new(Lsn::new(20))));
    let shape = bench.world.router.shape(key(r#""tables":[{"table":"*","columns":["x"]}]"#));
    let mut encoded = encode(&part, shape.wanted(), View::whole());
    let counted = encoded.bytes();
    let held = encoded.runs.remove(0).tail.try_into_mut().unwrap().capacity();
    assert!(held <= counted && counted < 1000, "{held} bytes are held, {counted} are counted");
}

type Written = Result<(), std::convert::Infallible>;

fn put(text: &'static str) -> impl FnOnce(&mut Vec<u8>) -> Written {
    move |out| {
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[tokio::test]
async fn what_is_written_is_what_the_protocol_reads_in_every_column() {
    let bench = Bench::new(1 << 20, Limits::default());
    let a = table("a", &["x", "big \"one\"", "y"]);
    let mut builder = PartBuilder::new(transaction(10, 7), Seq::FIRST);
    let mut change = builder.change(Op::Update, &a);
    let Ok(()) = change.key(put(r#"{"id":1}"#));
    let Ok(()) = change.row(put(r#"{"id":2,"x":123456789012345678901234567890.10}"#));
    let Ok(()) = change.old(put(r#"{"id":1,"x":{"k":[1,"}"]},"big \"one\"":"B","y":null}"#));
    change.unchanged(["big \"one\"", "y"]);
    change.finish().unwrap();
    builder.change(Op::Truncate, &a).finish().unwrap();
    let part = builder.finish(Some(CommitEnd::new(Lsn::new(20))));
    let text = |fields: &str| {
        let shape = bench.world.router.shape(key(fields));
        let mut encoded = encode(&part, shape.wanted(), View::whole());
        assert_eq!(encoded.runs.len(), 1);
        let run = encoded.runs.remove(0);
        let frame = Heads::new(&"s".parse().unwrap()).transaction(run.tail, run.piece);
        let ServerMessage::Transaction(message) = decode(&frame) else { panic!("no transaction") };
        assert_eq!(ServerMessage::from(message.clone()).to_json().len(), frame.len());
        serde_json::to_string(&message.changes).unwrap()
    };
    let whole = format!("[{}]", std::str::from_utf8(part.json()).unwrap());
    assert_eq!(text(r#""tables":[{"table":"*"}]"#), whole);
    assert_eq!(
        text(r#""tables":[{"table":"*","columns":["x"]}]"#),
        r#"[{"op":"update","table":"public.a","key":{"id":1},"row":{"id":2,"x":123456789012345678901234567890.10},"#
            .to_owned()
            + r#""old":{"id":1,"x":{"k":[1,"}"]}}},{"op":"truncate","table":"public.a"}]"#
    );
    assert_eq!(
        text(r#""tables":[{"table":"*","columns":["big \"one\""]}]"#),
        r#"[{"op":"update","table":"public.a","key":{"id":1},"row":{"id":2},"old":{"id":1,"big \"one\"":"B"},"#
            .to_owned()
            + r#""unchanged":["big \"one\""]},{"op":"truncate","table":"public.a"}]"#
    );
}
