//! Literals of every built-in type, at and beyond what is ordinary. One that starts with `sql:` is an expression.

/// What some of the expressions read from.
pub(super) const SETUP: &str = "
    CREATE TABLE statistics_source AS SELECT n % 3 AS a, n % 3 * 2 AS b FROM generate_series(1, 1000) AS n;
    CREATE STATISTICS s1 (ndistinct, dependencies, mcv) ON a, b FROM statistics_source;
    ANALYZE statistics_source";

/// Types that a column can have but that no value can be made of: their input functions refuse everything.
pub(super) const WITHOUT_VALUES: [&str; 3] =
    ["gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary"];

const TEXTS: &[&str] = &[
    "",
    "plain",
    "NULL",
    "null",
    " leading and trailing ",
    "a\"b\\c/d'e",
    "{a,b}",
    "(a,b)",
    "comma, semi; colon: =>",
    "tab\tnewline\ncarriage\rback\u{8}feed\u{c}bell\u{7}escape\u{1b}delete\u{7f}next\u{85}",
    "\u{1}\u{2}\u{3}\u{1e}\u{1f}",
    "é ß 漢字 ä\u{308} \u{200d} \u{2028}\u{2029} \u{feff} \u{fffd} \u{ffff} \u{10ffff} 😀👩‍👩‍👧",
    "01234567",
    "0123456\"",
    "0123456789abcdef\\",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\\u0041 \\n \\\\",
    "[0:1]={1,2}",
];

const JSON: &[&str] = &[
    "null",
    "true",
    " \n 1 \t",
    "-0",
    "-0.0",
    "[-0.00, 0e5, 0e-5, 1E2, 1.50e1, 12e-2, 1.0, 100, 1e-7]",
    "123456789012345678901234567890.123456789012345678901234567890",
    "1e1000",
    "1e-1000",
    "1e131071",
    "1e-16383",
    "\"\"",
    r#""a\"b\\c\/d\b\f\n\r\t\u0041\u00e9\u001f\u007f\ud83d\ude00é😀""#,
    "[]",
    " [ ] ",
    "{}",
    " { } ",
    "[[], {}, [[]], [{}], \"\", null]",
    r#"{"b": 1, "a": 2, "b": 3}"#,
    r#"{"bb": 1, "a": 2, "": 3, "c": {"z": [1, {"y": 1, "x": 2}], "z": 1, "aa": 2}, "é": 4, "\u0061": 5}"#,
    r#"{"a": {"b": {"c": {"d": [1, [2, [3, [4]]]]}}}, "NULL": null, "{x,y}": "(1,2)"}"#,
    r#"{"1": 1, "10": 10, "2": 2, "\"": "\"", "\\": "\\"}"#,
];

const RANGES: [(&str, [&str; 2]); 6] = [
    ("int4", ["1", "2147483646"]),
    ("int8", ["-9223372036854775808", "5"]),
    ("num", ["-1.50", "12345678901234567890.123"]),
    ("ts", ["2026-11-21 01:02:03.123456", "infinity"]),
    ("tstz", ["0044-03-15 01:02:03 BC", "2026-11-21 01:02:03+09"]),
    ("date", ["2026-11-21", "5874897-12-30"]),
];

/// Literals of a range type or multirange type.
fn ranges(name: &str) -> Option<Vec<String>> {
    let find = |suffix: &str| {
        let base = name.strip_suffix(suffix)?;
        RANGES.iter().find(|(range, _)| *range == base).map(|(_, bounds)| bounds)
    };
    if let Some([low, high]) = find("multirange") {
        let middle = format!("[\"{low}\",\"{high}\")");
        return Some(vec![
            "{}".into(),
            format!("{{{middle}}}"),
            format!("{{(,\"{low}\"),(\"{high}\",)}}"),
            "{(,)}".into(),
        ]);
    }
    let [low, high] = find("range")?;
    let both =
        ["[]", "[)", "(]", "()"].map(|ends| format!("{}\"{low}\",\"{high}\"{}", &ends[..1], &ends[1..]));
    let open = [format!("(,\"{high}\")"), format!("[\"{low}\",)"), "(,)".into(), "empty".into()];
    Some(both.into_iter().chain(open).collect())
}

/// Literals of the type with this name; none when this table does not know it.
pub(super) fn of(name: &str) -> Vec<String> {
    if name == "bytea" {
        let all: String = (0..=255_u8).map(|byte| format!("{byte:02x}")).collect();
        return vec![
            "".into(),
            "\\x00".into(),
            format!("\\x{all}"),
            "sql:decode(repeat('ab5c22', 5000), 'hex')".into(),
        ];
    }
    if name == "numeric" {
        let mut literals = numerics();
        literals.extend(["1", "9"].map(|digit| format!("{}.{}", digit.repeat(1000), digit.repeat(1000))));
        return literals;
    }
    ranges(name).unwrap_or_else(|| table(name).iter().map(|literal| (*literal).to_owned()).collect())
}

