//! What to subscribe to.

use walcast_model::{Cursor, FeedId};
use walcast_protocol::{Catchup, Payload, StartAt, Subscribe, SubscriptionId, TablePattern, TableSelection};

use crate::error::{Error, ErrorKind};

/// One ordered stream over some tables.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub(crate) request: Subscribe,
    /// Under which rights the caller's copy was made, where the caller says so.
    pub(crate) rights: Option<Rights>,
}

/// What policies give of a subscription: [`walcast_protocol::Subscribed::rights`].
pub(crate) type Rights = Option<String>;

impl Subscription {
    /// A subscription called `id` to `tables`, each `schema.table`, `schema.*` or `*`. It starts with an initial sync,
    /// or where the client's [`crate::CursorStore`] says that it stopped.
    ///
    /// # Errors
    /// When `id` or one of `tables` is malformed, or there are none.
    pub fn new<T: AsRef<str>>(id: &str, tables: impl IntoIterator<Item = T>) -> Result<Self, Error> {
        let argument = |error: String| Error::new(ErrorKind::Argument, error);
        let id: SubscriptionId = id.parse().map_err(|error| argument(format!("{error}")))?;
        let parse =
            |table: T| table.as_ref().parse::<TablePattern>().map_err(|error| argument(error.to_string()));
        let tables = tables.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if tables.is_empty() {
            return Err(argument(format!("the subscription {id} names no table; * names all")));
        }
        Ok(Self { request: Subscribe::new(id, tables), rights: None })
    }

    /// The name that it was given.
    #[must_use]
    pub const fn id(&self) -> &SubscriptionId {
        &self.request.id
    }

    /// Where to start when no cursor is stored.
    #[must_use]
    pub const fn start(mut self, start: StartAt) -> Self {
        self.request.cursor = start;
        self
    }

    /// Start at `cursor` of `feed` when no cursor is stored; under another feed id the subscription fails with
    /// `feed_changed`.
    #[must_use]
    pub fn resume(mut self, feed: FeedId, cursor: Cursor) -> Self {
        self.request.feed = Some(feed);
        self.request.cursor = cursor.into();
        self
    }

    /// The [`walcast_protocol::Subscribed::rights`] under which the copy was made that the caller has, for one that starts at a
    /// cursor without a [`crate::CursorStore`] (which keeps them): when they have changed, it starts over, see
    /// [`crate::Event::RightsChanged`]. Without it nobody looks.
    #[must_use]
    pub fn rights(mut self, rights: Option<String>) -> Self {
        self.rights = Some(rights);
        self
    }

    /// When it is far behind, what became of each row instead of every change: transactions that are compacted
    /// ([`walcast_protocol::TransactionMessage::compacted`]). Their changes write a row whether it is there or not, and
    /// delete it whether it is there or not.
    #[must_use]
    pub const fn latest(mut self) -> Self {
        self.request.catchup = Catchup::Latest;
        self
    }

    /// The name under which the daemon keeps what [`crate::Client::ack`] acknowledges: 1 to 128 bytes without control
    /// characters. Make a UUID once and keep it with the store into which the changes go. With
    /// `.start(StartAt::Acked)` the subscription goes on where it was acknowledged last, also in another process; before
    /// anything was, with an initial sync.
    ///
    /// Acknowledge then, what an initial sync brought as well: what was not is sent again after a lost connection (and left
    /// out, see [`crate::Client::ack`]), and history has to reach back to it. The daemon does not keep under which rights that
    /// was: where there are policies, keep them and give them with [`Subscription::rights`]. A [`crate::CursorStore`] needs no `client_id`,
    /// and a cursor that it has counts before the one that was acknowledged.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.request.client_id = Some(client_id.into());
        self
    }

    /// What a change carries: whole rows (the default), or with [`Payload::Key`] only which rows changed. Fetch those that
    /// are needed.
    #[must_use]
    pub const fn payload(mut self, payload: Payload) -> Self {
        self.request.payload = payload;
        self
    }

    /// Where the client's own transactions say that they come from (`walcast.set_meta('{"origin": …}')`, 1 to 128 bytes):
    /// they are not sent back, but for those that are committed during an initial sync and what a compacted transaction
    /// sums up. [`crate::Handle::wait_for`] does not see them in the stream, and asks for their rows.
    #[must_use]
    pub fn origin(mut self, origin: impl Into<String>) -> Self {
        self.request.origin = Some(origin.into());
        self
    }

    /// Only these columns of every table named so far, besides the key's.
    #[must_use]
    pub fn columns<T: Into<String>>(mut self, columns: impl IntoIterator<Item = T>) -> Self {
        let columns: Vec<String> = columns.into_iter().map(Into::into).collect();
        for table in &mut self.request.tables {
            table.columns = Some(columns.clone());
        }
        self
    }

    /// One more table, with columns of its own.
    #[must_use]
    pub fn table(mut self, table: TableSelection) -> Self {
        self.request.tables.push(table);
        self
    }
}

impl From<Subscribe> for Subscription {
    fn from(request: Subscribe) -> Self {
        Self { request, rights: None }
    }
}
