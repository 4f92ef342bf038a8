//! Random literals, biased towards what breaks writers.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

type Generate = fn(&mut StdRng) -> String;

/// Type names in `pg_catalog`, and what makes a literal of each.
pub(super) const GENERATORS: &[(&str, Generate)] = &[
    ("text", text),
    ("int8", |random| random.random::<i64>().to_string()),
    ("float8", |random| float(f64::from_bits(random.random()))),
    ("float4", |random| float(f32::from_bits(random.random()).into())),
    ("numeric", numeric),
    ("timestamp", timestamp),
    ("timestamptz", timestamp),
    ("date", |random| day(random).concat()),
    ("time", time),
    ("interval", interval),
    ("json", |random| document(random, 4)),
    ("jsonb", |random| document(random, 4)),
    ("bytea", |random| {
        (0..random.random_range(0..40))
            .fold("\\x".into(), |hex, _| format!("{hex}{:02x}", random.random::<u8>()))
    }),
    ("uuid", |random| format!("{:032x}", random.random::<u128>())),
    ("money", |random| format!("{}.{:02}", random.random::<i32>(), random.random_range(0..100))),
    ("varbit", |random| {
        (0..random.random_range(0..30)).map(|_| if random.random() { '1' } else { '0' }).collect()
    }),
    ("numrange", |random| format!("[{},)", numeric(random))),
    ("tstzrange", |random| format!("(,\"{}\"]", timestamp(random))),
    ("bpchar", text),
    ("xml", |random| {
        text(random)
            .replace(['&', '<', '>', '\u{1}', '\u{8}', '\u{c}', '\u{1f}', '\u{FFFF}'], " ")
            .replace(|c: char| c.is_control(), " ")
    }),
    ("tsvector", tsvector),
    ("inet", |random| match random.random() {
        true => format!("{}/{}", std::net::Ipv4Addr::from_bits(random.random()), random.random_range(0..=32)),
        false => {
            format!("{}/{}", std::net::Ipv6Addr::from_bits(random.random()), random.random_range(0..=128))
        }
    }),
    ("int8multirange", |random| {
        let ranges = (0..random.random_range(0..5)).map(|_| {
            let low: i64 = random.random_range(-1000..1000);
            format!("{}{low},{}]", if random.random() { "[" } else { "(" }, low + random.random_range(1..100))
        });
        format!("{{{}}}", ranges.collect::<Vec<_>>().join(","))
    }),
    ("timetz", |random| {
        format!("{}{:+03}:{:02}", time(random), random.random_range(-15..=15), random.random_range(0..60))
    }),
    ("path", |random| {
        let points = (0..random.random_range(1..5))
            .map(|_| format!("({},{})", float(random.random()), float(random.random_range(-1e300..1e300))));
        let points = points.collect::<Vec<_>>().join(",");
        if random.random() { format!("[{points}]") } else { format!("({points})") }
    }),
    ("point", |random| format!("({},{})", float(random.random()), float(random.random_range(-1e300..1e300)))),
];

/// Any characters but NUL, with many of those that mean something to arrays, records, JSON or SQL.
fn text(random: &mut StdRng) -> String {
    let special: Vec<char> =
        "\"\\{}(),;:=>' \t\n\r\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{80}\u{2028}éß漢😀\u{10FFFF}\u{FFFD}"
            .chars()
            .collect();
    let words = ["NULL", "null", "\\u0041", "[1:2]=", "", "true", "infinity"];
    if random.random_ratio(1, 20) {
        return (*words.choose(random).unwrap()).to_owned();
    }
    let length = random.random_range(0..30);
    let character = |random: &mut StdRng| match random.random_range(0..4) {
        0 => special.choose(random).copied().unwrap_or(' '),
        1 => random.random_range('\u{1}'..char::MAX),
        _ => random.random_range('a'..='z'),
    };
    (0..length).map(|_| character(random)).collect()
}

