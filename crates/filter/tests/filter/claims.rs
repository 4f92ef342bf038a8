//! Generated policies with claims, by walcast and by Postgres, which is given what the claims say as parameters.

use std::error::Error;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use walcast_filter::{Claims, Policy, Predicate};
use walcast_testkit::{Cluster, TestDatabase, for_each_version};

use super::differential::{Answers, ROWS, World, number};
use super::generate::{COMPARISONS, condition, pick, quote, text_for};
use super::table::{COLUMNS, Kind, TestColumn, quoted_name};

/// Policies for each version.
const CASES: usize = 800;
/// Policies that are looked at together.
const BATCH: usize = 20;

/// What somebody writes who wants to be more than a value.
const HOSTILE: &[&str] = &[
    "x' OR '1'='1",
    "'; DROP TABLE t; --",
    "\\' OR true --",
    "\\",
    "\\\\'",
    "''",
    "\"",
    "$1",
    "$$",
    "E'\\x27'",
    "{a,b}",
    "{\"a\",NULL}",
    "NULL",
    "null",
    "%",
    "a_c",
    "claims.sub",
    "\u{202e}txet",
    "e\u{301}",
    "😀",
    "\u{feff}a",
    "a\r\n",
    " ",
    "\u{7f}",
];
const WITH_ZERO: &[&str] = &["\0", "a\0b", "'\0 OR true"];
const NAMES: &[&str] =
    &["a", "B", "userId", "it's", "a b", "x.y", "https://id.example/claim", "é", "\"", "\\"];

/// A text as a parameter of whatever type Postgres takes it for.
#[derive(Clone, Debug)]
struct AsText(Option<String>);

