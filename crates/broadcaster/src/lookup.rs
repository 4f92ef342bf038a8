//! Rows by key, as they are now, as far as a client may have them.
//!
//! # Which position goes with them
//!
//! No position describes what a snapshot sees (see `walcast_snapshot`), so there are two, each with one promise:
//!
//! - `reached`: everything that the rows contain is before it. It is where a barrier came back that was written after the
//!   rows were read, so the feed has it all.
//! - `cursor`: everything that the rows do not contain is at or after it. It is the first transaction in history that the
//!   snapshot does not see, or, when there is none, `reached` or how far history has come, whichever is first.
//!
//! A stream that is resumed at `cursor` misses nothing that is newer than the rows, and may bring what they contain once
//! more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use walcast_model::{Cursor, RelationName};
use walcast_policy::Rights;
use walcast_protocol::{ErrorCode, TablePattern};
use walcast_snapshot::{FoundRows, Key, SnapshotTable};

use crate::catalog::Freshness;
use crate::encode::{Projection, project_rows};
use crate::hindrance;
use crate::past::Unanswered;
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::session::{World, unknown_table};
use crate::subscription::Services;
use crate::turns::{Applicant, Place};
use crate::wanted::{ShapeKey, Unbindable, Wanted};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Lookup {
    pub(crate) table: RelationName,
    /// Beside those of the key; `None` for all.
    pub(crate) columns: Option<BTreeSet<String>>,
    pub(crate) keys: Vec<Key>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Looked {
    /// For each key a row or `null`, as JSON, between commas.
    pub(crate) rows: Vec<u8>,
    /// Everything that the rows do not contain is at or after it.
    pub(crate) cursor: Cursor,
    /// Everything that they contain is before it.
    pub(crate) reached: Cursor,
    /// It has a place until it is made into an answer, so that there are no more of these than places.
    pub(crate) place: Option<Place>,
}

impl Lookup {
    /// Looks them up. Cancel-safe: nothing goes on when it is dropped.
    pub(crate) async fn run(
        self,
        rights: &Rights,
        applicant: Applicant,
        world: &World,
        services: &Services,
    ) -> Result<Looked, Refusal> {
        let keys_max = world.limits.rows_keys_max;
        if self.keys.len() > keys_max {
            let message = format!("keys in one request (rows_keys_max): at most {keys_max}");
            return Err(
                Refusal::new(ErrorCode::LimitExceeded, message).hint("ask for the others in another one")
            );
        }
        let pattern = TablePattern::Table(self.table.clone());
        let asked = BTreeMap::from([(pattern, Asked { columns: self.columns.clone(), ..Asked::default() })]);
        let wanted = Wanted::new(Arc::new(ShapeKey::resolve(&asked, rights)?));
        if !world.gate.is_open() {
            return Err(hindrance::late("the rows cannot be had yet", world).told(rights.is_everything()));
        }
        let limit = world.limits.rows_answer_max;
        let looked = timeout_at(Instant::now() + limit, self.look(&wanted, applicant, world, services));
        let too_slow = || {
            let late = format!("the rows could not be had within {} s (rows_answer_max)", limit.as_secs());
            hindrance::late(&late, world)
        };
        let looked = looked.await.unwrap_or_else(|_| Err(too_slow()));
        looked.map_err(|refusal| refusal.told(rights.is_everything()))
    }

    async fn look(
        &self,
        wanted: &Wanted,
        applicant: Applicant,
        world: &World,
        services: &Services,
    ) -> Result<Looked, Refusal> {
        let mut turn = services.lookups.queue(applicant);
        let place = turn.come().await;
        let Some(selection) = wanted.of(&self.table) else { return Err(unknown_table(&self.table)) };
        let settled = |unanswered| settled(unanswered, world);
        self.bind(wanted, world, services).await?;
        let table = SnapshotTable { rows: selection.rows(), ..SnapshotTable::from(self.table.clone()) };
        let FoundRows { relation, rows, snapshot } =
            services.source.rows(&table, &self.keys).await.map_err(settled)?;
        let projection = Projection::new(&relation, selection);
        let mut out = Vec::with_capacity(rows.iter().flatten().map(|row| row.len() + 1).sum());
        for (index, row) in rows.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match (row, &projection) {
                (None, _) => out.extend_from_slice(b"null"),
                (Some(row), None) => out.extend_from_slice(row),
                (Some(row), Some(projection)) => project_rows(&mut out, projection, row),
            }
        }
        drop(rows);
        // `None`: the daemon goes down.
        let reached = services.barriers.pass().await.ok_or_else(going_down)?;
        let before = reached.min(world.feed.stored());
        let first = services.past.first_invisible(&snapshot, before).await.map_err(settled)?;
        Ok(Looked { rows: out, cursor: first.unwrap_or(before).min(before), reached, place })
    }

    /// Whether the table is there, and what is asked and granted of it fits.
    async fn bind(&self, wanted: &Wanted, world: &World, services: &Services) -> Result<(), Refusal> {
        let mut freshness = Freshness::Lately;
        loop {
            let names = std::slice::from_ref(&self.table);
            let schemas = services.catalog.schemas(names, freshness).await;
            let schemas = schemas.map_err(|unanswered| settled(unanswered, world))?;
            let is_now = std::mem::replace(&mut freshness, Freshness::Now) == Freshness::Now;
            let Some(schema) = schemas.first() else {
                if is_now {
                    return Err(unknown_table(&self.table));
                }
                continue;
            };
            match wanted.bind(schema) {
                Ok(_) => {}
                Err(_) if !is_now => continue,
                // A row as it is now is told whole, whatever the WAL carries of old ones.
                Err(Unbindable::Identity { .. }) => {}
                Err(why) => return Err(why.into_refusal(&self.table)),
            }
            let columns = schema.relation().columns();
            let is_there = |name: &&String| columns.iter().any(|column| column.name == **name);
            return match self.columns.iter().flatten().find(|name| !is_there(name)) {
                None => Ok(()),
                Some(_) if !is_now => continue,
                Some(column) => {
                    Err(Refusal::bad(format!("{} has no published column {column:?}", self.table)))
                }
            };
        }
    }
}

