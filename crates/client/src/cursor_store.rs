//! Where a client keeps how far it has come.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use walcast_model::{Cursor, FeedId};
use walcast_protocol::SubscriptionId;

use crate::error::Error;

/// A cursor with the feed that gives it its meaning.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredCursor {
    /// The feed.
    pub feed: FeedId,
    /// Everything before it has been applied.
    pub cursor: Cursor,
    /// The rights under which that was: [`crate::Subscribed::rights`], `None` where no policies were in force. Changes from
    /// `cursor` on fit what was applied only as long as they are the same, see [`crate::Event::RightsChanged`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<String>,
}

impl StoredCursor {
    /// A cursor of `feed`, where no policies are in force.
    #[must_use]
    pub const fn new(feed: FeedId, cursor: Cursor) -> Self {
        Self { feed, cursor, rights: None }
    }
}

/// What a [`CursorStore`] returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Where a client keeps, for each subscription, how far it has come.
pub trait CursorStore: Send + Sync {
    /// The cursor that was stored last for `id`, asked for by [`crate::Client::subscribe`].
    fn load<'a>(&'a self, id: &'a SubscriptionId) -> Pending<'a, Option<StoredCursor>>;

    /// Keeps `cursor` for `id`. When it returns, a crash does not lose it.
    fn store<'a>(&'a self, id: &'a SubscriptionId, cursor: StoredCursor) -> Pending<'a, ()>;
}

/// Keeps cursors as long as the program runs; clones share them. What a client uses unless it is told otherwise.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    // Held for a look-up or an insertion.
    cursors: Arc<Mutex<BTreeMap<SubscriptionId, StoredCursor>>>,
}

impl CursorStore for MemoryStore {
    fn load<'a>(&'a self, id: &'a SubscriptionId) -> Pending<'a, Option<StoredCursor>> {
        let found = self.cursors.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn store<'a>(&'a self, id: &'a SubscriptionId, cursor: StoredCursor) -> Pending<'a, ()> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), cursor);
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Keeps cursors in one JSON file, replaced as a whole and synced for each change; for one process at a time.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: Arc<Path>,
    // Held while the file is read and written, on a thread for blocking work: two changes must not overwrite each other.
    access: Arc<Mutex<()>>,
}

/// The file's content; a change of its form gets another version.
#[derive(Default, Serialize, Deserialize)]
struct Content {
    version: u32,
    subscriptions: BTreeMap<String, StoredCursor>,
}

const VERSION: u32 = 1;

impl FileStore {
    /// A store in the file at `path`, which is made with the first cursor. Its folder has to exist.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), access: Arc::default() }
    }

    fn read(&self) -> Result<Content, Error> {
        let failed = |what: &str| format!("the cursor file {} {what}", self.path.display());
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Content::default()),
            Err(error) => return Err(Error::store(failed("cannot be read"), error)),
        };
        let content: Content = serde_json::from_slice(&text)
            .map_err(|error| Error::store(failed("is not one; move it away to start over"), error))?;
        if content.version > VERSION {
            return Err(Error::store(
                failed("is of a newer version of walcast"),
                content.version.to_string(),
            ));
        }
        Ok(content)
    }

    fn write(&self, content: &Content) -> Result<(), Error> {
        let failed =
            |error| Error::store(format!("the cursor file {} cannot be written", self.path.display()), error);
        let folder =
            self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut new = self.path.as_os_str().to_owned();
        new.push(".new");
        let write = || {
            let mut file = std::fs::File::create(&new)?;
            file.write_all(&serde_json::to_vec(content)?)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            // The rename itself has to survive a crash; only Unix lets a folder be opened for that.
            if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(failed)
    }

    fn blocking<'a, T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Pending<'a, T> {
        let store = self.clone();
        Box::pin(async move {
            let task = tokio::task::spawn_blocking(move || {
                let _access = store.access.lock().unwrap_or_else(PoisonError::into_inner);
                work(&store)
            });
            task.await.map_err(|error| Error::store("the cursor file was not handled to the end", error))?
        })
    }
}

impl CursorStore for FileStore {
    fn load<'a>(&'a self, id: &'a SubscriptionId) -> Pending<'a, Option<StoredCursor>> {
        let id = id.to_string();
        self.blocking(move |store| Ok(store.read()?.subscriptions.remove(&id)))
    }

    fn store<'a>(&'a self, id: &'a SubscriptionId, cursor: StoredCursor) -> Pending<'a, ()> {
        let id = id.to_string();
        self.blocking(move |store| {
            let mut content = store.read()?;
            content.version = VERSION;
            content.subscriptions.insert(id, cursor);
            store.write(&content)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CursorStore, FileStore, StoredCursor};
    use crate::error::ErrorKind;

    #[tokio::test]
    async fn a_file_keeps_the_cursors_of_every_subscription() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursors");
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        let cursor = |text: &str| StoredCursor::new("f".parse().unwrap(), text.parse().unwrap());
        let under = |rights: &str| StoredCursor { rights: Some(rights.to_owned()), ..cursor("0/2:7") };
        let store = FileStore::new(&path);
        assert_eq!(store.load(&one).await.unwrap(), None);
        store.store(&one, cursor("0/1")).await.unwrap();
        store.store(&two, under("r1")).await.unwrap();
        store.store(&one, cursor("0/3")).await.unwrap();
        let again = FileStore::new(&path);
        assert_eq!(again.load(&one).await.unwrap(), Some(cursor("0/3")));
        assert_eq!(again.load(&two).await.unwrap(), Some(under("r1")));
        // As a version that did not know of rights has written it.
        std::fs::write(&path, r#"{"version":1,"subscriptions":{"one":{"feed":"f","cursor":"0/3"}}}"#)
            .unwrap();
        assert_eq!(again.load(&one).await.unwrap(), Some(cursor("0/3")));
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursors");
        std::fs::write(&path, "precious").unwrap();
        let store = FileStore::new(&path);
        let cursor = StoredCursor::new("f".parse().unwrap(), "0/1".parse().unwrap());
        let error = store.store(&"one".parse().unwrap(), cursor).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
