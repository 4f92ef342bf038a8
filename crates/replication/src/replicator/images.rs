//! Last images: history, as the replicator asks it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use walcast_model::last_image::Storage;
use walcast_model::{Cursor, Oid, RelationName};
use walcast_pgoutput::{DecodeError, Decoder};

use crate::assemble::{Assembler, ImageQuestion};
use crate::backoff::Backoff;
use crate::connection::StreamFrame;
use crate::metrics::{IMAGES_FOUND_TOTAL, IMAGES_LOOKED_UP_TOTAL};

/// How many images are asked for at once. The answer may leave out all but the first, for its size.
const IMAGES_MAX: usize = 1000;

/// What history said.
#[derive(Debug)]
pub struct FoundImages {
    /// Where it stood, with everything that it said.
    pub position: Cursor,
    /// For the first of the keys that were asked about, at least for one: the row, or `None` when it has no image.
    pub images: Vec<Option<Bytes>>,
}

/// Keeps last images, for the replicator to ask. What it answers is as of one position, at `history_at` or after it: a
/// history that is older is another one (the primary before a failover), to which it connects no more. Errors are texts
/// for people; what failed is asked again.
pub trait LastImages: Send + Sync {
    /// Whether images are kept of this table.
    fn is_chosen(&self, table: &RelationName) -> bool;

    /// The images of these rows.
    fn find(
        &self,
        questions: Vec<ImageQuestion>,
        history_at: Cursor,
    ) -> BoxFuture<'static, Result<FoundImages, String>>;

    /// The storage that the images of a table are of, if there are any.
    fn stored(
        &self,
        relation: Oid,
        history_at: Cursor,
    ) -> BoxFuture<'static, Result<Option<Storage>, String>>;
}

/// Adds what changes in the frames `ahead` will want, up to the next definition of a table.
pub(super) fn look_ahead(
    decoder: &mut Decoder,
    assembler: &Assembler,
    ahead: &[StreamFrame],
    wanted: &mut Vec<ImageQuestion>,
) -> Result<(), DecodeError> {
    let mut seen: std::collections::HashSet<ImageQuestion> = wanted.iter().cloned().collect();
    for frame in ahead {
        match frame {
            _ if wanted.len() >= IMAGES_MAX => break,
            StreamFrame::XLogData { data, .. } if data.first() == Some(&b'R') => break,
            StreamFrame::XLogData { start, data, .. } if matches!(data.first(), Some(b'U' | b'D')) => {
                let message = decoder.decode(data.clone())?;
                wanted
                    .extend(assembler.wanted_image(*start, &message).filter(|one| seen.insert(one.clone())));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Asks for ever, as storing is tried for ever. To be dropped when the stream ends.
pub(super) async fn find(store: &dyn LastImages, assembler: &mut Assembler, wanted: Vec<ImageQuestion>) {
    let at = assembler.next_change();
    let Some(images) = assembler.images_mut() else { return };
    let mut backoff = Backoff::default();
    let found = loop {
        let problem = match store.find(wanted.clone(), images.history_at()).await {
            Ok(found) if found.position > at => {
                format!("it is at {}, after {at}: another process stores the feed", found.position)
            }
            Ok(found) => break found,
            Err(problem) => problem,
        };
        pause("last images are not had from the history", &problem, &mut backoff).await;
    };
    let had = found.images.iter().flatten().count();
    metrics::counter!(IMAGES_LOOKED_UP_TOTAL).increment(found.images.len() as u64);
    metrics::counter!(IMAGES_FOUND_TOTAL).increment(had as u64);
    for (question, image) in wanted.into_iter().zip(found.images) {
        images.found(question, image);
    }
}

/// As [`find`].
pub(super) async fn stored(store: &dyn LastImages, relation: Oid, history_at: Cursor) -> Option<Storage> {
    let mut backoff = Backoff::default();
    loop {
        match store.stored(relation, history_at).await {
            Ok(stored) => return stored,
            Err(problem) => {
                pause("the storage of a table is not had from the history", &problem, &mut backoff).await
            }
        }
    }
}

async fn pause(what: &str, problem: &str, backoff: &mut Backoff) {
    let wait = backoff.after(false);
    tracing::warn!(problem, "{what}; the feed waits, and it is tried again in {wait:.1?}");
    tokio::time::sleep(wait).await;
}
