//! Who has the slot, for who waits for it.

use std::fmt;

use walcast_postgres::Session;

use crate::error::Error;

/// Who streams from a slot, or creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The server process.
    pub pid: i32,
    /// Its client; `None` where the server does not tell, or it is gone.
    pub client: Option<Client>,
}

/// The client of a server process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its `application_name`.
    pub application: String,
    /// Its role.
    pub user: String,
    /// From where it is connected and since when, as far as the server tells this role.
    pub arrival: String,
}

impl Holder {
    /// Of which no more is known than its number.
    pub(super) const fn unknown(pid: i32) -> Self {
        Self { pid, client: None }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        let Self { pid, client } = self;
        let is_walcast = client.as_ref().is_some_and(|client| client.application.starts_with("walcast"));
        let first = if is_walcast {
            "look whether that walcast works: then there is nothing to do, this one waits and takes over as soon as the slot is free"
        } else {
            "look who that is: if it is a walcast that works there is nothing to do, this one waits and takes over as soon as \
             the slot is free; another program is to be stopped, or to get a slot of its own"
        };
        format!(
            "{first}. Only if its client is gone for good (its machine died), run SELECT pg_terminate_backend({pid});"
        )
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        match &self.client {
            Some(Client { application, user, arrival }) => write!(f, " ({application:?} of {user}{arrival})"),
            None => Ok(()),
        }
    }
}

/// When it came, and not for how long it is there: who waits says what is new.
const HOLDER: &str = "
SELECT s.active_pid, a.application_name, a.usename::text,
       CASE WHEN a.backend_start IS NULL THEN '' ELSE coalesce(', from ' || host(a.client_addr), ', on the server itself') END
       || coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', '\", since \"YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), '')
FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL";

/// Who streams from the slot of this name or creates it; `None` when nobody does.
///
/// # Errors
/// Those of the session.
pub async fn holder(session: &Session, name: &str) -> Result<Option<Holder>, Error> {
    let Some(row) = session.query_opt(HOLDER, &[&name]).await? else { return Ok(None) };
    let text = |index| row.get::<_, Option<String>>(index);
    let client = text(1).zip(text(2)).map(|(application, user)| Client {
        application,
        user,
        arrival: text(3).unwrap_or_default(),
    });
    Ok(Some(Holder { pid: row.get(0), client }))
}