impl ToSql for AsText {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(text) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(text.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// What a claim says.
enum Saying {
    Nothing,
    One(String),
    Many(Vec<Option<String>>),
    Object(String),
}

/// Where a claim stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// One value beside another.
    Value,
    /// In `ANY` and `ALL`, where one value is a list of one.
    Quantifier,
    /// Beside an array, where it is one too.
    Array,
}

/// A policy, the same for Postgres, and what the token says.
#[derive(Default)]
struct Case {
    /// How many claims it names.
    named: usize,
    claims: Vec<String>,
    parameters: Vec<AsText>,
    /// Whether one of them has a character that no value of Postgres has.
    has_zero: bool,
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

/// Whether it may be written without quotes.
fn is_bare(text: &str) -> bool {
    serde_json::from_str::<serde_json::Number>(text).is_ok() || matches!(text, "true" | "false")
}

fn element(random: &mut StdRng, text: &str) -> String {
    if is_bare(text) && random.random() { text.to_owned() } else { json(text) }
}

/// An array of Postgres, as it would be written by hand.
fn array(items: &[Option<String>]) -> String {
    let item = |item: &Option<String>| match item {
        None => "NULL".to_owned(),
        Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("{{{}}}", items.iter().map(item).collect::<Vec<_>>().join(","))
}

impl Case {
    /// Another claim with this value, or without any: how a policy names it.
    fn claim(&mut self, random: &mut StdRng, value: Option<String>) -> String {
        self.named += 1;
        let top = format!("c{}{}", self.named, pick(random, NAMES));
        let name = |name: &str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if plain { name.to_owned() } else { quoted_name(name) }
        };
        let inner: Vec<&str> = (0..random.random_range(0..3)).map(|_| pick(random, NAMES)).collect();
        let path: String = inner.iter().map(|inner| format!(".{}", name(inner))).collect();
        let value = value.map(|value| {
            inner.iter().rev().fold(value, |value, name| format!("{{{}: {value}}}", json(name)))
        });
        match value {
            Some(value) => self.claims.push(format!("{}: {value}", json(&top))),
            None if !inner.is_empty() => self.claims.push(format!("{}: {{}}", json(&top))),
            None => {}
        }
        format!("claims.{}{path}", name(&top))
    }

    /// A parameter with this text: how SQL names it.
    fn parameter(&mut self, text: Option<String>) -> String {
        self.has_zero |= text.as_ref().is_some_and(|text| text.contains('\0'));
        self.parameters.push(AsText(text));
        format!("${}", self.parameters.len())
    }

    fn text(random: &mut StdRng, column: &TestColumn) -> String {
        match random.random_range(0..24) {
            0..=3 => pick(random, HOSTILE).to_owned(),
            4 => pick(random, WITH_ZERO).to_owned(),
            _ => text_for(random, column),
        }
    }

    /// What is said about a column, as a policy and as SQL name it.
    fn said(&mut self, random: &mut StdRng, column: &TestColumn, beside: Beside) -> (String, String) {
        let saying = match random.random_range(0..16) {
            0 | 1 => Saying::Nothing,
            2 if column.kind == Kind::Json => Saying::Object("{\"a\": 1, \"it's\": [\"\\\\\", null]}".into()),
            _ if beside != Beside::Value && random.random_ratio(4, 5) => {
                let count = random.random_range(0..4);
                let item =
                    |random: &mut StdRng| (!random.random_ratio(1, 6)).then(|| Self::text(random, column));
                Saying::Many((0..count).map(|_| item(random)).collect())
            }
            _ => Saying::One(Self::text(random, column)),
        };
        let (value, text) = match saying {
            Saying::Nothing if random.random() => (Some("null".to_owned()), None),
            Saying::Nothing => (None, None),
            Saying::One(text) => {
                let value = element(random, &text);
                (Some(value), Some(if beside == Beside::Value { text } else { array(&[Some(text)]) }))
            }
            Saying::Many(items) => {
                let values = items.iter().map(|item| match item {
                    None => "null".to_owned(),
                    Some(text) => element(random, text),
                });
                let values: Vec<String> = values.collect();
                (Some(format!("[{}]", values.join(", "))), Some(array(&items)))
            }
            Saying::Object(json) => (Some(json.clone()), Some(json)),
        };
        let policy = self.claim(random, value);
        (policy, self.parameter(text))
    }

    /// A condition about a column and a claim, for walcast and for Postgres.
    fn condition(&mut self, random: &mut StdRng) -> (String, String) {
        let column = COLUMNS.choose(random).expect("a choice");
        let name = quoted_name(column.name);
        let (op, not) = (pick(random, COMPARISONS), pick(random, &["", " NOT"]));
        let both =
            |(policy, sql): (String, String), form: &dyn Fn(&str) -> String| (form(&policy), form(&sql));
        match (column.kind, random.random_range(0..12)) {
            (_, 0) => {
                let plain = condition(random);
                (plain.clone(), plain)
            }
            (_, 1) => {
                let text = (!random.random_ratio(1, 3)).then(|| pick(random, HOSTILE).to_owned());
                let policy = self.claim(random, text.as_deref().map(json));
                let sql = self.parameter(text);
                (format!("{policy} IS{not} NULL"), format!("{sql}::text IS{not} NULL"))
            }
            (_, 2) => self.constant(random),
            (Kind::Json, 3..=8) => {
                let said = self.said(random, column, Beside::Value);
                let op = pick(random, &["@>", "<@", "=", "<>"]);
                both(said, &|claim| format!("{name} {op} {claim}"))
            }
            (Kind::Array, 3..=8) => {
                let cast = column.cast.trim_end_matches("[]");
                let inner = COLUMNS.iter().find(|other| other.cast == cast).unwrap_or(column);
                if random.random() {
                    let said = self.said(random, inner, Beside::Array);
                    let op = pick(random, &["@>", "<@", "&&"]);
                    return both(said, &|claim| format!("{name} {op} {claim}"));
                }
                let said = self.said(random, inner, Beside::Value);
                let quantifier = pick(random, &["ANY", "ALL"]);
                both(said, &|claim| format!("{claim} {op} {quantifier} ({name})"))
            }
            (_, 3 | 4) => {
                let said = self.said(random, column, Beside::Quantifier);
                let quantifier = pick(random, &["ANY", "ANY", "ALL", "SOME"]);
                both(said, &|claim| format!("{name} {op} {quantifier} ({claim})"))
            }
            (_, 5) => {
                let said = self.said(random, column, Beside::Value);
                both(said, &|claim| format!("{name} IS{not} DISTINCT FROM {claim}"))
            }
            (_, 6) => {
                let said = self.said(random, column, Beside::Value);
                let high = quote(&text_for(random, column));
                both(said, &|claim| format!("{name}{not} BETWEEN {claim} AND {high}"))
            }
            (_, 7) => {
                let said = self.said(random, column, Beside::Value);
                both(said, &|claim| format!("{claim} {op} {name}"))
            }
            _ => {
                let said = self.said(random, column, Beside::Value);
                both(said, &|claim| format!("{name} {op} {claim}"))
            }
        }
    }

    /// A condition that is about the bearer alone.
    fn constant(&mut self, random: &mut StdRng) -> (String, String) {
        match random.random_range(0..4) {
            0 => {
                let text = pick(random, &["true", "f", "yes", "0", "off"]).to_owned();
                let value = element(random, &text);
                let (policy, sql) = (self.claim(random, Some(value)), self.parameter(Some(text)));
                (policy, format!("{sql}::bool"))
            }
            1 => {
                let text = pick(random, &["7", "6.99", "-1e3", "123456789012345678901234567890"]).to_owned();
                let op = pick(random, COMPARISONS);
                let value = element(random, &text);
                let (policy, sql) = (self.claim(random, Some(value)), self.parameter(Some(text)));
                (format!("{policy} {op} 7"), format!("{sql}::numeric {op} 7"))
            }
            2 => {
                let text = pick(random, HOSTILE).to_owned();
                let other = quote(pick(random, HOSTILE));
                let op = pick(random, &["=", "<>"]);
                let (policy, sql) = (self.claim(random, Some(json(&text))), self.parameter(Some(text)));
                (format!("{policy} {op} {other}"), format!("{sql}::text {op} {other}"))
            }
            _ => {
                let items: Vec<Option<String>> = (0..random.random_range(0..4))
                    .map(|_| (!random.random_ratio(1, 5)).then(|| pick(random, HOSTILE).to_owned()))
                    .collect();
                let values: Vec<String> =
                    items.iter().map(|item| item.as_deref().map_or("null".to_owned(), json)).collect();
                let other = quote(pick(random, HOSTILE));
                let how = pick(random, &["= ANY", "<> ALL"]);
                let policy = self.claim(random, Some(format!("[{}]", values.join(","))));
                let sql = self.parameter(Some(array(&items)));
                (format!("{other} {how} ({policy})"), format!("{other} {how} ({sql}::text[])"))
            }
        }
    }

    fn predicate(&mut self, random: &mut StdRng, depth: usize) -> (String, String) {
        if depth == 0 || random.random() {
            return self.condition(random);
        }
        let one = self.predicate(random, depth - 1);
        let how = pick(random, &["AND", "AND", "OR", "OR", "NOT", "IS"]);
        let truth = pick(random, &["TRUE", "NOT TRUE", "FALSE", "NOT FALSE"]);
        match how {
            "NOT" => (format!("NOT ({})", one.0), format!("NOT ({})", one.1)),
            "IS" => (format!("({}) IS {truth}", one.0), format!("({}) IS {truth}", one.1)),
            _ => {
                let other = self.predicate(random, depth - 1);
                (format!("({}) {how} ({})", one.0, other.0), format!("({}) {how} ({})", one.1, other.1))
            }
        }
    }
}

/// Of each policy: as SQL, with its parameters.
async fn ask(world: &World, asked: &[(String, Vec<AsText>)]) -> Vec<Answers> {
    let mut answers = Vec::new();
    for (sql, parameters) in asked {
        let parameters: Vec<&(dyn ToSql + Sync)> =
            parameters.iter().map(|one| -> &(dyn ToSql + Sync) { one }).collect();
        let rows = world.session.query(&format!("SELECT {sql} FROM t ORDER BY id"), &parameters).await;
        answers.push(
            rows.map(|rows| rows.iter().map(|row| row.get(0)).collect())
                .map_err(|error| format!("{error:?}")),
        );
    }
    answers
}

async fn on(cluster: &'static Cluster) {
    let seed = number("WALCAST_FILTER_SEED", 1);
    let cases = number("WALCAST_FILTER_CASES", CASES);
    let database = TestDatabase::create(cluster).await;
    let mut random = StdRng::seed_from_u64(seed as u64);
    let world = World::new(&database, random.random()).await;
    let (mut accepted, mut refused, mut failures) = (0, 0, Vec::new());
    for _ in 0..cases.div_ceil(BATCH) {
        let (mut bound, mut asked): (Vec<(String, Predicate)>, Vec<_>) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let mut case = Case::default();
            let depth = random.random_range(0..4);
            let (policy, sql) = case.predicate(&mut random, depth);
            let token = format!("{{{}}}", case.claims.join(", "));
            let claims = Claims::parse(&token).unwrap_or_else(|error| panic!("{token}: {error}"));
            let what = format!("{policy}\n  of {token}");
            let filter = Policy::parse(&policy).and_then(|policy| policy.bind_claims(&claims));
            match filter.and_then(|filter| filter.bind(&world.schema)) {
                Ok(_) if case.has_zero => failures.push(format!("{what}: accepted, and is no text")),
                Ok(predicate) => {
                    bound.push((what, predicate));
                    asked.push((sql, case.parameters));
                }
                Err(error) => {
                    assert!(!error.hint().is_empty(), "{what}");
                    refused += 1;
                }
            }
        }
        accepted += bound.len();
        failures.extend(world.check_with(&bound, ask(&world, &asked)).await);
        if failures.len() > 20 {
            break;
        }
    }
    println!("seed {seed}: {accepted} policies on {ROWS} rows, {refused} refused");
    assert!(failures.is_empty(), "WALCAST_FILTER_SEED={seed}\n{}", failures.join("\n"));
    assert!(accepted > refused, "too few policies are accepted to prove anything");
}

#[tokio::test]
async fn generated_policies_with_claims_have_the_answers_of_postgres() {
    for_each_version(on).await;
}
