//! What SQL can do to tables, in transactions of every form and size.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Step, accounts};

/// Beside the tables of [`accounts`].
pub(super) const SCHEMA: &str = r#"
CREATE TABLE loose (n int, body text);
CREATE TABLE documents (id int PRIMARY KEY, title text, body text, extra text);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
CREATE TABLE papers (id int PRIMARY KEY, title text, body text, extra text);
ALTER TABLE papers ALTER body SET STORAGE EXTERNAL, ALTER extra SET STORAGE EXTERNAL;
ALTER TABLE papers REPLICA IDENTITY FULL;
CREATE TABLE measures (region int, day int, value numeric, note text, PRIMARY KEY (region, day)) PARTITION BY LIST (region);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES IN (1);
CREATE TABLE measures_2 PARTITION OF measures FOR VALUES IN (2);
CREATE TABLE measures_3 PARTITION OF measures FOR VALUES IN (3);
CREATE TABLE ancestors (id int PRIMARY KEY, v int);
CREATE TABLE heirs (extra text, PRIMARY KEY (id)) INHERITS (ancestors);
CREATE TABLE computed (id int PRIMARY KEY, a int, generated_double int GENERATED ALWAYS AS (a * 2) STORED, b text);
CREATE TABLE parents (id serial PRIMARY KEY, v int);
CREATE TABLE children (id serial PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE, v text);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
CREATE TABLE kinds (id int PRIMARY KEY, base int, tag text);
CREATE TABLE identities (id int PRIMARY KEY, code int NOT NULL UNIQUE, v int);
CREATE TABLE "odd.Name*" (id int PRIMARY KEY, "col ""umn" text);
CREATE TABLE typed (id int PRIMARY KEY, n numeric, f float8, at timestamptz, d date, i interval, u uuid, b bytea,
                    a int[], j jsonb, t text, x boolean);
CREATE TABLE bulk (id bigint PRIMARY KEY, body text);
CREATE SCHEMA shifting;
INSERT INTO documents SELECT g, 'title', repeat(md5(g::text), 100), NULL FROM generate_series(1, 40) g;
INSERT INTO papers SELECT g, 'title', repeat(md5(g::text), 100), NULL FROM generate_series(1, 40) g;
INSERT INTO measures SELECT g % 3 + 1, g, g * 1.5, 'start' FROM generate_series(1, 60) g;
INSERT INTO kinds SELECT g, g, 'start' FROM generate_series(1, 40) g;
INSERT INTO identities SELECT g, g, g FROM generate_series(1, 40) g;
INSERT INTO typed (id) SELECT g FROM generate_series(1, 20) g;
"#;

pub(super) const TOUCH: &str = "UPDATE kinds SET tag = tag";

