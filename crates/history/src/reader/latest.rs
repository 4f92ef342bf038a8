//! Pages of the net effect of many transactions.

use walcast_model::{Cursor, Part, RelationName, Seq};

use super::{Page, PageLimits, Reader};
use crate::Error;
use crate::latest::Fold;

/// A page of history for a client that wants the latest rows.
#[derive(Debug)]
pub struct LatestPage {
    /// The changes, and where to read next.
    pub page: Page,
    /// Whether the parts are the net effect of all transactions before [`Page::next`], and not these themselves. They
    /// are then parts of one, the last of these; only the cursor after the last one means anything.
    pub is_compacted: bool,
}

impl Reader {
    /// Reads from `from` on, and folds whole transactions up to `to` into what became of each row of the tables that are
    /// wanted, as many as fit into `fold_bytes_max` of memory. What cannot be folded (the rest of a transaction that was
    /// begun, one that does not fit, one whose effect cannot be told by keys) comes as a page as it is.
    ///
    /// Memory: `fold_bytes_max`, and as much again for one transaction and one page. Cancel-safe.
    ///
    /// # Errors
    /// As [`Reader::read_kept`].
    pub async fn latest(
        &self,
        from: Cursor,
        to: Cursor,
        limits: PageLimits,
        fold_bytes_max: usize,
        wants: impl Fn(&RelationName) -> bool + Send,
    ) -> Result<LatestPage, Error> {
        if from.seq() > Seq::FIRST {
            return self.as_it_is(from, to, limits).await;
        }
        let mut fold = Fold::default();
        // Everything before it is folded, or does not concern anybody.
        let mut done = from;
        let mut at = from;
        let mut open: Vec<Part> = Vec::new();
        let mut open_bytes = 0;
        'pages: while at < to && fold.bytes() < fold_bytes_max {
            let page = self.read(at, to, limits).await?;
            at = page.next;
            for part in page.parts {
                let end = part.end();
                open_bytes += part.json().len();
                open.push(part);
                if open_bytes > fold_bytes_max {
                    break 'pages;
                }
                let Some(end) = end else { continue };
                if fold.transaction(&open, &wants).is_err() {
                    break 'pages;
                }
                open.clear();
                (open_bytes, done) = (0, Cursor::after(end));
                if fold.bytes() >= fold_bytes_max {
                    break 'pages;
                }
            }
            if open.is_empty() {
                // Nothing more is before it.
                done = at;
            }
        }
        let oldest = self.oldest().await?;
        if from < oldest {
            return Err(Error::TooOld { cursor: from, oldest });
        }
        if done == from {
            return self.as_it_is(from, to, limits).await;
        }
        let parts = fold.finish(limits.part_bytes_max);
        Ok(LatestPage { page: Page { parts, next: done }, is_compacted: true })
    }

    async fn as_it_is(&self, from: Cursor, to: Cursor, limits: PageLimits) -> Result<LatestPage, Error> {
        let mut page = self.read_kept(from, to, limits).await?;
        // Only the one transaction: what follows can be folded again.
        if let Some(last) = page.parts.iter().position(|part| part.end().is_some()) {
            page.parts.truncate(last + 1);
            page.next = page.parts[last].next_cursor();
        }
        Ok(LatestPage { page, is_compacted: false })
    }
}
