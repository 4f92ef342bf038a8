//! The published tables as they were lately, so that a thousand clients that come back ask the source once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use walcast_filter::Schema;
use walcast_model::{Oid, Relation, RelationDigest, RelationName};

use crate::past::{Away, InitialSync, KnownTable, Unanswered};
use crate::wanted::{Origin, ShapeKey};

/// How long a list is trusted to name what exists. (A table that is gone since is only missing in the answer to a
/// subscription that names it: it then gets no changes, as there are none.)
const FRESH: Duration = Duration::from_secs(60);
/// How long a source may take before it counts as away, for those who can do without an answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// How long a table's definition is trusted to be the one that it has. (A filter that fits one that is gone since ends when
/// the new one comes.)
const DEFINITION_FRESH: Duration = Duration::from_secs(2);
/// Tables and definitions that are remembered as filters are bound to them; all are forgotten when there are more.
const SCHEMAS_MAX: usize = 4096;

/// How new an answer has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Freshness {
    /// At most [`DEFINITION_FRESH`] old.
    Lately,
    /// Of a question that was put to the source after it was asked here.
    Now,
}

#[derive(Debug)]
pub(crate) struct Catalog {
    source: Arc<dyn InitialSync>,
    // Each is held while the source is asked, so that those who come meanwhile take that answer.
    lately: Mutex<Lately>,
    /// Tables in the definition that they had.
    by_name: Mutex<Answers<RelationName, Option<Arc<Schema>>>>,
    /// Tables in the definitions that changes came with.
    by_definition: Mutex<Answers<(Oid, RelationDigest, RelationName), Arc<Schema>>>,
}

/// Answers of the source, and when each was asked for.
#[derive(Debug)]
struct Answers<K, A> {
    known: HashMap<K, (Instant, A)>,
    /// When the source last failed to answer.
    failed: Option<Instant>,
}

impl<K, A> Default for Answers<K, A> {
    fn default() -> Self {
        Self { known: HashMap::new(), failed: None }
    }
}

impl<K: Eq + Hash, A: Clone> Answers<K, A> {
    /// An answer that is new enough for somebody who came at `came`.
    fn get(&self, key: &K, freshness: Freshness, came: Instant) -> Option<A> {
        let (asked, answer) = self.known.get(key)?;
        let is_new = *asked >= came || (freshness == Freshness::Lately && asked.elapsed() < DEFINITION_FRESH);
        is_new.then(|| answer.clone())
    }

    /// The answer to a question that is put to the source now, unless it has failed to answer since `came`: those who come
    /// while it fails do not ask it again one after the other.
    async fn ask<T>(
        &mut self,
        came: Instant,
        question: impl AsyncFnOnce() -> Result<T, Unanswered>,
    ) -> Result<T, Unanswered> {
        if self.failed.is_some_and(|failed| came <= failed) {
            return Err(away());
        }
        let answer = timeout(ANSWER_MAX, question()).await.unwrap_or_else(|_| Err(away()));
        if let Err(Unanswered::Later(_)) = &answer {
            self.failed = Some(Instant::now());
        }
        answer
    }

    fn keep(&mut self, key: K, asked: Instant, answer: &A) {
        if self.known.len() >= SCHEMAS_MAX {
            self.known.clear();
        }
        self.known.insert(key, (asked, answer.clone()));
    }
}

#[derive(Debug, Default)]
struct Lately {
    /// When it was asked for, and the answer.
    tables: Option<(Instant, Arc<Vec<KnownTable>>)>,
    /// When the source last failed to answer.
    failed: Option<Instant>,
}

impl Catalog {
    pub(crate) fn new(source: Arc<dyn InitialSync>) -> Self {
        Self { source, lately: Mutex::default(), by_name: Mutex::default(), by_definition: Mutex::default() }
    }

    /// Tables as filters are bound to them, in the definitions that they have; without those that are not published.
    /// Soon, or not at all, however many ask for whatever tables.
    pub(crate) async fn schemas(
        &self,
        tables: &[RelationName],
        freshness: Freshness,
    ) -> Result<Vec<Arc<Schema>>, Unanswered> {
        let came = Instant::now();
        let mut schemas = Vec::with_capacity(tables.len());
        for name in tables {
            let mut known = self.by_name.lock().await;
            let answer = match known.get(name, freshness, came) {
                Some(answer) => answer,
                None => {
                    let asked = Instant::now();
                    let answer =
                        known.ask(came, async || self.source.schema(name).await).await?.map(Arc::new);
                    known.keep(name.clone(), asked, &answer);
                    answer
                }
            };
            schemas.extend(answer);
        }
        Ok(schemas)
    }

