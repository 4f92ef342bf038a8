//! The published tables as they were lately, so that a thousand clients that come back ask the source once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::past::{InitialSync, KnownTable, Unanswered};
use crate::shape::ShapeKey;

/// How long a list is trusted to name what exists. (A table that is gone since is only missing in the answer to a
/// subscription that names it: it then gets no changes, as there are none.)
const FRESH: Duration = Duration::from_secs(60);
/// How often the source is asked again for what the list does not have.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Catalog {
    source: Arc<dyn InitialSync>,
    // Held while the source is asked, so that those who come meanwhile take that answer.
    lately: Mutex<Option<(Instant, Arc<Vec<KnownTable>>)>>,
}

impl Catalog {
    pub(crate) fn new(source: Arc<dyn InitialSync>) -> Self {
        Self { source, lately: Mutex::default() }
    }

    /// The published tables as they are now.
    pub(crate) async fn now(&self) -> Result<Arc<Vec<KnownTable>>, Unanswered> {
        let asked = Instant::now();
        let tables = Arc::new(self.source.published().await?);
        *self.lately.lock().await = Some((asked, Arc::clone(&tables)));
        Ok(tables)
    }

    /// The published tables as they were lately, if that has all that the shape names, or as they are now.
    pub(crate) async fn for_shape(&self, shape: &ShapeKey) -> Result<Arc<Vec<KnownTable>>, Unanswered> {
        let mut lately = self.lately.lock().await;
        if let Some((asked, tables)) = &*lately
            && (asked.elapsed() < AGAIN || (asked.elapsed() < FRESH && has_all(tables, shape)))
        {
            return Ok(Arc::clone(tables));
        }
        let asked = Instant::now();
        let tables = Arc::new(self.source.published().await?);
        *lately = Some((asked, Arc::clone(&tables)));
        Ok(tables)
    }
}

fn has_all(tables: &[KnownTable], shape: &ShapeKey) -> bool {
    shape.named().all(|(name, selection)| {
        let table = tables.iter().find(|table| table.name == *name);
        let columns = |table: &KnownTable| {
            selection.columns.iter().flatten().all(|column| table.columns.contains(column))
        };
        table.is_some_and(columns)
    })
}
