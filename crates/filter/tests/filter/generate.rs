//! Random conditions, biased towards what Postgres and walcast could answer differently.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::table::{COLUMNS, Kind, TestColumn, quoted_name};

pub(crate) const COMPARISONS: &[&str] = &["=", "<>", "!=", "<", "<=", ">", ">="];

pub(crate) fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).copied().unwrap_or("")
}

pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Changes one character, so that texts are found that only one side reads.
fn mutated(random: &mut StdRng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let special: Vec<char> = "0159+-.,:eE Tt%_\\\"'{}[]/aZBC\u{e9}".chars().collect();
    let at = random.random_range(0..=characters.len());
    let new = special.choose(random).copied().unwrap_or('0');
    match random.random_range(0..3) {
        0 if at < characters.len() => {
            characters.remove(at);
        }
        1 if at < characters.len() => characters[at] = new,
        _ => characters.insert(at, new),
    }
    characters.into_iter().collect()
}

/// The text of a literal for a column, mostly one that fits.
pub(crate) fn text_for(random: &mut StdRng, column: &TestColumn) -> String {
    match random.random_range(0..20) {
        0 => {
            let other = COLUMNS.choose(random).expect("a choice");
            pick(random, other.pool).to_owned()
        }
        1 | 2 => {
            let text = pick(random, column.pool);
            mutated(random, text)
        }
        _ => pick(random, column.pool).to_owned(),
    }
}

fn literal(random: &mut StdRng, column: &TestColumn, cast: &str) -> String {
    let text = text_for(random, column);
    let bare = text.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'-'));
    match random.random_range(0..12) {
        0 => "NULL".to_owned(),
        1..=4 if bare && column.kind == Kind::Number => text,
        5 if bare && column.kind == Kind::Number => {
            let cast = pick(random, &["int", "int8", "numeric", "float8", "real", "int2", "oid"]);
            format!("'{text}'::{cast}")
        }
        6 | 7 => format!("{}::{cast}", quote(&text)),
        8 if !cast.contains(['"', '[']) && random.random() => format!("CAST({} AS {cast})", quote(&text)),
        9 if ["date", "time", "timestamp", "interval", "timestamptz", "uuid"].contains(&cast) => {
            format!("{cast} {}", quote(&text))
        }
        _ if column.kind == Kind::Bool && random.random() => pick(random, &["true", "FALSE"]).to_owned(),
        _ => quote(&text),
    }
}

fn list(random: &mut StdRng, column: &TestColumn, cast: &str) -> String {
    let count = random.random_range(1..5);
    let items: Vec<String> = (0..count).map(|_| literal(random, column, cast)).collect();
    items.join(", ")
}