    /// A table as filters are bound to it, in this definition.
    pub(crate) async fn schema_of(
        &self,
        relation: &Arc<Relation>,
        freshness: Freshness,
    ) -> Result<Arc<Schema>, Unanswered> {
        let came = Instant::now();
        let key = (relation.oid(), relation.digest(), relation.name().clone());
        let mut known = self.by_definition.lock().await;
        if let Some(answer) = known.get(&key, freshness, came) {
            return Ok(answer);
        }
        let asked = Instant::now();
        let answer =
            Arc::new(known.ask(came, async || self.source.schema_of(Arc::clone(relation)).await).await?);
        known.keep(key, asked, &answer);
        Ok(answer)
    }

    /// The published tables as they are now.
    pub(crate) async fn now(&self) -> Result<Arc<Vec<KnownTable>>, Unanswered> {
        let asked = Instant::now();
        let tables = Arc::new(self.source.published().await?);
        self.lately.lock().await.tables = Some((asked, Arc::clone(&tables)));
        Ok(tables)
    }

    /// The published tables as they were lately, if that has all that the shape names, or as they are now: what they
    /// lack did not exist when this was called. Those who come while the source is asked share the next answer, so it
    /// is asked for one list at a time. Soon, or not at all: those who come while the source fails to answer do not
    /// ask it again one after the other.
    pub(crate) async fn for_shape(&self, shape: &ShapeKey) -> Result<Arc<Vec<KnownTable>>, Unanswered> {
        let came = Instant::now();
        let mut lately = self.lately.lock().await;
        if let Some((asked, tables)) = &lately.tables
            && (*asked >= came || (asked.elapsed() < FRESH && has_all(tables, shape)))
        {
            return Ok(Arc::clone(tables));
        }
        if lately.failed.is_some_and(|failed| came <= failed) {
            return Err(away());
        }
        let asked = Instant::now();
        match timeout(ANSWER_MAX, self.source.published()).await.unwrap_or_else(|_| Err(away())) {
            Ok(tables) => {
                let tables = Arc::new(tables);
                lately.tables = Some((asked, Arc::clone(&tables)));
                Ok(tables)
            }
            Err(error) => {
                lately.failed = Some(Instant::now());
                Err(error)
            }
        }
    }
}

fn away() -> Unanswered {
    Unanswered::Later(Away::source("it does not answer"))
}