/// Statements that a transaction is made of.
fn statement(random: &mut StdRng, writer: usize) -> String {
    let id = random.random_range(1..60);
    let other = random.random_range(1..1000);
    let region = random.random_range(1..4);
    let large = random.random_range(70..400);
    match random.random_range(0..40) {
        0..=9 => accounts::statement(random, writer),
        10 => format!("INSERT INTO loose VALUES ({id}, 'by {writer}')"),
        11 => format!("UPDATE loose SET body = 'not in the feed' WHERE n = {id}"),
        12 => format!("DELETE FROM loose WHERE n = {id}"),
        13 => format!("UPDATE documents SET title = 'title {other}' WHERE id = {id}"),
        14 => format!(
            "UPDATE documents SET body = repeat(md5('{other}'), {large}), title = NULL WHERE id = {id}"
        ),
        15 => {
            format!("UPDATE documents SET id = {id} + 100, extra = repeat('é', {large} * 40) WHERE id = {id}")
        }
        16 => format!(
            "INSERT INTO documents VALUES ({id}, 'new', repeat(md5('{other}'), {large}), NULL) ON CONFLICT (id) DO UPDATE SET extra = NULL"
        ),
        17 => format!("DELETE FROM documents WHERE id IN ({id}, {id} + 100)"),
        18 => format!("UPDATE papers SET title = 'title {other}' WHERE id = {id}"),
        19 => format!("UPDATE papers SET extra = repeat(md5('{other}'), {large}) WHERE id = {id}"),
        20 => format!(
            "UPDATE papers SET id = {id} + 100 WHERE id = {id}; DELETE FROM papers WHERE id = {id} + 100"
        ),
        21 => format!(
            "INSERT INTO papers VALUES ({id}, NULL, repeat(md5('{other}'), {large}), 'x') ON CONFLICT (id) DO UPDATE SET title = 'again'"
        ),
        22 => format!(
            "INSERT INTO measures VALUES ({region}, {id}, {other} / 7.0, 'by {writer}') ON CONFLICT (region, day) DO UPDATE SET value = excluded.value"
        ),
        23 => format!("UPDATE measures SET region = region % 3 + 1 WHERE day = {id} AND region = {region}"),
        24 => format!("DELETE FROM measures WHERE day = {id} AND region = {region}"),
        25 => format!(
            "INSERT INTO ancestors VALUES ({id}, {other}) ON CONFLICT (id) DO UPDATE SET v = ancestors.v + 1"
        ),
        26 => format!("INSERT INTO heirs VALUES ({id} + 100, {other}, 'heir') ON CONFLICT (id) DO NOTHING"),
        27 => format!("UPDATE ancestors SET v = {other} WHERE id IN ({id}, {id} + 100)"),
        28 => format!("DELETE FROM ancestors WHERE id IN ({id}, {id} + 100)"),
        29 => format!(
            "INSERT INTO computed (id, a, b) VALUES ({id}, {other}, 'b') ON CONFLICT (id) DO UPDATE SET a = computed.a + 1"
        ),
        30 => format!(
            "WITH new AS (INSERT INTO parents (v) VALUES ({other}) RETURNING id) INSERT INTO children (parent, v) SELECT id, 'child' FROM new, generate_series(1, 3)"
        ),
        31 => format!("DELETE FROM parents WHERE v = {other} OR id % 50 = {id} % 50"),
        32 => format!(
            "INSERT INTO unlogged VALUES ({id}) ON CONFLICT DO NOTHING; CREATE TEMP TABLE IF NOT EXISTS passing (n int); INSERT INTO passing VALUES ({other})"
        ),
        33 => format!("UPDATE kinds SET tag = 'tag {other}' WHERE id = {id}"),
        34 => format!(
            "INSERT INTO kinds (id, tag) VALUES ({id}, 'new') ON CONFLICT (id) DO UPDATE SET tag = 'again'"
        ),
        35 => format!("DELETE FROM kinds WHERE id = {id}; UPDATE identities SET v = v + 1 WHERE id = {id}"),
        36 => format!(
            "INSERT INTO identities VALUES ({id}, {other}, 0) ON CONFLICT DO NOTHING; UPDATE identities SET code = code + 1000 WHERE id = {id} AND code < 1000"
        ),
        37 => format!("DELETE FROM identities WHERE id = {id}"),
        38 => format!(
            r#"INSERT INTO "odd.Name*" VALUES ({id}, E'quote " back \\ line \n tab \t é 漢 \U0001F600') ON CONFLICT (id) DO UPDATE SET "col ""umn" = '{other}'"#
        ),
        _ => typed(random, id),
    }
}

