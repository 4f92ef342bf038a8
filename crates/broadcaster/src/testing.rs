//! What the tests of this crate stand on: logs made by hand, a history in memory, a source that is scripted.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use walcast_feed::{Feed, FeedLimits, FeedWriter, Read};
use walcast_filter::{Collation, Schema};
use walcast_history::{Acknowledged, ClientKey, KnownClient, LatestPage, Page, PageLimits, Without};
use walcast_model::{
    Column, CommitEnd, CommitStart, Cursor, Lsn, Meta, Oid, Op, Part, PartBuilder, Relation, RelationDigest,
    RelationName, ReplicaIdentity, Seq, Snapshot, Timestamp, Transaction, Xid,
};
use walcast_policy::Rights;
use walcast_protocol::{ClientMessage, ServerMessage};
use walcast_snapshot::{FoundRows, Key, SnapshotEvent, SnapshotTable};

use crate::acks::{ClientPositions, Position};
use crate::catalog::Catalog;
use crate::encode::Frame;
use crate::gate::Gate;
use crate::limits::Limits;
use crate::lineage::Lineage;
use crate::past::{Away, InitialSync, KnownTable, PastPages, Unanswered};
use crate::reach::{Reach, Reached};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::router::Router;
use crate::scans::Scans;
use crate::session::{Answer, Folded, Question, Session, Step, Wait, World};
use crate::turns::Applicant;
use crate::wanted::{ShapeKey, Wanted};

pub(crate) fn at(lsn: u64) -> Cursor {
    Lsn::new(lsn).into()
}

pub(crate) fn inside(lsn: u64, seq: i64) -> Cursor {
    Cursor::new(Lsn::new(lsn), Seq::new(seq))
}

/// `public.<table>` with a key column `id` and these others.
pub(crate) fn table(table: &str, columns: &[&str]) -> Arc<Relation> {
    let column = |name: &str, key| Column {
        name: name.into(),
        type_name: "text".into(),
        type_oid: Oid::new(25),
        key,
        nullable: !key,
    };
    let mut all = vec![column("id", true)];
    all.extend(columns.iter().map(|name| column(name, false)));
    let oid = Oid::new(table.bytes().map(u32::from).sum());
    Arc::new(Relation::new(oid, RelationName::new("public", table), ReplicaIdentity::Default, all))
}

/// The same table with `REPLICA IDENTITY FULL`.
pub(crate) fn full(relation: &Relation) -> Arc<Relation> {
    let (oid, name, columns) = (relation.oid(), relation.name().clone(), relation.columns().to_vec());
    Arc::new(Relation::new(oid, name, ReplicaIdentity::Full, columns))
}

/// The same table under another name.
pub(crate) fn called(relation: &Relation, table: &str) -> Arc<Relation> {
    let name = RelationName::new("public", table);
    Arc::new(Relation::new(relation.oid(), name, relation.identity(), relation.columns().to_vec()))
}

/// An insert of row `id` into a table, its other columns being strings.
#[derive(Clone, Debug)]
pub(crate) struct Insert(pub(crate) u64, pub(crate) Arc<Relation>);

