//! What is told of tables, and which of their columns.

use crate::limits::Limits;
use crate::testing::{Bench, Insert, at, called, part, table, words};

#[tokio::test]
async fn a_new_definition_inside_a_transaction_is_told_between_its_rows_also_from_history() {
    let (old, new) = (table("a", &["x"]), table("a", &["x", "y"]));
    let inserts = [Insert(1, old.clone()), Insert(2, new.clone()), Insert(3, new)];
    let expected = [
        "subscribed",
        "relation a id,x",
        r#"transaction 0/A:1 {"id":1,"x":"v1"} more"#,
        "relation a id,x,y",
        r#"transaction 0/14 {"id":2,"x":"v2","y":"v2"} {"id":3,"x":"v3","y":"v3"}"#,
        r#"transaction 0/28 {"id":4,"x":"v4","y":"v4"}"#,
        "caught_up 0/28",
    ];
    for memory in [1, 1 << 20] {
        let mut bench = Bench::new(memory, Limits::default());
        let again = part(30, 0, &[Insert(4, inserts[2].1.clone())], Some(40));
        bench.append(vec![part(10, 0, &inserts, Some(20)), again], 0).await;
        bench.route();
        let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
        session.barrier(at(40));
        bench.past.page_changes.clone_from(&100);
        let words = words(&bench.take(&mut session).0);
        assert!(words[0].starts_with(expected[0]), "{words:?}");
        assert_eq!(words[1..], expected[1..], "{memory}");
    }
}

#[tokio::test]
async fn columns_are_chosen_and_the_key_always_comes() {
    let mut bench = Bench::new(1 << 20, Limits::default());
    let (a, b) = (table("a", &["x", "y"]), table("b", &["x", "y"]));
    bench.append(vec![part(10, 0, &[Insert(1, a), Insert(2, b)], Some(20))], 0).await;
    bench.route();
    let fields = r#""tables":[{"table":"*"},{"table":"public.a","columns":["y"]}],"cursor":"0/1""#;
    let mut session = bench.session(fields).unwrap();
    let words = words(&bench.take(&mut session).0);
    assert_eq!(
        words[1..],
        [
            "relation a id,y",
            "relation b id,x,y",
            r#"transaction 0/14 {"id":1,"y":"v1"} {"id":2,"x":"v2","y":"v2"}"#
        ]
    );
}

#[tokio::test]
async fn two_tables_that_change_names_and_change_them_back_are_told_each_time() {
    let (one, two) = (table("a", &["x"]), table("b", &["y"]));
    let swapped = [called(&one, "b"), called(&two, "a")];
    // While it was called b, nothing was written to the first one.
    let inserts = [one.clone(), swapped[1].clone(), one].map(|relation| Insert(1, relation));
    for memory in [1, 1 << 20] {
        let mut bench = Bench::new(memory, Limits::default());
        let log = [10, 20, 30].into_iter().zip(&inserts);
        bench
            .append(
                log.map(|(start, insert)| part(start, 0, std::slice::from_ref(insert), Some(start + 10)))
                    .collect(),
                0,
            )
            .await;
        bench.route();
        let mut session = bench.session(r#""tables":[{"table":"*"}],"cursor":"0/1""#).unwrap();
        let words = words(&bench.take(&mut session).0);
        let told: Vec<&String> = words.iter().filter(|word| word.starts_with("relation")).collect();
        assert_eq!(told, ["relation a id,x", "relation a id,y", "relation a id,x"]);
    }
}