fn typed(random: &mut StdRng, id: u32) -> String {
    let pick = |random: &mut StdRng, choices: &[&'static str]| choices[random.random_range(0..choices.len())];
    let n =
        pick(random, &["NULL", "'NaN'", "1e40", "-0.000", "12345678901234567890.1230", "random()::numeric"]);
    let f = pick(random, &["NULL", "'Infinity'", "'-0'", "random()", "1e300", "1e-7"]);
    let at = pick(
        random,
        &["NULL", "'infinity'", "clock_timestamp()", "'0044-03-15 12:00:00 BC'", "'20000-01-01 00:00+05:30'"],
    );
    let a = pick(random, &["NULL", "'{}'", "'{1,NULL,3}'", "'[-1:1]={1,2,3}'", "'{{1,2},{3,4}}'"]);
    let j = pick(random, &["NULL", "'null'", r#"'{"b": [1.50, {"a": null}], "a": "é"}'"#, "'[]'", "'1e3'"]);
    let b = pick(random, &["NULL", r"'\x00ff'", "decode(md5(random()::text), 'hex')", "''"]);
    format!(
        "INSERT INTO typed VALUES ({id}, {n}, {f}, {at}, '2026-11-21'::date - {id}, make_interval(days => {id}, secs => 1.5),
         md5(random()::text)::uuid, {b}, {a}, {j}, chr(960 + {id}), {id} % 2 = 0)
         ON CONFLICT (id) DO UPDATE SET n = excluded.n, f = excluded.f, at = excluded.at, b = excluded.b, a = excluded.a, j = excluded.j"
    )
}

/// What happens now and then.
fn event(random: &mut StdRng, writer: usize, round: u64, rows_max: u32) -> Vec<Step> {
    let unique = format!("{writer}_{round}");
    let one =
        |sql: String| vec![Step::Sql(format!("BEGIN; SET LOCAL lock_timeout = '500ms'; {sql}; COMMIT"))];
    match random.random_range(0..20) {
        0 => one("TRUNCATE parents RESTART IDENTITY CASCADE".to_owned()),
        1 => one(format!(
            "INSERT INTO tags VALUES ({round}, 'before {unique}', 0); TRUNCATE tags, notes; {}",
            statement(random, writer)
        )),
        2 => one([
            "TRUNCATE measures",
            "TRUNCATE ONLY ancestors",
            "TRUNCATE heirs",
            "TRUNCATE loose, documents",
        ][random.random_range(0..4)]
        .to_owned()),
        3 => one("ALTER TABLE measures DETACH PARTITION measures_3".to_owned()),
        4 => one("ALTER TABLE measures ATTACH PARTITION measures_3 FOR VALUES IN (3)".to_owned()),
        5 | 6 => one(columns(random, &unique)),
        7 => one(format!(
            "ALTER TABLE identities REPLICA IDENTITY {}; UPDATE identities SET v = {round} WHERE id = 7",
            ["FULL", "DEFAULT", "USING INDEX identities_code_key", "DEFAULT", "NOTHING"]
                [random.random_range(0..5)]
        )),
        8 => one(create_table(random, &unique)),
        9 => one(in_some_table(
            "fresh",
            "INSERT INTO %s VALUES (1 + (random() * 1000000)::int, ''later'') ON CONFLICT DO NOTHING",
            0,
        )),
        10 => one(in_some_table("fresh", "DROP TABLE %s", 5)),
        11 => one(format!(
            "CREATE TABLE shifting.s_{unique} (id int PRIMARY KEY, v text); INSERT INTO shifting.s_{unique} VALUES (1, 'made')"
        )),
        12 => one(format!(
            "{}; {}",
            in_some_table("shifting", "INSERT INTO %s VALUES ((random() * 1000000)::int, ''in'')", 0),
            in_some_table("shifting", &format!("ALTER TABLE %s RENAME TO r_{unique}"), 0)
        )),
        13 => one(in_some_table("shifting", "DROP TABLE %s", 3)),
        14 => one(format!(
            r#"SELECT pg_logical_emit_message({}, '{}', E'of {unique}\nR{{"id":1}}'); {}"#,
            random.random_bool(0.5),
            ["app", "walcast", "walcast.rows", "walcast.barrier"][random.random_range(0..4)],
            statement(random, writer)
        )),
        15 => {
            let lines: String =
                (0..200).map(|line| format!("{}\t{line}\t{writer}\n", 5_000_000 + round)).collect();
            vec![Step::Copy("COPY entries FROM STDIN".to_owned(), lines)]
        }
        16 | 17 => two_phase(random, writer, &unique),
        _ => large(random, rows_max),
    }
}

fn columns(random: &mut StdRng, unique: &str) -> String {
    let add = |kind: &str| {
        format!("ALTER TABLE kinds ADD COLUMN c_{unique} {kind}; UPDATE kinds SET tag = 'added' WHERE id = 3")
    };
    match random.random_range(0..8) {
        0 => add("int"),
        1 => add("int NOT NULL DEFAULT 7"),
        2 => add("text DEFAULT clock_timestamp()::text"),
        3 | 4 => in_some_column("ALTER TABLE kinds DROP COLUMN %I"),
        5 => in_some_column(&format!("ALTER TABLE kinds RENAME COLUMN %I TO c_{unique}")),
        _ => {
            let kind = ["bigint", "int", "text", "numeric"][random.random_range(0..4)];
            format!(
                "INSERT INTO kinds (id) VALUES (1000) ON CONFLICT DO NOTHING; ALTER TABLE kinds ALTER base TYPE {kind} USING base::text::{kind}; DELETE FROM kinds WHERE id = 1000"
            )
        }
    }
}

/// The oldest of the columns that were added.
fn in_some_column(statement: &str) -> String {
    format!(
        "DO $do$ DECLARE c name; BEGIN
            SELECT attname INTO c FROM pg_attribute WHERE attrelid = 'kinds'::regclass AND attname LIKE 'c\\_%' AND NOT attisdropped
            ORDER BY attnum LIMIT 1;
            IF FOUND THEN EXECUTE format('{statement}', c); END IF;
         END $do$"
    )
}

/// In some table that begins with `fresh_`, or in the schema `shifting`; only when there are more than `over` of them.
fn in_some_table(which: &str, statement: &str, over: u32) -> String {
    let condition = if which == "fresh" { "c.relname LIKE 'fresh\\_%'" } else { "n.nspname = 'shifting'" };
    format!(
        "DO $do$ DECLARE t text; BEGIN
            SELECT format('%I.%I', n.nspname, c.relname) INTO t FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND {condition} ORDER BY c.oid OFFSET {over} LIMIT 1;
            IF FOUND THEN EXECUTE format('{statement}', t); END IF;
         END $do$"
    )
}

fn create_table(random: &mut StdRng, unique: &str) -> String {
    let name = format!("fresh_{unique}");
    let rows = format!("INSERT INTO {name} SELECT g, 'early' FROM generate_series(1, 20) g");
    if random.random_bool(0.7) {
        format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); {rows}")
    } else {
        format!("CREATE TABLE {name} (id int, v text); ALTER TABLE {name} REPLICA IDENTITY FULL; {rows}")
    }
}

fn two_phase(random: &mut StdRng, writer: usize, unique: &str) -> Vec<Step> {
    let (first, second) = (accounts::statement(random, writer), accounts::statement(random, writer));
    let mut steps = vec![Step::Sql(format!(
        "BEGIN; SET LOCAL lock_timeout = '500ms'; {first}; SAVEPOINT a; {second}; ROLLBACK TO a; {second}; PREPARE TRANSACTION 'w_{unique}'"
    ))];
    if random.random_bool(0.3) {
        steps.push(Step::Sql("SELECT pg_sleep(0.2)".to_owned()));
    }
    match random.random_range(0..10) {
        // For those who clean up.
        0 => {}
        1..=3 => steps.push(Step::Sql(format!("ROLLBACK PREPARED 'w_{unique}'"))),
        _ => steps.push(Step::Sql(format!("COMMIT PREPARED 'w_{unique}'"))),
    }
    steps
}

fn large(random: &mut StdRng, rows_max: u32) -> Vec<Step> {
    let rows = f64::from(rows_max).powf(random.random_range(0.3..1.0)) as u32;
    let first: u32 = random.random_range(0..1_000_000_000);
    let end = if random.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" };
    vec![Step::Sql(match random.random_range(0..4) {
        0 => format!("BEGIN; DELETE FROM bulk WHERE id % 2 = {}; {end}", first % 2),
        1 => "TRUNCATE bulk".to_owned(),
        2 => format!(
            "BEGIN; UPDATE bulk SET body = body || '.' WHERE id IN (SELECT id FROM bulk LIMIT {rows}); {end}"
        ),
        _ => format!(
            "BEGIN; INSERT INTO bulk SELECT {first} + g, 'body ' || g FROM generate_series(1, {rows}) g ON CONFLICT DO NOTHING; {end}"
        ),
    })]
}

/// A transaction of one form or another.
pub(super) fn transaction(random: &mut StdRng, writer: usize, round: u64, rows_max: u32) -> Vec<Step> {
    if random.random_bool(0.12) {
        return event(random, writer, round, rows_max);
    }
    let mut sql = "BEGIN; SET LOCAL lock_timeout = '1s';".to_owned();
    if random.random_bool(0.2) {
        sql.push_str("SET LOCAL synchronous_commit = off;");
    }
    for step in 0..random.random_range(1..6) {
        let statement = statement(random, writer);
        match random.random_range(0..8) {
            0 => sql.push_str(&format!("SAVEPOINT s{step}; {statement}; RELEASE s{step};")),
            1 => sql.push_str(&format!("SAVEPOINT s{step}; {statement}; ROLLBACK TO s{step};")),
            2 => {
                let inner = accounts::statement(random, writer);
                sql.push_str(&format!(
                    "SAVEPOINT s{step}; {statement}; SAVEPOINT t{step}; {inner}; ROLLBACK TO t{step}; {inner}; RELEASE s{step};"
                ));
            }
            _ => sql.push_str(&format!("{statement};")),
        }
        if random.random_bool(0.04) {
            // Others commit meanwhile.
            sql.push_str(&format!("SELECT pg_sleep({});", random.random_range(0.005..0.6)));
        }
    }
    sql.push_str(if random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" });
    vec![Step::Sql(sql)]
}
