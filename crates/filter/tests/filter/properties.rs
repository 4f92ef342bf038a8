//! What holds for every text and every row.

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use walcast_filter::{Filter, Verdict};

use super::pure::{bound, verdict};

/// Spellings of one meaning.
const ALIKE: &[&[&str]] = &[
    &[
        "n = 1",
        "  N=1 ",
        "((n) = (1))",
        "n\n=\t'1'",
        "1 = n",
        "n = 01",
        "n IN (1)",
        "n IN (1, 1)",
        "NOT n <> 1",
        "\"n\" = '1'::int",
    ],
    &["n BETWEEN 1 AND 2", "n >= 1 and N <= 2", "2 >= n AND 1 <= n", "NOT (n < 1 OR n > 2)"],
    &["flag", "flag = true", "NOT NOT flag", "flag <> 'f'", "not (flag = FALSE)", "TRUE AND flag"],
    &["n = 1 OR n = 2 OR n = 3", "n = 3 OR (n = 2 OR n = 1)"],
    &["n IN (3,2,1)", "n = ANY ('{1,2,3}')", "n = ANY (ARRAY[3,2,1,1])"],
    &["num = 1.50", "num = '1.5'", "num = 15e-1"],
    &["at = '2026-01-01T00:00:00Z'", "at = timestamptz '2026-01-01 02:00+02'"],
    &["j @> '{\"b\":1,\"a\":2}'", "j @> '{ \"a\" : 2, \"b\" : 1 }'::jsonb"],
    &["tags @> '{b,a}'", "tags @> ARRAY['a','b','a']", "'{a,b}' <@ tags"],
    &["owner LIKE 'a%'", "owner like 'a%%'", "owner LIKE 'a%' ESCAPE '!'"],
    &["n = 1 AND FALSE", "FALSE", "n = ANY ('{}')"],
    &["span = '30 days'", "span = interval '1 month'", "span = '720:00:00'"],
];

#[test]
fn what_means_the_same_is_equal() {
    let groups: Vec<Vec<_>> =
        ALIKE.iter().map(|texts| texts.iter().map(|text| bound(text).expect(text)).collect()).collect();
    for (texts, predicates) in ALIKE.iter().zip(&groups) {
        for (text, predicate) in texts.iter().zip(predicates) {
            assert_eq!(predicate, &predicates[0], "{text}");
            assert_eq!(predicate.to_sql(), predicates[0].to_sql(), "{text}");
        }
    }
    for (index, one) in groups.iter().enumerate() {
        for other in &groups[index + 1..] {
            assert_ne!(one[0], other[0]);
        }
    }
}

#[test]
fn a_column_that_is_not_there_is_unknown_unless_the_rest_decides() {
    assert_eq!(verdict("n = 1", r#"{"id":1}"#), Verdict::Unknown(4));
    assert_eq!(verdict("n = 1", r#"{"id":1,"n":null}"#), Verdict::Null);
    assert_eq!(verdict("n = 1 AND id = 2", r#"{"id":1}"#), Verdict::False);
    assert_eq!(verdict("n = 1 OR id = 1", r#"{"id":1}"#), Verdict::True);
    assert_eq!(verdict("n = 1 AND id = 1", r#"{"id":1}"#), Verdict::Unknown(4));
    assert_eq!(verdict("n IS NULL", r#"{"id":1}"#), Verdict::Unknown(4));
    assert_eq!(verdict("(n = 1) IS TRUE", r#"{"id":1}"#), Verdict::Unknown(4));
    assert_eq!(verdict("n = 1", r#"{"n":"no number"}"#), Verdict::Unknown(4));
    assert_eq!(verdict("mood < 'ok'", r#"{"mood":"added later"}"#), Verdict::Unknown(17));
    assert_eq!(verdict("j @> '1'", r#"{"j":null}"#), Verdict::NotTrue);
}

#[test]
fn more_columns_than_slots_are_looked_up_alike() {
    let text =
        "id = 1 AND n = 2 AND f = 3 AND num = 4 AND owner = 'a' AND title = 'b' AND flag AND d = '2026-01-01'
        AND mood = 'ok' AND code = 'c'";
    let row = r#"{"code":"c  ","id":1,"owner":"a","title":"b","n":2,"f":3,"num":4.0,"d":"2026-01-01","flag":true,"mood":"ok"}"#;
    assert_eq!(verdict(text, row), Verdict::True);
    assert_eq!(verdict(text, &row.replace("\"n\":2", "\"n\":3")), Verdict::False);
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = bound(&text);
    }

    #[test]
    fn no_sequence_of_words_panics(words in proptest::collection::vec(0..WORDS.len(), 0..24)) {
        let text: Vec<&str> = words.iter().map(|word| WORDS[*word]).collect();
        let _ = bound(&text.join(" "));
        let _ = bound(&text.concat());
    }

    #[test]
    fn no_row_panics(row in any::<Vec<u8>>(), which in 0..ALIKE.len()) {
        let predicate = bound(ALIKE[which][0]).unwrap();
        let _ = predicate.evaluate(&row);
        let _ = predicate.evaluate(&[b"{\"n\":".as_slice(), &row].concat());
        let _ = predicate.evaluate(&[b"{\"tags\":[\"".as_slice(), &row, b"\"]}"].concat());
        let _ = predicate.evaluate(&[b"{\"j\":{\"a\":".as_slice(), &row, b"}}"].concat());
    }

    #[test]
    fn what_is_generated_is_read_again(text in "[ -~é漢\n]{0,30}") {
        let quoted = text.replace('\'', "''");
        let Ok(predicate) = bound(&format!("owner = '{quoted}' OR owner LIKE '{quoted}'")) else { return Ok(()) };
        let sql = predicate.to_sql();
        prop_assert!(sql.contains("E'") || Filter::parse(&sql).is_ok(), "{}", sql);
        let mut row = b"{\"owner\":".to_vec();
        walcast_model::json::write_string(&mut row, &text);
        row.push(b'}');
        prop_assert_eq!(predicate.evaluate(&row), Verdict::True);
    }
}

const WORDS: &[&str] = &[
    "n",
    "owner",
    "j",
    "tags",
    "flag",
    "at",
    "=",
    "<>",
    "<",
    "AND",
    "OR",
    "NOT",
    "(",
    ")",
    "IN",
    "(1, 2)",
    "BETWEEN",
    "IS",
    "NULL",
    "TRUE",
    "UNKNOWN",
    "DISTINCT",
    "FROM",
    "LIKE",
    "ILIKE",
    "ESCAPE",
    "'a'",
    "'{}'",
    "'%'",
    "1",
    "-",
    "1.5e3",
    "::int",
    "::jsonb",
    "->",
    "->>",
    "@>",
    "<@",
    "?",
    "&&",
    "ANY",
    "ALL",
    "ARRAY[",
    "]",
    ",",
    "CAST(",
    "AS",
    "interval",
    "date",
    "'2026-01-01'",
    ".",
    "\"n\"",
    "claims",
    "'",
    "\"",
    "::",
    "[",
    "+",
    "CASE",
    "SELECT",
    "*",
    "COLLATE",
    "AT",
];
