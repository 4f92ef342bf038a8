//! Every row of a table with extreme values, under generated predicates, by Postgres and by walcast.

use std::collections::HashSet;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use walcast_filter::{Filter, FilterError, Predicate, PredicateIndex, Row, Schema, Verdict};
use walcast_model::json::{fields, write_string};
use walcast_testkit::{Cluster, TestDatabase, TestSession, for_each_version};

use super::generate::predicate;
use super::table;

pub(crate) const ROWS: usize = 40;
/// Predicates for each version, half of them or more accepted: some 20,000 pairs of a predicate and a row.
const CASES: usize = 1000;
/// Predicates that one query asks about.
const BATCH: usize = 20;

/// Settings under which generated SQL has to mean the same.
const ODD_SETTINGS: &str = "SET standard_conforming_strings = off; SET escape_string_warning = off;
    SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard';
    SET bytea_output = 'escape'; SET extra_float_digits = 0";

/// A row that does not have one of its columns.
fn without(row: &str, name: &str) -> Vec<u8> {
    let mut key = Vec::new();
    write_string(&mut key, name);
    let key = &key[1..key.len() - 1];
    let mut out = b"{".to_vec();
    for (other, value) in fields(row.as_bytes()).filter(|(other, _)| *other != key) {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend([b"\"".as_slice(), other, b"\":", value].concat());
    }
    out.push(b'}');
    out
}

pub(crate) struct World {
    pub(crate) schema: Schema,
    rows: Vec<String>,
    pub(crate) session: TestSession,
    odd: TestSession,
}

/// What Postgres says of a condition, of each row; or that it takes none such.
pub(crate) type Answers = Result<Vec<Option<bool>>, String>;

#[derive(Default)]
struct Tally {
    accepted: usize,
    refused: usize,
}

fn agrees(verdict: Verdict, answer: Option<bool>) -> bool {
    match verdict {
        Verdict::True => answer == Some(true),
        Verdict::False => answer == Some(false),
        Verdict::Null => answer.is_none(),
        Verdict::NotTrue => answer != Some(true),
        Verdict::Unknown(_) => false,
    }
}

impl World {
    pub(crate) async fn new(database: &TestDatabase, seed: u64) -> Self {
        let session = database.session().await;
        table::create(&session, ROWS, seed).await;
        let rows = table::rows(&session, "t").await;
        let odd = database.session().await;
        odd.batch_execute(ODD_SETTINGS).await.expect("settings");
        Self { schema: table::schema(&session, "t").await, rows, session, odd }
    }

    fn compare(&self, predicate: &Predicate, answers: &[Option<bool>], what: &str) -> Vec<String> {
        let mut failures = Vec::new();
        for (row, answer) in self.rows.iter().zip(answers) {
            let verdict = predicate.evaluate(row.as_bytes());
            let found = Row::new(predicate.relation(), row.as_bytes());
            assert_eq!(verdict, predicate.evaluate_row(&found), "{what}");
            if !agrees(verdict, *answer) {
                let columns: Vec<String> = predicate
                    .columns()
                    .filter_map(|index| Some(String::from_utf8_lossy(found.value(index)?).into_owned()))
                    .collect();
                failures.push(format!("{what}: walcast {verdict:?}, Postgres {answer:?}, {columns:?}"));
            }
        }
        for (row, answer) in self.rows.iter().zip(answers).take(5) {
            for gone in predicate.columns() {
                let verdict =
                    predicate.evaluate(&without(row, predicate.relation().columns()[gone].name.as_str()));
                if !matches!(verdict, Verdict::Unknown(_)) && !agrees(verdict, *answer) {
                    failures.push(format!("{what}: without column {gone} {verdict:?}, Postgres {answer:?}"));
                }
            }
        }
        failures.truncate(1);
        failures
    }

    /// The index finds, for each row and for what is left of it in a key, what is true or cannot be told.
    fn check_index(&self, predicates: &[Arc<Predicate>]) {
        let mut index = PredicateIndex::new();
        for (id, predicate) in predicates.iter().enumerate() {
            index.insert(predicate, id);
        }
        let relation = predicates[0].relation();
        for round in 0..2 {
            for row in &self.rows {
                let key = format!("{{\"id\": 1, \"b\": true, \"i4\": {}}}", round);
                for object in [row.as_bytes(), key.as_bytes()] {
                    let row = Row::new(relation, object);
                    let found: HashSet<usize> = index
                        .candidates(&[&row])
                        .flat_map(|candidate| candidate.ids.iter().copied())
                        .collect();
                    for (id, predicate) in
                        predicates.iter().enumerate().filter(|(id, _)| round == 0 || id % 3 != 0)
                    {
                        let verdict = predicate.evaluate_row(&row);
                        let wanted = matches!(verdict, Verdict::True | Verdict::Unknown(_));
                        assert!(
                            !wanted || found.contains(&id),
                            "{verdict:?}, not found: {}",
                            predicate.to_sql()
                        );
                    }
                }
            }
            for (id, predicate) in predicates.iter().enumerate().filter(|(id, _)| round == 1 || id % 3 == 0) {
                assert_eq!(index.remove(predicate, &id), round == 0 || id % 3 != 0);
            }
        }
        assert!(index.is_empty() && index.unindexed() == 0);
    }

