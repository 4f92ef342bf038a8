//! Last images: history, as the replicator asks it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use walcast_model::last_image::StorageId;
use walcast_model::{Cursor, Lsn, Oid, RelationName};
use walcast_pgoutput::{DecodeError, Decoder};

use crate::assemble::{Assembler, ImageQuestion};
use crate::backoff::Backoff;
use crate::connection::StreamFrame;

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

/// Keeps last images, for the replicator to ask. Errors are texts for people.
pub trait LastImages: Send + Sync {
    /// Whether images are kept of this table.
    fn is_chosen(&self, table: &RelationName) -> bool;

    /// The images of these rows.
    fn find(&self, questions: Vec<ImageQuestion>) -> BoxFuture<'static, Result<FoundImages, String>>;

    /// Since when the table surely has this storage, if history knows it under this one.
    fn since(&self, relation: Oid, storage: StorageId) -> BoxFuture<'static, Result<Option<Lsn>, String>>;
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
        let problem = match store.find(wanted.clone()).await {
            // Older, and it lacks what is not remembered here any more; newer, and another process stores the feed.
            Ok(found)
                if (found.position <= images.dropped() && images.dropped() > Cursor::ZERO)
                    || found.position > at =>
            {
                format!("it is at {}, not after {} and up to {at}", found.position, images.dropped())
            }
            Ok(found) => break found,
            Err(problem) => problem,
        };
        pause("last images are not had from the history", &problem, &mut backoff).await;
    };
    for (question, image) in wanted.into_iter().zip(found.images) {
        images.found(question, image);
    }
}

/// As [`find`].
pub(super) async fn since(store: &dyn LastImages, relation: Oid, storage: StorageId) -> Option<Lsn> {
    let mut backoff = Backoff::default();
    loop {
        match store.since(relation, storage).await {
            Ok(since) => return since,
            Err(problem) => {
                pause("the storage of a table is not had from the history", &problem, &mut backoff).await
            }
        }
    }
}

async fn pause(what: &str, problem: &str, backoff: &mut Backoff) {
    let wait = backoff.after(false);
    tracing::warn!(problem, "{what}; the feed waits, and it is tried again in {wait:?}");
    tokio::time::sleep(wait).await;
}
