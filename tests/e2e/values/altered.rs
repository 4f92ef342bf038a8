//! Types that are altered, dropped and made anew while their values are on the way.
//!
//! The rule (`docs/protocol.md`, section 5): a composite value has the attributes that its type has when walcast reads the
//! change, never older ones than when it was written. So it is what `to_jsonb` prints of the row that is stored.

use walcast_testkit::for_each_version;

use super::told::{assert_rows, fallbacks, judge, printed, rows_of, synced, while_stopped};
use crate::conformance::trial::Trial;

const SETUP: &str = r#"
CREATE TYPE inner_pair AS (a int, b text);
CREATE DOMAIN inner_domain AS inner_pair;
CREATE TYPE outer_pair AS (one inner_domain, many inner_pair[], "a ""name""" text);
CREATE TABLE t (id int PRIMARY KEY, p inner_pair, ps inner_domain[], o outer_pair, n int);
ALTER TABLE t REPLICA IDENTITY FULL;
"#;

/// A row whose columns hold pairs with a value in every attribute that the type has now; `more` are the attributes that
/// the outer type has gained.
fn insert(id: u32, more: &str) -> String {
    format!(
        r#"INSERT INTO t (id, p, ps, o)
           SELECT {id}, p, ARRAY[p, NULL]::inner_domain[], ROW(p, ARRAY[p], 'z'{more})::outer_pair
           FROM (SELECT ('(' || string_agg(CASE a.attnum WHEN 2 THEN '"x , ""y"' ELSE '{id}' END, ',' ORDER BY a.attnum) || ')')
                        ::inner_pair AS p
                 FROM pg_attribute a
                 WHERE a.attrelid = 'inner_pair'::regclass AND a.attnum > 0 AND NOT a.attisdropped) AS made"#
    )
}

/// All that can be done to the attributes of a type in use.
const ALTERATIONS: [&str; 8] = [
    "SELECT 1",
    "ALTER TYPE inner_pair ADD ATTRIBUTE c int",
    "ALTER TYPE inner_pair RENAME ATTRIBUTE a TO longer",
    "ALTER TYPE outer_pair ADD ATTRIBUTE last inner_pair",
    "ALTER TYPE inner_pair DROP ATTRIBUTE b",
    "ALTER TYPE inner_pair RENAME TO pair_of_ints; ALTER TYPE pair_of_ints RENAME TO inner_pair",
    "ALTER TYPE inner_pair DROP ATTRIBUTE c, ADD ATTRIBUTE d text, ADD ATTRIBUTE e int",
    "ALTER TYPE outer_pair RENAME ATTRIBUTE many TO several",
];

/// Those that add no attribute where one was dropped.
const ADDITIONS: [&str; 5] = [ALTERATIONS[0], ALTERATIONS[1], ALTERATIONS[2], ALTERATIONS[3], ALTERATIONS[7]];
const REMOVALS: [&str; 4] = [
    "SELECT 1",
    "ALTER TYPE inner_pair DROP ATTRIBUTE b",
    "ALTER TYPE outer_pair RENAME ATTRIBUTE many TO several",
    "ALTER TYPE inner_pair RENAME ATTRIBUTE a TO longer",
];

/// Waits until the daemon has looked at the types twice, so once from beginning to end.
async fn until_looked_at(trial: &Trial) {
    const READINGS: &str = "walcast_replication_type_readings_total";
    let readings = trial.daemon.metric(READINGS).await.unwrap_or(0.0);
    trial.daemon.until_metric(READINGS, readings + 2.0).await;
}