    fn bind(&self, text: &str) -> Result<Predicate, FilterError> {
        Filter::parse(text)?.bind(&self.schema)
    }

    /// The predicate of a text that is accepted; what it should be otherwise is looked at on demand.
    async fn accepted(&self, text: String, tally: &mut Tally) -> Option<(String, Predicate)> {
        match self.bind(&text) {
            Ok(predicate) => {
                tally.accepted += 1;
                Some((text, predicate))
            }
            Err(error) => {
                assert!(!error.hint().is_empty(), "{text}");
                tally.refused += 1;
                if std::env::var_os("WALCAST_FILTER_SHOW").is_some()
                    && table::answers(&self.session, &[&text]).await.is_ok()
                {
                    println!("refused, although Postgres takes it: {text}\n   {error} ({})", error.hint());
                }
                None
            }
        }
    }

    /// The answers of one session to many conditions: all in one query, or one by one where one of them fails.
    async fn ask(session: &TestSession, conditions: &[&str]) -> Vec<Answers> {
        if let Ok(all) = table::answers(session, conditions).await {
            return all.into_iter().map(Ok).collect();
        }
        let mut one_by_one = Vec::new();
        for condition in conditions {
            one_by_one.push(table::answers(session, &[condition]).await.map(|mut all| all.remove(0)));
        }
        one_by_one
    }

    async fn check(&self, cases: &[(String, Predicate)]) -> Vec<String> {
        let texts: Vec<&str> = cases.iter().map(|(text, _)| text.as_str()).collect();
        self.check_with(cases, Self::ask(&self.session, &texts)).await
    }

    /// Compares what walcast says with what Postgres says of the text, and of the SQL that walcast makes of it.
    pub(crate) async fn check_with(
        &self,
        cases: &[(String, Predicate)],
        theirs: impl Future<Output = Vec<Answers>>,
    ) -> Vec<String> {
        let generated: Vec<String> = cases.iter().map(|(_, predicate)| predicate.to_sql()).collect();
        let sqls: Vec<&str> = generated.iter().map(String::as_str).collect();
        let (theirs, again) = tokio::join!(theirs, Self::ask(&self.odd, &sqls));
        let mut failures = Vec::new();
        for (((text, predicate), sql), (theirs, again)) in
            cases.iter().zip(sqls).zip(theirs.into_iter().zip(again))
        {
            match theirs {
                Ok(answers) => failures.extend(self.compare(predicate, &answers, text)),
                Err(error) => failures.push(format!("{text}: accepted, but Postgres says {error}")),
            }
            let what = format!("{text}\n  as {sql}");
            match again {
                Ok(answers) => failures.extend(self.compare(predicate, &answers, &what)),
                Err(error) => failures.push(format!("{what}: Postgres says {error}")),
            }
            let read = self.bind(sql);
            if !sql.contains("E'") && read.as_ref() != Ok(predicate) {
                failures.push(format!("{what}: is another predicate when it is read again: {read:?}"));
            }
        }
        failures
    }
}

pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

async fn on(cluster: &'static Cluster) {
    let seed = number("WALCAST_FILTER_SEED", 1);
    let cases = number("WALCAST_FILTER_CASES", CASES);
    let database = TestDatabase::create(cluster).await;
    let mut random = StdRng::seed_from_u64(seed as u64);
    let world = World::new(&database, random.random()).await;
    let (mut tally, mut failures, mut kept) = (Tally::default(), Vec::new(), Vec::new());
    for _ in 0..cases.div_ceil(BATCH) {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            batch.extend(world.accepted(predicate(&mut random, 2), &mut tally).await);
        }
        failures.extend(world.check(&batch).await);
        kept.extend(batch.into_iter().map(|(_, predicate)| Arc::new(predicate)));
        if failures.len() > 20 {
            break;
        }
    }
    let Tally { accepted, refused } = tally;
    println!("seed {seed}: {accepted} predicates on {ROWS} rows, {refused} refused");
    assert!(failures.is_empty(), "WALCAST_FILTER_SEED={seed}\n{}", failures.join("\n"));
    kept.truncate(CASES);
    world.check_index(&kept);
    assert!(accepted * 2 > refused, "too few predicates are accepted to prove anything");
}

#[tokio::test]
async fn generated_predicates_have_the_answers_of_postgres() {
    for_each_version(on).await;
}