/// A change by its JSON texts; those that are empty are left out.
#[derive(Clone, Debug)]
pub(crate) struct Write(pub(crate) Op, pub(crate) Arc<Relation>, pub(crate) [&'static str; 3]);

/// A whole transaction of changes, each with its key, row and old row.
pub(crate) fn written(start: u64, end: u64, writes: &[Write]) -> Part {
    let mut builder = PartBuilder::new(transaction(start, start), Seq::FIRST);
    for Write(op, relation, [key, row, old]) in writes {
        let mut change = builder.change(*op, relation);
        let write = |text: &'static str| {
            move |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        if !key.is_empty() {
            let Ok(()) = change.key(write(key));
        }
        if !row.is_empty() {
            let Ok(()) = change.row(write(row));
        }
        if !old.is_empty() {
            let Ok(()) = change.old(write(old));
        }
        change.finish().expect("a whole change");
    }
    builder.finish(Some(CommitEnd::new(Lsn::new(end))))
}

pub(crate) fn transaction(start: u64, xid: u64) -> Arc<Transaction> {
    let start = CommitStart::new(Lsn::new(start));
    Arc::new(Transaction { start, xid: Xid::new(xid), committed_at: Timestamp::default() })
}

/// A part of the transaction whose commit record starts at `start`, with xid `start`.
pub(crate) fn part(start: u64, first: i64, inserts: &[Insert], end: Option<u64>) -> Part {
    filled(PartBuilder::new(transaction(start, start), Seq::new(first)), inserts, end)
}

/// A transaction that says where it comes from.
pub(crate) fn part_from(origin: &str, start: u64, inserts: &[Insert], end: u64) -> Part {
    let meta = Meta::parse(format!("{{\"origin\":\"{origin}\"}}").as_bytes()).unwrap();
    let builder = PartBuilder::new(transaction(start, start), Seq::FIRST).with_meta(Some(Arc::new(meta)));
    filled(builder, inserts, Some(end))
}

fn filled(mut builder: PartBuilder, inserts: &[Insert], end: Option<u64>) -> Part {
    for Insert(id, relation) in inserts {
        let mut change = builder.change(Op::Insert, relation);
        let write = |text: String| {
            move |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        };
        let rest: String =
            relation.columns().iter().skip(1).map(|column| format!(",{:?}:\"v{id}\"", column.name)).collect();
        let Ok(()) = change.key(write(format!("{{\"id\":{id}}}")));
        let Ok(()) = change.row(write(format!("{{\"id\":{id}{rest}}}")));
        change.finish().unwrap();
    }
    builder.finish(end.map(|end| CommitEnd::new(Lsn::new(end))))
}

/// The changes of `part` from `from` on, `count` of them at most, as a part of its own.
pub(crate) fn slice(part: &Part, from: Cursor, count: usize) -> Option<Part> {
    let lsn = part.transaction().start.lsn();
    let cursor_of = |index: usize| Cursor::new(lsn, part.first().plus(index));
    let skip = (0..part.changes().len()).find(|index| cursor_of(*index) >= from)?;
    let end = (skip + count).min(part.changes().len());
    let mut builder = PartBuilder::new(Arc::clone(part.transaction()), part.first().plus(skip))
        .with_meta(part.meta().cloned());
    for change in part.changes().get(skip..end)? {
        let mut copy = builder.change(change.op, &change.relation);
        let write = |text: Vec<u8>| {
            move |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
                out.extend_from_slice(&text);
                Ok(())
            }
        };
        if let Some(key) = part.key(change) {
            let Ok(()) = copy.key(write(key.to_vec()));
        }
        if let Some(row) = part.row(change) {
            let Ok(()) = copy.row(write(row.to_vec()));
        }
        if let Some(old) = part.old(change) {
            let Ok(()) = copy.old(write(old.to_vec()));
        }
        copy.finish().unwrap();
    }
    Some(builder.finish(part.end().filter(|_| end == part.changes().len())))
}

/// A history in memory.
#[derive(Debug, Default)]
pub(crate) struct FakePast {
    pub(crate) parts: Mutex<Vec<Part>>,
    pub(crate) oldest: Cursor,
    /// Changes in a page.
    pub(crate) page_changes: usize,
    /// What was searched for definitions.
    pub(crate) searched: Mutex<Vec<(Cursor, Cursor)>>,
    /// While it is set a search does not end.
    pub(crate) hangs: watch::Sender<bool>,
    /// Searches are given up.
    pub(crate) gives_up: AtomicBool,
    pub(crate) is_away: AtomicBool,
}

impl FakePast {
    /// The same once more.
    pub(crate) fn copy(&self) -> Arc<Self> {
        let parts = Mutex::new(self.parts.lock().unwrap().clone());
        let (oldest, page_changes) = (self.oldest, self.page_changes);
        Arc::new(Self { parts, oldest, page_changes, ..Self::default() })
    }

    pub(crate) fn read(&self, from: Cursor, to: Cursor) -> Page {
        let mut left = self.page_changes.max(1);
        let mut page = Vec::new();
        for part in &*self.parts.lock().unwrap() {
            if part.next_cursor() <= from || part.cursor() >= to {
                continue;
            }
            let Some(part) = slice(part, from, left) else { continue };
            left -= part.changes().len();
            let next = part.next_cursor();
            page.push(part);
            if left == 0 {
                return Page { parts: page, next };
            }
        }
        Page { parts: page, next: to }
    }

    fn definitions_met(&self) -> Vec<Arc<Relation>> {
        let parts = self.parts.lock().unwrap();
        parts.iter().flat_map(Part::changes).map(|change| Arc::clone(&change.relation)).collect()
    }

    fn find_without(&self, definitions: &[RelationDigest], from: Cursor, to: Cursor) -> Cursor {
        let (mut first, mut last) = (from, None);
        for part in &*self.parts.lock().unwrap() {
            let start = part.transaction().start.lsn();
            let has_one = part.changes().iter().enumerate().any(|(index, change)| {
                let at = Cursor::new(start, part.first().plus(index));
                at >= from && at < to && definitions.contains(&change.relation.digest())
            });
            if has_one || last == Some(start) {
                (first, last) = (part.next_cursor(), Some(start));
            }
        }
        first
    }

    fn there(&self) -> Result<(), Unanswered> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(Unanswered::Later(Away::history(&walcast_history::Error::SchemaMissing))),
            false => Ok(()),
        }
    }

    fn find_invisible(&self, snapshot: &Snapshot, before: Cursor) -> Option<Cursor> {
        let parts = self.parts.lock().unwrap();
        let unseen = parts.iter().filter(|part| !snapshot.sees(part.transaction().xid));
        unseen.map(Part::cursor).find(|cursor| *cursor < before)
    }
}