#[tokio::test]
async fn attributes_that_are_altered_in_mid_stream_are_told_as_to_jsonb_prints_them_then() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, SETUP).await;
        let server = judge(trial.database.url()).await;
        let (mut id, mut first, mut more) = (0, "a".to_owned(), "");
        for alteration in ALTERATIONS {
            let alteration =
                alteration.replace("ATTRIBUTE a TO longer", &format!("ATTRIBUTE {first} TO longer"));
            if alteration.contains("ATTRIBUTE last") {
                more = ", p";
            }
            if alteration.contains("TO longer") {
                first = "longer".to_owned();
            }
            // In a transaction of its own, and in the one that uses it.
            for together in [false, true] {
                id += 1;
                let told = if together {
                    let (row, rename) = (insert(id, more), format!("again{}", id - 1));
                    let again = format!("ALTER TYPE inner_pair RENAME ATTRIBUTE {first} TO {rename}");
                    first = rename;
                    let update = format!("UPDATE t SET n = 1 WHERE id = {id}");
                    trial.told(&[&format!("BEGIN; {again}; {row}; {update}; COMMIT")]).await
                } else {
                    trial.told(&[&alteration]).await;
                    if alteration.contains("DROP") && alteration.contains("ADD") {
                        until_looked_at(&trial).await;
                    }
                    trial.told(&[&insert(id, more)]).await
                };
                let row = printed(&server, "public.t").await.pop().expect("a row");
                assert_rows(&rows_of(&told, "public.t")[usize::from(together)..], &[row], &alteration);
            }
        }
        assert_eq!(fallbacks(&trial).await, 0);
        trial.finish().await;
        let now = printed(&server, "public.t").await;
        let rows = synced(&trial.daemon.ws_url(), |row| row.starts_with(r#"{"id""#)).await;
        assert_rows(&rows, &now, "the initial sync");
        assert_eq!(fallbacks(&trial).await, 0);
    })
    .await;
}

