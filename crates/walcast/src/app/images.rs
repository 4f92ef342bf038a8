//! Last images: from the setting to the history that keeps them and the replicator that asks for them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use walcast_history::{ImageReader, ImagedTables, WantedImage};
use walcast_model::last_image::Storage;
use walcast_model::{Cursor, Oid, RelationName};
use walcast_postgres::Pool;
use walcast_protocol::TablePattern;
use walcast_replication::assemble::ImageQuestion;
use walcast_replication::{FoundImages, LastImages};

use crate::settings::ServeSettings;

fn is_chosen(patterns: &[TablePattern], table: &RelationName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(table))
}

/// The tables of which history keeps images.
pub(super) fn imaged(patterns: &[TablePattern]) -> ImagedTables {
    let patterns = patterns.to_vec();
    ImagedTables::new(move |table| is_chosen(&patterns, table))
}

/// What the replicator asks; `None` when no table was chosen.
pub(super) fn kept(settings: &ServeSettings) -> Option<Arc<dyn LastImages>> {
    let patterns = settings.last_images.clone();
    let pool = Pool::new(settings.history.clone(), "walcast last images", 1);
    (!patterns.is_empty())
        .then(|| Arc::new(HistoryImages { patterns, reader: ImageReader::new(pool) }) as Arc<dyn LastImages>)
}

struct HistoryImages {
    patterns: Vec<TablePattern>,
    reader: ImageReader,
}

impl LastImages for HistoryImages {
    fn is_chosen(&self, table: &RelationName) -> bool {
        is_chosen(&self.patterns, table)
    }

    fn find(
        &self,
        questions: Vec<ImageQuestion>,
        history_at: Cursor,
    ) -> BoxFuture<'static, Result<FoundImages, String>> {
        let reader = self.reader.clone();
        async move {
            let wanted: Vec<WantedImage> = questions.into_iter().map(wanted).collect();
            let found = reader.find(&wanted, history_at).await;
            let (position, images) = found.map_err(|error| error.to_string())?;
            Ok(FoundImages { position, images })
        }
        .boxed()
    }

    fn stored(
        &self,
        relation: Oid,
        history_at: Cursor,
    ) -> BoxFuture<'static, Result<Option<Storage>, String>> {
        let reader = self.reader.clone();
        async move { reader.stored(relation, history_at).await.map_err(|error| error.to_string()) }.boxed()
    }
}

fn wanted(question: ImageQuestion) -> WantedImage {
    let ImageQuestion { relation, digest, storage, key } = question;
    WantedImage { relation, digest, storage, key }
}