fn settled(unanswered: Unanswered, world: &World) -> Refusal {
    match unanswered {
        Unanswered::Never(refusal) => refusal,
        Unanswered::Later(away) => {
            tracing::debug!(?away, "rows cannot be looked up now");
            hindrance::away(away, world.feed.outages())
        }
    }
}

fn going_down() -> Refusal {
    Refusal::new(ErrorCode::NotReady, "the daemon is going down").hint("ask again after a few seconds")
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use futures_util::poll;
    use walcast_feed::{Barriers, Feed, FeedLimits};
    use walcast_policy::Rights;
    use walcast_snapshot::FoundRows;

    use super::Lookup;
    use crate::broadcaster::{Broadcaster, Sources};
    use crate::gate::Gate;
    use crate::limits::Limits;
    use crate::testing::{FakeClients, FakePast, FakeSource, at, table};
    use crate::turns::Applicant;

    #[tokio::test]
    async fn rows_that_wait_for_their_position_have_a_place_until_they_are_answered() {
        let (_writer, feed) = Feed::new(at(1), FeedLimits { memory_bytes_max: 1 << 20 });
        let (barriers, mut requests) = Barriers::new();
        let (source, gate) = (Arc::new(FakeSource::default()), Gate::closed());
        gate.open();
        let relation = table("a", &["x"]);
        source.defined.lock().unwrap().push(Arc::clone(&relation));
        let (rows, snapshot) = (vec![Some(r#"{"id":1,"x":"v"}"#.into())], "1:1:".parse().unwrap());
        *source.found.lock().unwrap() = Some(FoundRows { relation, rows, snapshot });
        let sources = Sources {
            feed_id: "f_1".parse().unwrap(),
            lineage: crate::Lineage::default(),
            feed,
            barriers: barriers.clone(),
            past: Arc::new(FakePast { oldest: at(1), page_changes: 100, ..FakePast::default() }),
            source: source.clone(),
            clients: Arc::new(FakeClients::default()),
            gate,
        };
        let broadcaster = Broadcaster::new(sources, Limits { rows_max: 1, ..Limits::default() });
        let look_up = |number| {
            let lookup = Lookup { table: "public.a".parse().unwrap(), columns: None, keys: Vec::new() };
            broadcaster.look_up(lookup, &Rights::Everything, Applicant::Connection(number))
        };
        let (mut first, mut second) = (pin!(look_up(1)), pin!(look_up(2)));
        assert!(poll!(first.as_mut()).is_pending() && poll!(second.as_mut()).is_pending());
        assert_eq!(source.looked.load(Ordering::Relaxed), 1, "the other one has no place");
        let id = requests.next().await.unwrap();
        barriers.resolve(&id, at(1));
        let answer = first.await.unwrap();
        assert!(poll!(second.as_mut()).is_pending());
        assert_eq!(source.looked.load(Ordering::Relaxed), 1, "the answer is there");
        drop(answer);
        assert!(poll!(second.as_mut()).is_pending());
        assert_eq!(source.looked.load(Ordering::Relaxed), 2);
    }
}
