//! What is refused: each kind, with a hint, and where there is one with its place.

use walcast_filter::{Refusal, limits};

use super::pure::bound;

fn check(text: &str, refusal: Refusal) {
    match bound(text) {
        Ok(predicate) => panic!("accepted: {text} as {}", predicate.to_sql()),
        Err(error) => {
            assert_eq!(error.refusal(), refusal, "{text}: {error}");
            assert!(!error.hint().is_empty(), "{text}");
            let characters = text.chars().count();
            assert!(error.position().is_none_or(|at| (1..=characters + 1).contains(&at)), "{text}: {error}");
        }
    }
}

#[test]
fn what_is_no_expression_is_refused() {
    for text in [
        "",
        "   ",
        "n =",
        "n = 1 n",
        "n = 1, n = 2",
        "(n = 1",
        "n = 1)",
        "n == 1 2",
        "'open",
        "\"open",
        "n = 1 ORDER BY n",
        "SELECT 1",
        "n IN ()",
        "n BETWEEN 1",
        "= 1",
    ] {
        check(text, Refusal::Syntax);
    }
}

#[test]
fn forms_that_filters_do_not_have_are_refused() {
    for text in [
        "n = 1; DROP TABLE t",
        "n = 1 -- comment",
        "n /* comment */ = 1",
        "lower(owner) = 'a'",
        "n + 1 = 2",
        "n = 1 + 1",
        "n = (SELECT 1)",
        "n IN (SELECT id FROM t)",
        "EXISTS (SELECT 1)",
        "n = $1",
        "n = ?",
        "owner = E'a'",
        "owner = U&'a'",
        "owner = $$a$$",
        "owner = 'a' 'b'",
        "owner = N'a'",
        "files.n = 1",
        "n::text = '1'",
        "owner || 'a' = 'b'",
        "owner ~ 'a'",
        "owner SIMILAR TO 'a'",
        "owner COLLATE \"C\" < 'a'",
        "CASE WHEN n = 1 THEN TRUE END",
        "n = -(1)::int",
        "n = 1::int::int",
        "n = -1::int",
        "(n, id) = (1, 2)",
        "n IS NULL IS NULL",
        "n = 1 = flag",
        "at AT TIME ZONE 'UTC' > '2026-01-01'",
        "1 = 1",
        "owner LIKE 'a' ESCAPE 'ab'",
        "j #>> '{a}' = '1'",
        "j -> owner = '1'",
        "\u{a0}n = 1",
        "n\u{a0}= 1",
        "ünï = 1",
        "n = \0 1",
    ] {
        let error = bound(text).expect_err(text);
        assert!(
            matches!(error.refusal(), Refusal::Unsupported | Refusal::Syntax | Refusal::Type),
            "{text}: {error}"
        );
        assert!(!error.hint().is_empty());
    }
    // Who writes it has no claims.
    let hint = bound("j @> ARRAY['a']").expect_err("no document").hint().to_owned();
    assert!(hint.contains("column @> '{") && !hint.contains("claim"), "{hint}");
    check("n = now()", Refusal::Unsupported);
    check("n = ANY (1)", Refusal::Unsupported);
    check("owner = E'a'", Refusal::Unsupported);
    check("n = 1; DROP TABLE t", Refusal::Unsupported);
    check("claims.sub = owner", Refusal::Claim);
}

#[test]
fn names_and_types_that_do_not_fit_are_refused() {
    check("nobody = 1", Refusal::UnknownColumn);
    check("\"N\" = 1", Refusal::UnknownColumn);
    check(&format!("{} = 1", "n".repeat(64)), Refusal::UnknownColumn);
    for text in [
        "owner = 1",
        "n = TRUE",
        "n",
        "n LIKE '1'",
        "flag < 1",
        "num = '1'::float8",
        "n = '1'::text",
        "n = '1'::wrong",
        "d = '2026-01-01'::timestamp",
        "tags = '{a}'",
        "tags < '{a}'",
        "docs @> '{}'",
        "n @> '{1}'",
        "j < '1'",
        "js ->> 'a' = '1'",
        "js = '1'",
        "owner ->> 'a' = 'b'",
        "pair IS NULL",
        "pair = '(1,2)'",
        "spot = '(1,2)'",
        "owner = title",
        "n = num",
        "n = ARRAY[1]",
        "1 = ANY (n)",
        "numbers @> ARRAY['1']",
        "numbers @> ARRAY[1,3000000000]",
        "code = 'a'::text",
    ] {
        check(text, Refusal::Type);
    }
}

#[test]
fn texts_that_are_no_values_are_refused() {
    for text in [
        "n = '1.5'",
        "n = '3000000000'",
        "n = 'x'",
        "f = '1e999'",
        "f = '0x1p3'",
        "num = '1_000'",
        "flag = 'o'",
        "d = '2026-02-30'",
        "d = '21.11.2026'",
        "ts = '2026-01-01 00:00+00'",
        "span = 'P1D'",
        "j = '{'",
        "j @> '\"\\u0000\"'",
        "mood = 'angry'",
        "tags @> 'a'",
        "tags @> '{a'",
        "tags @> '{{a}}'",
        "owner LIKE 'a\\'",
        "owner = '\u{FFFD}'",
    ] {
        check(text, Refusal::Literal);
    }
}