fn numerics() -> Vec<String> {
    let literals = [
        "0",
        "-0",
        "0.00",
        "-0.000",
        "1",
        "-1.50",
        "1e5",
        "1.5e-10",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e131071",
        "1e-16383",
        "123456789012345678901234567890.123456789012345678901234567890",
        "0.000000000000000000001",
    ];
    literals.map(str::to_owned).into()
}

fn table(name: &str) -> &'static [&'static str] {
    match name {
        "text" | "varchar" | "bpchar" => TEXTS,
        "json" | "jsonb" => JSON,
        _ => numbers_and_times(name).or_else(|| catalog_and_search(name)).unwrap_or_else(|| plain(name)),
    }
}

fn numbers_and_times(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "bool" => &["true", "false"],
        "int2" => &["0", "-32768", "32767"],
        "int4" => &["0", "-2147483648", "2147483647"],
        "int8" => &["0", "-9223372036854775808", "9223372036854775807", "9007199254740993"],
        "float4" => &[
            "0",
            "-0",
            "1.5",
            "0.1",
            "3.4028235e38",
            "1.17549435e-38",
            "1e-45",
            "1e15",
            "16777216",
            "NaN",
            "inf",
            "-inf",
        ],
        "float8" => &[
            "0",
            "-0",
            "0.1",
            "0.30000000000000004",
            "1e15",
            "1e16",
            "123456789012345680",
            "1e22",
            "-1.5e300",
            "5e-324",
            "2.2250738585072014e-308",
            "1.7976931348623157e308",
            "1e-5",
            "0.0001",
            "NaN",
            "inf",
            "-inf",
        ],
        "money" => &["0", "-1234567.89", "92233720368547758.07", "-92233720368547758.08"],
        "oid" | "xid" | "cid" => &["0", "4294967295"],
        "xid8" => &["0", "18446744073709551615"],
        "tid" => &["(0,1)", "(4294967295,65535)"],
        "date" => &[
            "2026-11-21",
            "0001-01-01",
            "0001-12-31 BC",
            "4713-01-01 BC",
            "12345-01-01",
            "5874897-12-31",
            "infinity",
            "-infinity",
        ],
        "time" => &["00:00:00", "23:59:59.999999", "24:00:00", "12:34:56.1"],
        "timetz" => &["00:00:00+00", "24:00:00-15:59:59", "12:34:56.789+05:30", "23:59:59.999999+15:59"],
        "timestamp" | "timestamptz" => &[
            "2026-11-21 01:02:03",
            "2026-11-21 01:02:03.1",
            "2026-11-21 01:02:03.123456",
            "1999-12-31 24:00:00",
            "epoch",
            "0001-01-01 00:00:00",
            "0001-12-31 23:59:59.5 BC",
            "4713-01-01 00:00:00 BC",
            "12345-06-07 08:09:10.000001",
            "294276-12-31 23:59:59.999999",
            "infinity",
            "-infinity",
        ],
        "interval" => &[
            "0",
            "1 year 2 mons -3 days +04:05:06.789",
            "-178000000 years",
            "178000000 years 11 mons",
            "-00:00:00.000001",
            "1 day -23:59:59.999999",
            "2147483647 days",
            "1 mon",
            "-1 year +1 day",
            "9999999:59:59",
        ],
        _ => return None,
    })
}