fn array_text(random: &mut StdRng, column: &TestColumn) -> String {
    let count = random.random_range(0..4);
    let item = |random: &mut StdRng| {
        let text = text_for(random, column);
        if random.random_ratio(1, 8) {
            "NULL".to_owned()
        } else {
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
    };
    let items: Vec<String> = (0..count).map(|_| item(random)).collect();
    quote(&format!("{{{}}}", items.join(",")))
}

fn pattern(random: &mut StdRng, column: &TestColumn) -> String {
    let mut text: Vec<char> = pick(random, column.pool).chars().collect();
    for _ in 0..random.random_range(0..3) {
        let at = random.random_range(0..=text.len());
        text.insert(at, *['%', '%', '_', '\\', '!'].choose(random).expect("a choice"));
    }
    let pattern = quote(&text.into_iter().collect::<String>());
    let escape = pick(random, &["", "", "", " ESCAPE '!'", " ESCAPE ''", " ESCAPE '\\'"]);
    format!("{pattern}{escape}")
}

fn path(random: &mut StdRng, name: &str) -> (String, bool) {
    let mut path = name.to_owned();
    for _ in 0..random.random_range(0..3) {
        path += " -> ";
        path += pick(random, &["'a'", "'b'", "'c'", "0", "1", "-1", "2", "'bb'", "'A'", "'d'"]);
    }
    if path == name || random.random() {
        path += pick(random, &[" ->> 'a'", " ->> 0", " ->> 'b'", " ->> -1", " ->> 'c'", "->>'A'", "->>'bb'"]);
        return (path, true);
    }
    (path, false)
}

fn json_condition(random: &mut StdRng, column: &TestColumn) -> String {
    let name = column.name;
    match random.random_range(0..10) {
        0 | 1 => format!("{name} @> {}", literal(random, column, "jsonb")),
        2 => format!("{name} <@ {}", literal(random, column, "jsonb")),
        3 => format!("{name} ? {}", quote(pick(random, &["a", "b", "1", "bb", "it's"]))),
        4 => format!(
            "{name} {} {}",
            pick(random, &["=", "<>", "IS DISTINCT FROM"]),
            literal(random, column, "jsonb")
        ),
        5 => format!("{name} IN ({})", list(random, column, "jsonb")),
        6 => format!("{name} IS NOT NULL"),
        _ => {
            let (path, text) = path(random, name);
            match (random.random_range(0..4), text) {
                (0, _) => format!("{path} IS {} NULL", pick(random, &["", "NOT"])),
                (1, true) => format!("{path} IN ('1', 'x', 'a', '{{}}')"),
                (2, true) => format!("{path} LIKE {}", pick(random, &["'%1%'", "'x'", "'_'", "'{%'"])),
                (_, true) => {
                    let op = pick(random, COMPARISONS);
                    format!(
                        "{path} {op} {}",
                        quote(pick(random, &["1", "x", "[1, 2]", "true", "it's", "1.0"]))
                    )
                }
                (1, false) => format!("({path}) @> {}", literal(random, column, "jsonb")),
                (_, false) => {
                    format!("{path} {} {}", pick(random, &["=", "<>"]), literal(random, column, "jsonb"))
                }
            }
        }
    }
}

fn array_condition(random: &mut StdRng, column: &TestColumn) -> String {
    let name = column.name;
    let element_cast = column.cast.trim_end_matches("[]");
    let elements: Vec<&TestColumn> = COLUMNS.iter().filter(|other| other.cast == element_cast).collect();
    let element = elements.choose(random).copied().unwrap_or(&COLUMNS[3]);
    let array = match random.random_range(0..5) {
        0 => quote(pick(random, column.pool)),
        1 => format!("{}::{}", array_text(random, element), column.cast),
        2 => format!("ARRAY[{}]", list(random, element, element_cast)),
        3 => format!("ARRAY[{}]::{}", list(random, element, element_cast), column.cast),
        _ => array_text(random, element),
    };
    match random.random_range(0..7) {
        0 | 1 => format!("{name} @> {array}"),
        2 => format!("{name} <@ {array}"),
        3 => format!("{array} && {name}"),
        4 => format!("{name} IS NULL"),
        _ => {
            let literal = literal(random, element, element_cast);
            let quantifier = pick(random, &["ANY", "ALL", "SOME"]);
            format!("{literal} {} {quantifier} ({name})", pick(random, COMPARISONS))
        }
    }
}

fn value_condition(random: &mut StdRng, column: &TestColumn) -> String {
    let (name, cast) = (quoted_name(column.name), column.cast);
    let not = pick(random, &["", " NOT"]);
    match random.random_range(0..13) {
        0 => format!("{name}{not} IN ({})", list(random, column, cast)),
        1 => {
            let (low, high) = (literal(random, column, cast), literal(random, column, cast));
            format!("{name}{not} BETWEEN {low} AND {high}")
        }
        2 => format!("{name} IS{not} NULL"),
        3 => format!("{name} IS{not} DISTINCT FROM {}", literal(random, column, cast)),
        4 => {
            let quantifier = pick(random, &["ANY", "ALL"]);
            format!("{name} {} {quantifier} ({})", pick(random, COMPARISONS), array_text(random, column))
        }
        5 => {
            let quantifier = pick(random, &["ANY", "ALL"]);
            format!(
                "{name} {} {quantifier} (ARRAY[{}])",
                pick(random, COMPARISONS),
                list(random, column, cast)
            )
        }
        6 => format!("{} {} {name}", literal(random, column, cast), pick(random, COMPARISONS)),
        7 => {
            let other = COLUMNS.choose(random).expect("a choice");
            let other = if random.random() { column } else { other };
            format!("{name} {} {}", pick(random, COMPARISONS), quoted_name(other.name))
        }
        8 if column.kind == Kind::Bool => {
            format!("{name} IS{not} {}", pick(random, &["TRUE", "FALSE", "UNKNOWN"]))
        }
        9 if column.kind == Kind::Bool => name,
        8..=11 if column.kind == Kind::Text => {
            let like = pick(random, &["LIKE", "LIKE", "ILIKE"]);
            format!("{name}{not} {like} {}", pattern(random, column))
        }
        _ => format!("{name} {} {}", pick(random, COMPARISONS), literal(random, column, cast)),
    }
}

/// One condition on one column.
pub(crate) fn condition(random: &mut StdRng) -> String {
    let column = COLUMNS.choose(random).expect("a choice");
    match column.kind {
        Kind::Json => json_condition(random, column),
        Kind::Array => array_condition(random, column),
        _ => value_condition(random, column),
    }
}

/// Conditions joined by AND, OR, NOT and IS.
pub(crate) fn predicate(random: &mut StdRng, depth: usize) -> String {
    if depth == 0 || random.random_ratio(1, 2) {
        return condition(random);
    }
    let part = |random: &mut StdRng| {
        let inner = predicate(random, depth - 1);
        if random.random() { format!("({inner})") } else { inner }
    };
    let truth = pick(random, &["TRUE", "FALSE", "UNKNOWN", "NOT TRUE", "NOT FALSE", "NOT UNKNOWN", "NULL"]);
    match random.random_range(0..6) {
        0 => format!("NOT {}", part(random)),
        1 => format!("{} IS {truth}", part(random)),
        2 | 3 => format!("{} AND {}", part(random), part(random)),
        _ => format!("{} or\n {}", part(random), part(random)),
    }
}