/// Words with positions and weights.
fn tsvector(random: &mut StdRng) -> String {
    let words = (0..random.random_range(0..6)).map(|_| {
        let word = text(random).replace('\\', "\\\\").replace('\'', "''");
        let weight = ["", ":1", ":2A", ":3B,16383"].choose(random).copied().unwrap_or("");
        if word.is_empty() { "x".to_owned() } else { format!("'{word}'{weight}") }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Expressions of types that extensions bring: the extension, the type, and what makes one.
pub(super) const OF_EXTENSIONS: [(&str, &str, Generate); 3] = [
    ("hstore", "hstore", |random| {
        let literal = |text: String| format!("'{}'", text.replace('\'', "''"));
        let keys: Vec<String> = (0..random.random_range(1..8)).map(|_| literal(text(random))).collect();
        let values: Vec<String> = keys
            .iter()
            .map(|_| if random.random_ratio(1, 4) { "NULL".into() } else { literal(text(random)) })
            .collect();
        format!("sql:public.hstore(ARRAY[{}]::text[], ARRAY[{}]::text[])", keys.join(","), values.join(","))
    }),
    ("citext", "citext", text),
    ("ltree", "ltree", |random| {
        let words: Vec<String> =
            (0..random.random_range(0..8)).map(|_| format!("L_{}", random.random::<u16>())).collect();
        words.join(".")
    }),
];

/// Every character that a text can hold, in texts of up to 4,096.
pub(super) fn all_characters() -> Vec<String> {
    let all: Vec<char> = ('\u{1}'..=char::MAX).collect();
    all.chunks(4096).map(|chunk| chunk.iter().collect()).collect()
}

fn float(value: f64) -> String {
    if value.is_infinite() {
        if value > 0.0 { "inf".into() } else { "-inf".into() }
    } else {
        format!("{value:e}")
    }
}

fn digits(random: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| random.random_range('0'..='9')).collect()
}

fn numeric(random: &mut StdRng) -> String {
    let sign = if random.random() { "-" } else { "" };
    let longest = if random.random_ratio(1, 20) { 1000 } else { 20 };
    let (whole, scale) = (random.random_range(1..=longest), random.random_range(0..=longest));
    let (whole, fraction) = (digits(random, whole), digits(random, scale));
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A day, and its era; BC begins in 4713.
fn day(random: &mut StdRng) -> [String; 2] {
    let (last, era) = match random.random_range(0..4) {
        0 => (4713, " BC"),
        1 => (294_276, ""),
        _ => (4000, ""),
    };
    let (month, day) = (random.random_range(1..=12), random.random_range(1..=28));
    [format!("{:04}-{month:02}-{day:02}", random.random_range(1..last)), era.to_owned()]
}

fn time(random: &mut StdRng) -> String {
    let fraction = ["", ".5", ".123456", ".000001", ".100000"].choose(random).copied().unwrap_or("");
    let (hour, minute, second) =
        (random.random_range(0..24), random.random_range(0..60), random.random_range(0..60));
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}

fn timestamp(random: &mut StdRng) -> String {
    if random.random_ratio(1, 20) {
        return (*["infinity", "-infinity", "epoch"].choose(random).unwrap()).to_owned();
    }
    let [day, era] = day(random);
    format!("{day} {}{era}", time(random))
}

fn interval(random: &mut StdRng) -> String {
    let mut part = |unit: &str, limit: i64| format!("{} {unit} ", random.random_range(-limit..limit));
    [
        part("months", 100_000),
        part("days", 1000),
        part("seconds", 10_000_000),
        part("microseconds", 5_000_000),
    ]
    .concat()
}

/// A JSON document that both `json` and `jsonb` take: no NUL, no lone surrogates, numbers in range.
fn document(random: &mut StdRng, depth: usize) -> String {
    let space = [" ", "", "", "\n", "\t "].choose(random).copied().unwrap_or("");
    let containers = if depth == 0 { 0 } else { 3 };
    let value = match random.random_range(0..6 + containers) {
        0 => (*["true", "false", "null"].choose(random).unwrap()).to_owned(),
        1 | 2 => number(random),
        3..=5 => string(random),
        6 => {
            let values = (0..random.random_range(0..5)).map(|_| document(random, depth - 1));
            format!("[{}]", values.collect::<Vec<_>>().join(","))
        }
        _ => {
            let members = (0..random.random_range(0..8)).map(|_| {
                let key = if random.random() {
                    format!("\"{}\"", *["a", "b", "bb", "é", "\\u0061"].choose(random).unwrap())
                } else {
                    string(random)
                };
                format!("{space}{key}{space}:{}", document(random, depth - 1))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
    };
    format!("{space}{value}{space}")
}

fn number(random: &mut StdRng) -> String {
    let whole = random.random_range(0..1000);
    let scale = random.random_range(1..10);
    let fraction = if random.random() { format!(".{}", digits(random, scale)) } else { String::new() };
    let exponent = match random.random_range(0..4) {
        0 => format!("e{}", random.random_range(-30..30)),
        1 => format!("E+{}", random.random_range(0..400)),
        _ => String::new(),
    };
    format!("{}{whole}{fraction}{exponent}", if random.random() { "-" } else { "" })
}

fn string(random: &mut StdRng) -> String {
    let plain = text(random);
    let mut json = String::from("\"");
    for character in plain.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..' ' => json.push_str(&format!("\\u{:04X}", u32::from(character))),
            _ if random.random_ratio(1, 4) => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
            _ => json.push(character),
        }
    }
    json + *["\"", "\\/\"", "\\b\\f\\n\\r\\t\""].choose(random).unwrap()
}