impl PastPages for FakePast {
    fn page(&self, from: Cursor, to: Cursor, _: PageLimits) -> BoxFuture<'_, Result<Page, Unanswered>> {
        std::future::ready(self.there().map(|()| self.read(from, to))).boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Cursor, Unanswered>> {
        std::future::ready(self.there().map(|()| self.oldest)).boxed()
    }

    fn definitions(&self) -> BoxFuture<'_, Result<Vec<Arc<Relation>>, Unanswered>> {
        std::future::ready(Ok(self.definitions_met())).boxed()
    }

    fn first_without<'a>(
        &'a self,
        definitions: &'a [RelationDigest],
        from: Cursor,
        to: Cursor,
    ) -> BoxFuture<'a, Result<Without, Unanswered>> {
        self.searched.lock().unwrap().push((from, to));
        async move {
            let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
            Ok(match self.gives_up.load(Ordering::Relaxed) {
                true => Without::GivenUp(to),
                false => Without::From(self.find_without(definitions, from, to)),
            })
        }
        .boxed()
    }

    fn first_invisible<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        before: Cursor,
    ) -> BoxFuture<'a, Result<Option<Cursor>, Unanswered>> {
        std::future::ready(self.there().map(|()| self.find_invisible(snapshot, before))).boxed()
    }
}

/// A source that says what it was told to say.
#[derive(Debug, Default)]
pub(crate) struct FakeSource {
    pub(crate) tables: Mutex<Vec<KnownTable>>,
    pub(crate) events: Mutex<Vec<SnapshotEvent>>,
    /// What the first initial syncs say instead of `events`.
    pub(crate) before: Mutex<VecDeque<Vec<SnapshotEvent>>>,
    /// The tables as they are defined, the newest of a name last.
    pub(crate) defined: Mutex<Vec<Arc<Relation>>>,
    /// What it has of rows by key; nothing is answered while that is not known.
    pub(crate) found: Mutex<Option<FoundRows>>,
    /// How often it was asked for rows by key.
    pub(crate) looked: AtomicUsize,
    /// How often it was asked for a table by its name.
    pub(crate) named: AtomicUsize,
    /// How often it was asked about the definition of a change.
    pub(crate) asked: AtomicUsize,
}

/// A table as filters are bound to it, in a database with the collation C.
pub(crate) fn schema(relation: Arc<Relation>) -> Arc<Schema> {
    let columns: Vec<String> = relation.columns().iter().map(|column| column.name.clone()).collect();
    let builder = Schema::builder(relation).with_database(Collation::C, true);
    let known =
        columns.into_iter().fold(builder, |schema, column| schema.with_collation(column, Collation::C));
    Arc::new(known.build())
}

impl FakeSource {
    /// The same tables once more.
    pub(crate) fn copy(&self) -> Arc<Self> {
        let tables = Mutex::new(self.tables.lock().unwrap().clone());
        let defined = Mutex::new(self.defined.lock().unwrap().clone());
        Arc::new(Self { tables, defined, ..Self::default() })
    }