#[tokio::test]
async fn changes_that_are_read_after_later_alterations_have_the_attributes_of_the_rows_that_are_stored() {
    for_each_version(async |cluster| {
        for alterations in [ADDITIONS.as_slice(), &REMOVALS] {
            let mut trial = Trial::start(cluster, SETUP).await;
            trial.told(&[&insert(1, "")]).await;
            let (mut steps, mut more): (Vec<String>, _) = (Vec::new(), "");
            for (id, alteration) in (2..).zip(alterations) {
                if alteration.contains("ATTRIBUTE last") {
                    more = ", p";
                }
                let update = format!("UPDATE t SET n = {id} WHERE id = 1");
                steps.extend([(*alteration).to_owned(), insert(id, more), update]);
            }
            steps.push(format!("BEGIN; {}; {}; COMMIT", insert(20, more), insert(21, more)));
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            let seen = trial.live.log.len();
            while_stopped(&mut trial, &steps).await;
            trial.mark().await;
            let rows = rows_of(&trial.live.log[seen..], "public.t");
            let now = printed(&judge(trial.database.url()).await, "public.t").await;
            // The updates are of the first row, which was written under the first definition.
            let (updates, inserts): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|row| row.starts_with(r#"{"id":1,"#));
            assert_rows(&inserts, &now[1..], "after the restart");
            assert_eq!(updates.len(), alterations.len());
            assert_rows(&updates[updates.len() - 1..], &now[..1], "an old row");
            assert_eq!(fallbacks(&trial).await, 0);
            trial.finish().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_is_open_while_its_type_is_altered_has_both_forms_of_it() {
    for_each_version(async |cluster| {
        let mut trial = Trial::start(cluster, SETUP).await;
        let (first, second, third) = (insert(1, ""), insert(2, ""), insert(3, ""));
        let (first, third) = (format!("2> BEGIN; {first}"), format!("2> {third}; COMMIT"));
        let told = trial.told(&[&first, "ALTER TYPE inner_pair ADD ATTRIBUTE c int", &second, &third]).await;
        let mut rows = rows_of(&told, "public.t");
        let now = printed(&judge(trial.database.url()).await, "public.t").await;
        // The second one was committed first.
        rows.sort();
        assert_rows(&rows, &now, "both forms");
        assert_eq!(fallbacks(&trial).await, 0);
        trial.finish().await;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_known_any_more_is_a_string_and_said() {
    for_each_version(async |cluster| {
        let setup = "CREATE TYPE pair AS (a int, b int); CREATE TYPE gone AS (x int); CREATE DOMAIN grade AS int;
                     CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN stamp AS timestamptz;
                     CREATE TABLE t (id int PRIMARY KEY, p pair); CREATE TABLE g (id int PRIMARY KEY, x gone, d grade, m mood, s stamp)";
        let mut trial = Trial::start(cluster, setup).await;
        let seen = trial.live.log.len();
        while_stopped(
            &mut trial,
            &[
                "INSERT INTO t VALUES (1, '(1,2)')",
                "ALTER TYPE pair DROP ATTRIBUTE b, ADD ATTRIBUTE c int",
                "INSERT INTO t VALUES (2, '(3,4)')",
                "INSERT INTO g VALUES (1, '(7)', 8, 'ok', '2026-01-02 03:04:05.5Z')",
                "DROP TABLE g; DROP TYPE gone, mood; DROP DOMAIN grade, stamp",
                // Another type of the name.
                "CREATE TYPE gone AS (y text, z text); CREATE TYPE mood AS (f int);
                 CREATE TABLE g (id int PRIMARY KEY, x gone, m mood)",
                "INSERT INTO g VALUES (2, '(a,b)', '(1)')",
            ],
        )
        .await;
        trial.mark().await;
        let told = &trial.live.log[seen..];
        // Two fields: the ones of before or of after? And what is gone without a trace.
        let expected = [r#"{"id":1,"p":"(1,2)"}"#, r#"{"id":2,"p":"(3,4)"}"#];
        assert_rows(&rows_of(told, "public.t"), &expected.map(str::to_owned), "ambiguous");
        // The WAL names what is under a domain.
        let gone = r#"{"id":1,"x":"(7)","d":8,"m":"ok","s":"2026-01-02T03:04:05.5+00:00"}"#;
        let anew = r#"{"id":2,"x":{"y": "a", "z": "b"},"m":{"f": 1}}"#;
        assert_rows(&rows_of(told, "public.g"), &[gone.to_owned(), anew.to_owned()], "dropped");
        // Two pairs, a composite, and an enum of which nobody knows any more that it was one.
        assert_eq!(fallbacks(&trial).await, 4);
        let warned = trial.daemon.log().into_iter().filter(|line| line.contains("not as to_jsonb prints it")).count();
        assert!(warned >= 3, "{:#?}", trial.daemon.log());
        // From here on it is certain.
        let told = trial.told(&["INSERT INTO t VALUES (3, '(5,6)')"]).await;
        assert_eq!(rows_of(&told, "public.t"), [r#"{"id":3,"p":{"a": 5, "c": 6}}"#]);
        trial.finish().await;
    })
    .await;
}

#[tokio::test]
async fn enums_and_domains_that_are_altered_in_mid_stream_are_told_as_they_were_written() {
    for_each_version(async |cluster| {
        let setup = "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN grade AS int CHECK (value < 10);
                     CREATE TYPE report AS (m mood, g grade);
                     CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], g grade, r report)";
        let mut trial = Trial::start(cluster, setup).await;
        let server = judge(trial.database.url()).await;
        let steps = [
            "INSERT INTO t VALUES (1, 'ok', '{sad,NULL}', 9, '(ok,1)')",
            "ALTER TYPE mood ADD VALUE 'very \"good\"' AFTER 'ok'; INSERT INTO t VALUES (2, 'ok', '{ok}', 1, '(,)')",
            "INSERT INTO t VALUES (3, 'very \"good\"', ARRAY['very \"good\"']::mood[], 2, ROW('very \"good\"', 1)::report)",
            "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'; INSERT INTO t VALUES (4, 'fine', '{fine}', 3, '(fine,2)')",
            "ALTER DOMAIN grade DROP CONSTRAINT grade_check; INSERT INTO t VALUES (5, 'sad', '{}', 123456789, '(sad,99)')",
            "ALTER DOMAIN grade ADD CHECK (value < 2000000000) NOT VALID; UPDATE t SET g = 7 WHERE id = 5",
        ];
        for step in steps {
            let told = trial.told(&[step]).await;
            let row = printed(&server, "public.t").await.pop().expect("a row");
            assert_rows(&rows_of(&told, "public.t"), &[row], step);
        }
        assert_eq!(fallbacks(&trial).await, 0);
        // A label of the time of the change, whatever it is called when the change is read.
        let seen = trial.live.log.len();
        let late = ["INSERT INTO t VALUES (6, 'fine')", "ALTER TYPE mood RENAME VALUE 'fine' TO 'excellent'"];
        while_stopped(&mut trial, &late).await;
        trial.mark().await;
        let row = r#"{"id":6,"m":"fine","ms":null,"g":null,"r":null}"#;
        assert_rows(&rows_of(&trial.live.log[seen..], "public.t"), &[row.to_owned()], "a label of before");
        trial.finish().await;
    })
    .await;
}