fn catalog_and_search(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "regproc" => &["now", "pg_catalog.pg_typeof", "-", "4294967295"],
        "regprocedure" => &["abs(int4)", "-", "4294967295"],
        "regoper" => &["96", "0", "4294967295"],
        "regoperator" => &["=(int4,int4)", "0", "4294967295"],
        "regclass" => &["pg_class", "statistics_source", "-", "4294967295"],
        "regtype" => &["int4[]", "timestamp with time zone", "\"char\"", "-", "4294967295"],
        "regconfig" => &["english", "simple", "-"],
        "regdictionary" => &["simple", "-"],
        "regnamespace" => &["pg_catalog", "s", "-"],
        "regrole" => &["10", "-", "4294967295"],
        "regcollation" => &["\"C\"", "\"POSIX\"", "-"],
        "aclitem" => &["sql:makeaclitem(10, 10, 'SELECT', true)", "sql:makeaclitem(0, 10, 'INSERT', false)"],
        "pg_node_tree" => &[
            "sql:(SELECT ev_action FROM pg_rewrite ORDER BY oid LIMIT 1)",
            "sql:(SELECT ev_qual FROM pg_rewrite LIMIT 1)",
        ],
        "pg_ndistinct" => &["sql:(SELECT stxdndistinct FROM pg_statistic_ext_data)"],
        "pg_dependencies" => &["sql:(SELECT stxddependencies FROM pg_statistic_ext_data)"],
        "pg_mcv_list" => &["sql:(SELECT stxdmcv FROM pg_statistic_ext_data)"],
        "pg_lsn" => &["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"],
        "pg_snapshot" | "txid_snapshot" => &["1:1:", "10:20:10,14,15", "1147:9223372036854775807:1147"],
        "tsvector" => &["", "'a':1A,2B 'b''c':3 'back\\\\slash' '\"quoted\"' 'é'", "a b c"],
        "tsquery" => &["", "'a' & !( 'b' | 'c''d':*AB ) <2> '\"e\"'", "'back\\\\slash' <-> 'é'"],
        "jsonpath" => &[
            "$",
            "strict $.\"a b\"[*] ? (@.x > 1.50 && exists (@.y)).double()",
            "$.* ? (@ like_regex \"^\\\\d+$\")",
        ],
        _ => return None,
    })
}

fn plain(name: &str) -> &'static [&'static str] {
    match name {
        "char" => &["a", "", "\\", "\"", ",", " "],
        "name" => &[
            "",
            "plain",
            "wïth \"quotes\" and {braces}",
            "NULL",
            "a_name_of_sixty_three_bytes_____________________________________",
        ],
        "int2vector" => &["", "1", "1 2 -32768"],
        "oidvector" => &["", "0", "1 2 4294967295"],
        "xml" => &[
            "",
            "<a/>",
            "<a b=\"c\">\n&lt;é&#10; <!-- , {} () --></a>",
            "text only \\ \"",
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><a/>",
        ],
        "point" => &["(0,-0)", "(1.5,-2e300)", "(NaN,Infinity)", "(0.1,5e-324)"],
        "lseg" => &["[(0,0),(1e22,-1)]"],
        "path" => &["[(0,0),(1,1),(2,0)]", "((0,0),(1,1),(2,0))"],
        "box" => &["(3,4),(1,2)", "(0,0),(0,0)", "(Infinity,1e22),(-Infinity,-0)"],
        "polygon" => &["((0,0),(1,1),(2,0))", "((0.1,1e-7))"],
        "line" => &["{1,-1,0}", "{0,1e22,-0}"],
        "circle" => &["<(1,2),3.5>", "<(0,0),0>"],
        "cidr" => &["10.1.0.0/16", "::/0", "2001:db8::/32"],
        "inet" => &["127.0.0.1", "10.1.2.3/8", "::1", "2001:db8::ff00:42:8329/64", "::ffff:1.2.3.4"],
        "macaddr" => &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"],
        "macaddr8" => &["08:00:2b:01:02:03:04:05"],
        "bit" | "varbit" => &["0", "1", "10101010111100001"],
        "uuid" => &["00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"],
        "refcursor" => &["", "a \"cursor\""],
        _ => &[],
    }
}

/// Extensions of the server's own distribution that bring types. (pg_trgm's only one, gtrgm, takes no values, and
/// PostGIS's are in [`super::casts`].)
pub(super) const EXTENSIONS: &[(&str, &str, &[&str])] = &[
    (
        "hstore",
        "hstore",
        &[
            "",
            "a=>1",
            "b=>2, a=>1, cc=>NULL, \"\"=>\"\"",
            r#""q\"q"=>"back\\slash", "NULL"=>"NULL", "{a,b}"=>"(1,2)", "é"=>"😀", "t	n"=>"=>, ""#,
        ],
    ),
    ("citext", "citext", TEXTS),
    ("ltree", "ltree", &["", "Top.Science.Astronomy", "a_1.b"]),
    ("ltree", "lquery", &["Top.*{1,2}.!a|b@*%", "*"]),
    ("ltree", "ltxtquery", &["Europe & Russia*@ & !Transportation"]),
    ("cube", "cube", &["(1, 2.5, -3e22)", "(0),(1)", "(1e-7,NaN)"]),
    ("seg", "seg", &["1.5", "1 .. 2", "~5", "<3 .. >4"]),
    ("intarray", "query_int", &["1&(2|!3)"]),
    ("isn", "isbn13", &["978-0-393-04002-9"]),
    ("isn", "ean13", &["9780393040029", "4006381333931"]),
    ("isn", "upc", &["036000291452"]),
    ("earthdistance", "earth", &["(6378168, 0, 0)"]),
    ("lo", "lo", &["12345"]),
];