    fn script(&self) -> Vec<SnapshotEvent> {
        let before = self.before.lock().unwrap().pop_front();
        before.unwrap_or_else(|| self.events.lock().unwrap().clone())
    }
}

pub(crate) fn published(table: &Relation) -> KnownTable {
    KnownTable {
        name: table.name().clone(),
        oid: table.oid(),
        columns: table.columns().iter().map(|column| column.name.clone()).collect(),
    }
}

impl InitialSync for FakeSource {
    fn published(&self) -> BoxFuture<'_, Result<Vec<KnownTable>, Unanswered>> {
        std::future::ready(Ok(self.tables.lock().unwrap().clone())).boxed()
    }

    fn schema<'a>(&'a self, name: &'a RelationName) -> BoxFuture<'a, Result<Option<Schema>, Unanswered>> {
        self.named.fetch_add(1, Ordering::Relaxed);
        let relation = self.defined.lock().unwrap().iter().rev().find(|known| known.name() == name).cloned();
        std::future::ready(Ok(relation.map(|relation| Schema::clone(&schema(relation))))).boxed()
    }

    fn schema_of(&self, relation: Arc<Relation>) -> BoxFuture<'_, Result<Schema, Unanswered>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Schema::clone(&schema(relation)))).boxed()
    }

    fn rows<'a>(
        &'a self,
        _: &'a SnapshotTable,
        _: &'a [Key],
    ) -> BoxFuture<'a, Result<FoundRows, Unanswered>> {
        self.looked.fetch_add(1, Ordering::Relaxed);
        match self.found.lock().unwrap().clone() {
            Some(found) => std::future::ready(Ok(found)).boxed(),
            None => std::future::pending().boxed(),
        }
    }

    fn run(
        &self,
        _: Vec<SnapshotTable>,
        events: mpsc::Sender<SnapshotEvent>,
    ) -> BoxFuture<'_, Result<(), Unanswered>> {
        async move {
            let script = self.script();
            for event in script {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
            // A source that has not said `Done` is still at it.
            events.closed().await;
            Ok(())
        }
        .boxed()
    }
}

/// What clients acknowledged, in memory. A client that is called `poison` can never be stored.
#[derive(Debug, Default)]
pub(crate) struct FakeClients {
    kept: Mutex<HashMap<ClientKey, KnownClient>>,
    writes: AtomicUsize,
    is_away: AtomicBool,
    /// While it is set what is stored is not confirmed; then the connection breaks.
    hangs: watch::Sender<bool>,
}

impl FakeClients {
    pub(crate) fn get(&self, key: &ClientKey) -> Option<Cursor> {
        self.kept.lock().unwrap().get(key).map(|known| known.cursor)
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn go_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    pub(crate) fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    fn there(&self) -> Result<(), Unanswered> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(Unanswered::Later(Away::source("away"))),
            false => Ok(()),
        }
    }
}

impl ClientPositions for FakeClients {
    fn store<'a>(&'a self, batch: &'a [Acknowledged]) -> BoxFuture<'a, Result<Vec<usize>, Unanswered>> {
        async move {
            self.there()?;
            if batch.iter().any(|one| one.key.name.client_id == "poison") {
                return Err(Unanswered::Never(Refusal::bad("poison")));
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
            {
                let mut kept = self.kept.lock().unwrap();
                for one in batch {
                    let known = kept.get(&one.key);
                    if !one.adds && known.is_none() {
                        continue;
                    }
                    let former = known.and_then(|known| known.rights.clone());
                    let known = KnownClient {
                        key: one.key.clone(),
                        feed: "f_1".parse().unwrap(),
                        cursor: one.cursor,
                        tables: one.tables.clone(),
                        seen_at: Timestamp::default(),
                        rights: if one.adds { one.rights.clone() } else { one.rights.clone().or(former) },
                    };
                    kept.insert(one.key.clone(), known);
                }
            }
            if *self.hangs.borrow() {
                self.hangs.subscribe().wait_for(|hangs| !hangs).await.unwrap();
                return Err(Unanswered::Later(Away::source("the connection broke")));
            }
            Ok(Vec::new())
        }
        .boxed()
    }

    fn position<'a>(&'a self, key: &'a ClientKey) -> BoxFuture<'a, Result<Option<KnownClient>, Unanswered>> {
        async move {
            self.there()?;
            Ok(self.kept.lock().unwrap().get(key).cloned())
        }
        .boxed()
    }

    fn of_user<'a>(
        &'a self,
        user: &'a str,
        count_max: usize,
    ) -> BoxFuture<'a, Result<Vec<KnownClient>, Unanswered>> {
        let kept = self.kept.lock().unwrap();
        let of_user = kept.values().filter(|known| known.key.name.user == user).take(count_max);
        std::future::ready(Ok(of_user.cloned().collect())).boxed()
    }

    fn upkeep<'a>(&'a self, _: &'a [ClientKey]) -> BoxFuture<'a, Result<(), Unanswered>> {
        std::future::ready(Ok(())).boxed()
    }

    fn expiry(&self) -> Duration {
        Duration::from_secs(86_400)
    }
}