#[test]
fn what_depends_on_settings_locale_or_null_is_refused() {
    for text in [
        "at = '2026-01-01 00:00'",
        "at > 'now'",
        "d = 'today'",
        "d = '01/02/2026'",
        "at = '2026-01-01 00:00 CET'",
    ] {
        check(text, Refusal::Setting);
    }
    for text in [
        "title < 'a'",
        "title BETWEEN 'a' AND 'b'",
        "tag = 'a'",
        "tag LIKE 'a'",
        "tag IN ('a')",
        "title ILIKE '%link%'",
        "title ILIKE 'ab_'",
        "title ILIKE 'é'",
        "j ->> 'a' < 'b'",
        "'a' < ANY (tags)",
    ] {
        check(text, Refusal::Collation);
    }
    for text in [
        "j IS NULL",
        "j <> '1'",
        "NOT j @> '1'",
        "(j = '1') IS UNKNOWN",
        "j IS DISTINCT FROM '1'",
        "j = 'null'",
    ] {
        check(text, Refusal::JsonNull);
    }
}

#[test]
fn limits_are_kept_to_the_last_one_that_is_allowed() {
    let conditions = |count: usize| vec!["n = 1"; count].join(" OR ");
    assert!(bound(&conditions(limits::CONDITIONS_MAX)).is_ok());
    check(&conditions(limits::CONDITIONS_MAX + 1), Refusal::TooManyConditions);
    let list = |count: usize| format!("n IN ({})", vec!["1"; count].join(","));
    assert!(bound(&list(limits::LIST_ITEMS_MAX)).is_ok());
    check(&list(limits::LIST_ITEMS_MAX + 1), Refusal::ListTooLong);
    let array = |count: usize| format!("n = ANY ('{{{}}}')", vec!["1"; count].join(","));
    assert!(bound(&array(limits::LIST_ITEMS_MAX)).is_ok());
    check(&array(limits::LIST_ITEMS_MAX + 1), Refusal::ListTooLong);
    let nested = |depth: usize| format!("{}n = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(bound(&nested(limits::DEPTH_MAX)).is_ok());
    check(&nested(limits::DEPTH_MAX + 1), Refusal::TooDeep);
    check(&nested(4000), Refusal::TooDeep);
    let text = |length: usize| format!("owner = '{}'", "a".repeat(length - 10));
    assert!(bound(&text(limits::TEXT_BYTES_MAX)).is_ok());
    check(&text(limits::TEXT_BYTES_MAX + 1), Refusal::TextTooLong);
    let pattern = |length: usize| format!("owner LIKE '{}'", "a".repeat(length));
    assert!(bound(&pattern(limits::PATTERN_BYTES_MAX)).is_ok());
    check(&pattern(limits::PATTERN_BYTES_MAX + 1), Refusal::PatternTooLong);
    let digits = |count: usize| format!("num = {}", "9".repeat(count));
    assert!(bound(&digits(limits::NUMBER_DIGITS_MAX)).is_ok());
    check(&digits(limits::NUMBER_DIGITS_MAX + 1), Refusal::NumberTooLong);
    check("num = '1e100000'", Refusal::NumberTooLong);
    let document = |depth: usize| format!("j @> '{}{}'", "[".repeat(depth), "]".repeat(depth));
    assert!(bound(&document(limits::JSON_DEPTH_MAX)).is_ok());
    check(&document(limits::JSON_DEPTH_MAX + 1), Refusal::TooDeep);
    let path = |steps: usize| format!("(j {}) = '1'", "-> 'a'".repeat(steps));
    assert!(bound(&path(limits::PATH_STEPS_MAX)).is_ok());
    check(&path(limits::PATH_STEPS_MAX + 1), Refusal::TooDeep);
}

/// The sides of operators that nest without parentheses, as deep as a text can make them.
#[test]
fn no_nesting_exhausts_a_small_stack() {
    let texts = [
        format!("n {}= 1", "= 1 ".repeat(3000)),
        format!("n = 1{}", "::int".repeat(3000)),
        format!("n = {}1", "- ".repeat(3000)),
        format!("n = {}1", "+".repeat(3000)),
        format!("{}flag", "NOT ".repeat(3000)),
        format!("n = 1{}", " IS NULL".repeat(1500)),
        format!("j{} = '1'", " -> 'a'".repeat(2000)),
        format!("n = {}1{}", "ARRAY[".repeat(2000), "]".repeat(2000)),
        format!("n{} = 1", "[1]".repeat(3000)),
        format!("n = 1{}", " OR n = 1".repeat(1500)),
        format!("n = 1{}", " + 1".repeat(1000)),
        format!("{}1", "n.".repeat(1000)),
        "(".repeat(16_000),
        format!("n = 1 {}", "AND (".repeat(2000)),
        "f(".repeat(8000),
        "CASE WHEN ".repeat(1600),
    ];
    let run = move || {
        for text in &texts {
            assert!(bound(text).is_err(), "{}", &text[..40]);
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_refusal_says_where() {
    let error = bound("n = 1\n AND é = 2").unwrap_err();
    assert_eq!(error.position(), Some(12), "{error}");
    let error = bound("n = 1\n AND nobody = 2").unwrap_err();
    assert_eq!(error.position(), Some(12), "{error}");
    assert!(error.to_string().ends_with("at character 12"), "{error}");
    assert!(error.hint().contains("owner"));
}