fn has_all(tables: &[KnownTable], shape: &ShapeKey) -> bool {
    shape.named().all(|(name, selection)| {
        let table = tables.iter().find(|table| table.name == *name);
        let Origin::Named { columns } = &selection.origin else { return table.is_some() };
        table.is_some_and(|table| columns.iter().all(|column| table.columns.contains(column)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, join, join_all};
    use tokio::sync::{Notify, mpsc};
    use tokio::time::{Instant, sleep, timeout};
    use walcast_filter::Schema;
    use walcast_model::{Relation, RelationName};
    use walcast_snapshot::{SnapshotEvent, SnapshotTable};

    use super::{ANSWER_MAX, Catalog, Freshness};
    use crate::past::{InitialSync, KnownTable, Unanswered};
    use crate::testing::{key, published, table};
    use crate::wanted::ShapeKey;

    /// A source that fails to answer; counts who asks.
    #[derive(Debug, Default)]
    struct Away {
        asked: AtomicUsize,
        failing: Notify,
    }

    impl InitialSync for Away {
        fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.failing.notified().map(|()| Err(super::away())).boxed()
        }

        fn schema<'a>(&'a self, _: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            std::future::pending().boxed()
        }

        fn schema_of(&self, _: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            std::future::pending().boxed()
        }

        fn run(
            &self,
            _: Vec<SnapshotTable>,
            _: mpsc::Sender<SnapshotEvent>,
        ) -> BoxFuture<'_, Result<(), Unanswered>> {
            std::future::pending().boxed()
        }
    }

    #[tokio::test]
    async fn a_thousand_clients_ask_a_source_that_is_away_once_and_not_one_after_the_other() {
        let source = Arc::new(Away::default());
        let catalog = Catalog::new(source.clone());
        let shape = shape_of("a");
        let clients = join_all((0..1000).map(|_| catalog.for_shape(&shape)));
        // All have come when it fails for the first of them.
        let both = join(clients, async { source.failing.notify_one() });
        let (answers, ()) = timeout(Duration::from_secs(20), both).await.expect("an answer for all");
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        // Whoever comes later asks again.
        source.failing.notify_one();
        assert!(catalog.for_shape(&shape).await.is_err());
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_away_is_asked_once_for_all_tables_that_are_named_meanwhile() {
        let source = Arc::new(Away::default());
        let catalog = Catalog::new(source.clone());
        let began = Instant::now();
        let names: Vec<RelationName> =
            (0..1000).map(|number| RelationName::new("public", format!("t{number}"))).collect();
        let tables = names.iter().map(|name| {
            catalog.schemas(std::slice::from_ref(name), Freshness::Now).map(|found| found.is_err())
        });
        assert!(join_all(tables).await.into_iter().all(|failed| failed));
        assert_eq!((source.asked.load(Ordering::Relaxed), began.elapsed()), (1, ANSWER_MAX));
        let relations: Vec<Arc<Relation>> =
            (0..1000).map(|number| table(&format!("t{number}"), &[])).collect();
        let definitions = relations
            .iter()
            .map(|relation| catalog.schema_of(relation, Freshness::Lately).map(|found| found.is_err()));
        assert!(join_all(definitions).await.into_iter().all(|failed| failed));
        assert_eq!((source.asked.load(Ordering::Relaxed), began.elapsed()), (2, ANSWER_MAX * 2));
    }

    /// A source that answers after a while, of what is there when it answers; counts who asks.
    #[derive(Debug, Default)]
    struct Growing {
        asked: AtomicUsize,
        tables: Mutex<Vec<KnownTable>>,
    }

    impl InitialSync for Growing {
        fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).map(|()| Ok(self.tables.lock().unwrap().clone())).boxed()
        }

        fn schema<'a>(&'a self, _: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>> {
            std::future::pending().boxed()
        }

        fn schema_of(&self, _: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>> {
            std::future::pending().boxed()
        }

        fn run(
            &self,
            _: Vec<SnapshotTable>,
            _: mpsc::Sender<SnapshotEvent>,
        ) -> BoxFuture<'_, Result<(), Unanswered>> {
            std::future::pending().boxed()
        }
    }

    fn shape_of(table: &str) -> ShapeKey {
        key(&format!(r#""tables":[{{"table":"public.{table}"}}],"cursor":"0/1""#))
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_the_list_lacks_is_asked_for_however_new_the_list_is() {
        let source = Arc::new(Growing::default());
        let catalog = Catalog::new(source.clone());
        source.tables.lock().unwrap().push(published(&table("a", &[])));
        assert_eq!(catalog.for_shape(&shape_of("a")).await.unwrap().len(), 1);
        assert_eq!(catalog.for_shape(&shape_of("a")).await.unwrap().len(), 1);
        assert_eq!(source.asked.load(Ordering::Relaxed), 1);
        // In the same moment, by this clock.
        source.tables.lock().unwrap().push(published(&table("b", &[])));
        assert_eq!(catalog.for_shape(&shape_of("b")).await.unwrap().len(), 2);
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_name_what_is_not_there_share_the_next_answer() {
        let source = Arc::new(Growing::default());
        let catalog = Catalog::new(source.clone());
        let shape = shape_of("none");
        let clients = (0..1000_u64).map(|number| {
            let (catalog, shape) = (&catalog, &shape);
            async move {
                sleep(Duration::from_millis(number / 100)).await;
                catalog.for_shape(shape).await.unwrap().len()
            }
        });
        assert_eq!(join_all(clients).await.into_iter().sum::<usize>(), 0);
        // One for the first, one for all who came while that was on its way.
        assert_eq!(source.asked.load(Ordering::Relaxed), 2);
    }
}