/// A feed with everything around it, driven by hand.
pub(crate) struct Bench {
    pub(crate) writer: FeedWriter,
    pub(crate) world: Arc<World>,
    pub(crate) past: FakePast,
    pub(crate) source: FakeSource,
    /// What every client has acknowledged.
    pub(crate) acked: Option<Position>,
}

impl Bench {
    /// An empty log from position 1 on, with the gate open and tables `a`, `b` and `c`.
    pub(crate) fn new(memory_bytes_max: usize, limits: Limits) -> Self {
        let (writer, feed) = Feed::new(at(1), FeedLimits { memory_bytes_max });
        let gate = Gate::closed();
        gate.open();
        let router = Router::new(feed.clone(), limits);
        let (feed_id, lineage) = ("f_1".parse().unwrap(), Lineage::default());
        let scans = Scans::new(limits.scans_per_user_max);
        let world = World { feed_id, lineage, feed, gate, router, scans, limits };
        let past = FakePast { oldest: at(1), page_changes: 3, ..FakePast::default() };
        let source = FakeSource::default();
        let tables = ["a", "b", "c"].map(|name| table(name, &["x", "y"]));
        source.tables.lock().unwrap().extend(tables.iter().map(|table| published(table)));
        source.defined.lock().unwrap().extend(tables);
        Self { writer, world: Arc::new(world), past, source, acked: None }
    }

    /// Appends parts, and has history store all but the last `unstored` of all.
    pub(crate) async fn append(&mut self, parts: Vec<Part>, unstored: usize) {
        for part in parts {
            self.past.parts.lock().unwrap().push(part.clone());
            let stored = {
                let parts = self.past.parts.lock().unwrap();
                (parts.len() - 1)
                    .checked_sub(unstored)
                    .and_then(|last| parts.get(last))
                    .map(Part::next_cursor)
            };
            self.writer.push(vec![part]).await;
            if let Some(stored) = stored {
                self.world.feed.mark_stored(stored);
            }
        }
    }

    /// Has the router look at what is new.
    pub(crate) fn route(&self) {
        let router = &self.world.router;
        loop {
            let from = router.seen();
            match self.world.feed.read(from, 1) {
                Read::Parts { parts, next } => router.route(&parts, next),
                Read::AtHead { head } if head > from => router.route(&[], head),
                Read::AtHead { .. } => return,
                Read::Behind { oldest } => router.overtaken(oldest),
            }
        }
    }

    pub(crate) fn session(&self, fields: &str) -> Result<Session, Refusal> {
        self.session_with(fields, &Rights::Everything)
    }

    pub(crate) fn session_with(&self, fields: &str, rights: &Rights) -> Result<Session, Refusal> {
        Session::new(request(fields)?, rights, Applicant::Connection(0), Arc::clone(&self.world))
    }

