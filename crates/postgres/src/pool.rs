//! Sessions that are lent out and come back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{ConnectionConfig, Error, Session};

/// At most `size` sessions to one database, made when they are first needed. Clones share them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    config: ConnectionConfig,
    application_name: String,
    places: Arc<Semaphore>,
    /// Never locked across an await. The newest is lent out first.
    idle: Mutex<Vec<Session>>,
}

impl Pool {
    /// A pool without any connection yet. `size`: sessions open at the same time; 0 counts as 1.
    #[must_use]
    pub fn new(config: ConnectionConfig, application_name: impl Into<String>, size: usize) -> Self {
        let places = Arc::new(Semaphore::new(size.clamp(1, Semaphore::MAX_PERMITS)));
        let application_name = application_name.into();
        Self { shared: Arc::new(Shared { config, application_name, places, idle: Mutex::default() }) }
    }

    /// Lends a session out: waits for a place without limit, takes an idle session that is still connected, or
    /// connects. Cancel-safe: dropping the future gives the place back.
    ///
    /// # Errors
    /// As [`Session::connect`]; [`Error::PoolClosed`] after [`Pool::close`].
    pub async fn get(&self) -> Result<PooledSession, Error> {
        let shared = &self.shared;
        let place = Arc::clone(&shared.places).acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        // A session whose server went away meanwhile is dropped here.
        let session = loop {
            match shared.idle().pop() {
                Some(session) if session.is_closed() => {}
                session => break session,
            }
        };
        let session = match session {
            Some(session) => session,
            None => Session::connect(&shared.config, &shared.application_name).await?,
        };
        Ok(PooledSession { session: Some(session), shared: Arc::clone(shared), _place: place })
    }

    /// The database it leads to.
    #[must_use]
    pub fn config(&self) -> &ConnectionConfig {
        &self.shared.config
    }

    /// Closes the idle sessions and refuses further ones; those lent out are closed when they come back.
    pub fn close(&self) {
        self.shared.places.close();
        self.shared.idle().clear();
    }
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// A session on loan; dereferences to [`Session`]. Goes back when dropped, unless its connection is over.
///
/// Whoever borrows it leaves it as it was: a transaction through [`tokio_postgres::Client::transaction`] rolls itself
/// back when dropped, a `BEGIN` or `SET` of one's own does not. When in doubt, [`PooledSession::discard`].
pub struct PooledSession {
    /// `None` only while being dropped.
    session: Option<Session>,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl PooledSession {
    /// Ends the session instead of giving it back.
    pub fn discard(mut self) {
        self.session = None;
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && !session.is_closed()
            && !self.shared.places.is_closed()
        {
            self.shared.idle().push(session);
        }
    }
}

impl Deref for PooledSession {
    type Target = Session;

    #[expect(clippy::expect_used, reason = "the session is there until drop and discard, which take self")]
    fn deref(&self) -> &Session {
        self.session.as_ref().expect("a session on loan")
    }
}

impl DerefMut for PooledSession {
    #[expect(clippy::expect_used, reason = "the session is there until drop and discard, which take self")]
    fn deref_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("a session on loan")
    }
}

impl fmt::Debug for PooledSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.session.fmt(f)
    }
}