    /// Takes all messages that the session has, answering its questions; ends when it waits or is over.
    pub(crate) fn take(&self, session: &mut Session) -> (Vec<ServerMessage>, Option<Wait>) {
        let mut messages = Vec::new();
        let mut events = self.source.events.lock().unwrap().clone().into_iter();
        loop {
            match session.next() {
                Step::Frame(frame) => messages.push(decode(&frame)),
                Step::Over => return (messages, None),
                Step::Wait(Wait::Sync) => match events.next() {
                    Some(event) => session.answer(Answer::Sync(Ok(event))),
                    None => return (messages, Some(Wait::Sync)),
                },
                Step::Wait(wait) => return (messages, Some(wait)),
                Step::Sync(_) => events = self.source.script().into_iter(),
                Step::Ask(question) => match question {
                    Question::Acked => session.answer(Answer::Acked(Ok(self.acked.clone()))),
                    Question::Tables { .. } => {
                        let tables = self.source.tables.lock().unwrap().clone();
                        session.answer(Answer::Tables(Ok(Arc::new(tables))));
                    }
                    Question::Oldest => session.answer(Answer::Oldest(Ok(self.past.oldest))),
                    Question::Page { from, to } => session.answer(Answer::Page(Ok(self.past.read(from, to)))),
                    Question::Latest { from, to } => {
                        let page = LatestPage { page: self.past.read(from, to), is_compacted: false };
                        session.answer(Answer::Latest(Ok(Folded { page, place: None })));
                    }
                    Question::FirstInvisible { snapshot, before } => {
                        let first = self.past.find_invisible(&snapshot, before);
                        session.answer(Answer::FirstInvisible(Ok(first)));
                    }
                    Question::Schemas { tables, .. } => {
                        let defined = self.source.defined.lock().unwrap();
                        let find = |name| defined.iter().rev().find(|known| known.name() == name);
                        let schemas = tables.iter().filter_map(find).cloned().map(schema);
                        session.answer(Answer::Schemas(Ok(schemas.collect())));
                    }
                    Question::Schema { relation, .. } => {
                        session.answer(Answer::Schema(Ok(schema(relation))));
                    }
                    Question::Reach { from } => {
                        let reached = self.reached(session.shape().wanted(), from);
                        session.answer(Answer::Reach(Ok(reached)));
                    }
                },
            }
        }
    }
}

impl Bench {
    /// From where on a subscription can be served.
    fn reached(&self, wanted: &Wanted, from: Cursor) -> Reached {
        let find = || {
            let reach = Reach::new(self.past.copy(), TaskTracker::new());
            let catalog = Catalog::new(self.source.copy());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(reach.first(wanted, from, &self.world.feed, &catalog)).unwrap()
        };
        // Searches are tasks, and its caller is one.
        std::thread::scope(|scope| scope.spawn(find).join()).unwrap()
    }
}

pub(crate) fn request(fields: &str) -> Result<Request, Refusal> {
    let text = format!(r#"{{"type":"subscribe","id":"s",{fields}}}"#);
    let ClientMessage::Subscribe(message) = ClientMessage::decode(&text).unwrap() else { panic!("{text}") };
    message.try_into()
}

/// What a request comes to for a client that may have everything.
pub(crate) fn key(fields: &str) -> ShapeKey {
    ShapeKey::resolve(&request(fields).unwrap().tables, &Rights::Everything).unwrap()
}

/// The message in a frame: what is written must be what the protocol's types read.
pub(crate) fn decode(frame: &Frame) -> ServerMessage {
    let text = String::from_utf8([frame.head.as_ref(), frame.tail.as_ref()].concat()).unwrap();
    ServerMessage::decode(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Short forms of messages, for tests that look at a sequence of them.
pub(crate) fn words(messages: &[ServerMessage]) -> Vec<String> {
    messages.iter().map(word).collect()
}

pub(crate) fn word(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Subscribed(m) => format!("subscribed {:?} {}", m.mode, m.cursor),
        ServerMessage::Relation(m) => {
            let columns: Vec<&str> = m.columns.iter().map(|column| column.name.as_str()).collect();
            format!("relation {} {}", m.table.table, columns.join(","))
        }
        ServerMessage::Transaction(m) => {
            let ids: Vec<&str> =
                m.changes.iter().map(|change| change.row.as_ref().map_or("-", |row| row.get())).collect();
            let cursor = m.cursor.map_or("-".to_owned(), |cursor| cursor.to_string());
            format!("transaction {cursor} {}{}", ids.join(" "), if m.more { " more" } else { "" })
        }
        ServerMessage::Snapshot(m) => {
            let rows: Vec<&str> = m.rows.iter().map(|row| row.get()).collect();
            format!("snapshot {} {}", m.table.table, rows.join(" "))
        }
        ServerMessage::SnapshotComplete(m) => format!("complete {}", m.cursor),
        ServerMessage::CaughtUp(m) => format!("caught_up {}", m.cursor),
        ServerMessage::Error(m) => format!("error {}", m.code),
        other => other.type_name().to_owned(),
    }
}
