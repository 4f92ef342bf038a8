//! A client: the real session, driven as its connection would, and what becomes of it when the connection goes.

use std::collections::VecDeque;
use std::sync::Arc;

use walcast_history::Page;
use walcast_model::{Column, Cursor, Oid, Relation, RelationName, ReplicaIdentity, Snapshot};
use walcast_policy::Rights;
use walcast_protocol::{ErrorCode, ServerMessage};
use walcast_snapshot::SnapshotEvent;

use super::daemon::Daemon;
use super::source::{Definition, Source};
use super::store::{Store, at};
use super::told::{Rows, Seam, Stored, Told};
use super::wire::{INT4, TEXT};
use crate::past::KnownTable;
use crate::reach::Reached;
use crate::refusal::Refusal;
use crate::session::{Answer, Question, Session, Step, Wait};
use crate::testing::{decode, request, schema};
use crate::turns::Applicant;

/// An initial sync of a session, at the source.
#[derive(Debug)]
enum Sync {
    Begin,
    Rows { events: VecDeque<SnapshotEvent>, snapshot: Snapshot, tables: Tables },
    Barrier { id: String, snapshot: Snapshot, tables: Tables },
}

struct Connected {
    session: Session,
    told: Told,
    wait: Option<Wait>,
    question: Option<Question>,
    sync: Option<(Vec<RelationName>, Sync)>,
    barrier: Option<String>,
}

#[derive(Default)]
pub(super) struct Client {
    connected: Option<Connected>,
    names: Option<Vec<String>>,
    /// The rows that it asks for, where it names tables.
    rows: Rows,
    stored: Option<Stored>,
    barriers: u32,
    pub(super) counts: Counts,
}

/// What happened, so that a run can say what it has tried.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) pages: u64,
    pub(super) resumed: u64,
    pub(super) synced: u64,
    pub(super) too_old: u64,
    pub(super) refused: u64,
}

/// What clients ask for.
const SHAPES: [Option<&[&str]>; 6] =
    [None, Some(&["a"]), Some(&["b"]), Some(&["a", "b"]), Some(&["c", "d"]), None];

impl Client {
    pub(super) fn leave(&mut self) -> bool {
        let Some(connected) = self.connected.take() else { return false };
        self.stored = connected.told.stored;
        true
    }

    /// Connects, and asks for what it is owed, or for something else when it has nothing.
    pub(super) fn subscribe(
        &mut self,
        number: usize,
        daemon: &Daemon,
        source: &mut Source,
        a: u32,
        b: u32,
    ) -> bool {
        if self.connected.is_some() {
            return false;
        }
        let cursor = match &self.stored {
            Some(stored) => stored.cursor.to_string(),
            None => {
                self.names = SHAPES[a as usize % SHAPES.len()]
                    .map(|names| names.iter().map(|name| (*name).to_owned()).collect());
                self.rows = Rows::ALL[b as usize / 4 % Rows::ALL.len()];
                let somewhere = at(u64::from(b) * 31 % (source.wal_end + 1));
                match a / 8 % 5 {
                    0 => "latest".to_owned(),
                    1 if somewhere > Cursor::ZERO => somewhere.to_string(),
                    2 => {
                        let log = source.log();
                        let chosen = log.get(b as usize % log.len().max(1));
                        chosen.map_or("latest".to_owned(), |logged| logged.at.to_string())
                    }
                    _ => "0/0".to_owned(),
                }
            }
        };
        let rows = self.rows;
        let entry = |name: &str| format!(r#"{{"table":"{name}"}}"#);
        let filtered = |name: &str| format!(r#"{{"table":"public.{name}"{}}}"#, rows.filter());
        let tables = match &self.names {
            None => entry(if (a / 64).is_multiple_of(2) { "*" } else { "public.*" }),
            Some(names) => names.iter().map(|name| filtered(name)).collect::<Vec<_>>().join(","),
        };
        let asked = request(&format!(r#""tables":[{tables}],"cursor":"{cursor}""#)).unwrap();
        let session =
            Session::new(asked, &Rights::Everything, Applicant::Connection(0), Arc::clone(&daemon.world))
                .unwrap();
        self.barriers += 1;
        self.counts.resumed += u64::from(self.stored.is_some());
        let told = Told::new(self.names.clone(), self.rows, self.stored.take(), source.wal_end);
        let barrier = Some(format!("client {number} {}", self.barriers));
        source.barrier(barrier.clone().unwrap_or_default());
        self.connected = Some(Connected { session, told, wait: None, question: None, sync: None, barrier });
        true
    }

    /// Takes some messages, storing the cursors of those that `stores` has a bit for.
    pub(super) fn take(
        &mut self,
        daemon: &Daemon,
        source: &Source,
        store: &Store,
        count: usize,
        stores: u32,
    ) -> Result<bool, String> {
        let mut did = false;
        for index in 0..count {
            let Some(connected) = &mut self.connected else { return Ok(did) };
            if connected.wait.is_some_and(|wait| connected.is_blocked(wait, daemon)) {
                return Ok(did);
            }
            did = true;
            match connected.session.next() {
                Step::Frame(frame) => {
                    self.counts.frames += 1;
                    let message = decode(&frame);
                    if let ServerMessage::Error(error) = message {
                        self.refused(&error.code, store)?;
                        continue;
                    }
                    self.counts.synced += u64::from(matches!(message, ServerMessage::SnapshotComplete(_)));
                    connected.told.hear(message, source, stores >> (index % 32) & 1 == 1)?;
                }
                Step::Sync(tables) => connected.sync = Some((tables, Sync::Begin)),
                Step::Ask(question) => connected.question = Some(question),
                Step::Wait(wait) => connected.wait = Some(wait),
                Step::Over => return Err("over without a word".into()),
            }
        }
        Ok(did)
    }

    /// The subscription is over. Whether that may be is for the store to say.
    fn refused(&mut self, code: &ErrorCode, store: &Store) -> Result<(), String> {
        let Some(connected) = self.connected.take() else { return Ok(()) };
        self.stored = connected.told.stored.clone();
        match code {
            ErrorCode::CursorTooOld => {
                self.counts.too_old += 1;
                let position = self.stored.take().map_or(connected.told.next(), |stored| stored.cursor);
                let position = position.max(connected.told.next());
                if position >= store.oldest {
                    return Err(format!(
                        "{position} is too old, and history reaches back to {}",
                        store.oldest
                    ));
                }
            }
            // A table that has another name now, and a history that is gone.
            ErrorCode::UnknownTable | ErrorCode::NotReady => {
                self.counts.refused += 1;
                self.stored = None;
            }
            other => return Err(format!("refused: {other}")),
        }
        Ok(())
    }

    /// Answers the question that the session has.
    pub(super) fn answer(&mut self, daemon: &Daemon, source: &Source, store: &Store, a: u32) -> bool {
        let Some(connected) = &mut self.connected else { return false };
        let Some(question) = connected.question.clone() else { return false };
        let answer = match question {
            // Its clients store their cursors themselves.
            Question::Acked => Answer::Acked(Ok(None)),
            Question::Tables { now: false } if !daemon.is_linked() => {
                Answer::Tables(Err(Refusal::bad("the published tables are not known now")))
            }
            Question::Tables { .. } => Answer::Tables(Ok(Arc::new(published(source)))),
            Question::Schemas { insist: false, .. } if !daemon.is_linked() => {
                Answer::Schemas(Err(Refusal::bad("the tables are not known now")))
            }
            Question::Schemas { tables, .. } => {
                let find =
                    |name: &RelationName| source.tables().iter().find(|table| table.name == name.table);
                let schemas = tables.iter().filter_map(find).map(|table| schema(relation(table)));
                Answer::Schemas(Ok(schemas.collect()))
            }
            Question::Schema { relation, .. } => Answer::Schema(Ok(schema(relation))),
            _ if store.is_away => return false,
            Question::Reach { from } => Answer::Reach(Ok(Reached::From(from))),
            Question::Oldest => Answer::Oldest(Ok(store.oldest)),
            Question::Page { from, to } => {
                self.counts.pages += 1;
                let page: Option<Page> = store.page(from, to, 1 + a as usize % 7);
                Answer::Page(page.ok_or_else(|| Refusal::too_old(from, store.oldest)))
            }
            Question::FirstInvisible { snapshot, before } => {
                let first = store.first_invisible(&snapshot, before);
                Answer::FirstInvisible(first.ok_or_else(|| Refusal::outlived("history let go of it")))
            }
            // Nobody here asks for a compacted catch-up.
            Question::Latest { .. } => return false,
        };
        connected.question = None;
        connected.wait = None;
        connected.session.answer(answer);
        true
    }

    /// The next event of the session's initial sync, or the barrier at its end.
    pub(super) fn sync(&mut self, number: usize, daemon: &Daemon, source: &mut Source, a: u32) -> bool {
        let Some(connected) = &mut self.connected else { return false };
        let Some((tables, sync)) = &mut connected.sync else { return false };
        if connected.wait != Some(Wait::Sync) {
            return false;
        }
        let told = &mut connected.told;
        let event = match sync {
            Sync::Begin => match read(source, tables, told.rows()) {
                Ok((events, tables)) => {
                    if let Some(copy) = &mut told.copy {
                        copy.oids = tables.iter().cloned().collect();
                    }
                    *sync = Sync::Rows { events, snapshot: source.snapshot(), tables };
                    return true;
                }
                Err(refusal) => Err(refusal),
            },
            Sync::Rows { .. } if a.is_multiple_of(29) => {
                *sync = Sync::Begin;
                Ok(SnapshotEvent::Restarted)
            }
            Sync::Rows { events, snapshot, tables } => match events.pop_front() {
                Some(event) => Ok(event),
                None => {
                    self.barriers += 1;
                    let id = format!("sync {number} {}", self.barriers);
                    source.barrier(id.clone());
                    *sync = Sync::Barrier { id, snapshot: snapshot.clone(), tables: tables.clone() };
                    return true;
                }
            },
            Sync::Barrier { id, snapshot, tables } => {
                let Some(&barrier) = daemon.barriers.get(id) else { return false };
                told.seam = Some(Seam { snapshot: snapshot.clone(), barrier, tables: tables.clone() });
                Ok(SnapshotEvent::Done { snapshot: snapshot.clone(), barrier })
            }
        };
        if matches!(event, Err(_) | Ok(SnapshotEvent::Done { .. })) {
            connected.sync = None;
        }
        connected.wait = None;
        connected.session.answer(Answer::Sync(event));
        true
    }

    /// Hands in the barrier when it is back.
    pub(super) fn barrier(&mut self, daemon: &Daemon) -> bool {
        let Some(connected) = &mut self.connected else { return false };
        let back = connected.barrier.as_ref().and_then(|id| daemon.barriers.get(id));
        let Some(&position) = back else { return false };
        connected.barrier = None;
        connected.wait = None;
        connected.session.barrier(position);
        true
    }

    /// Its connection waits for it for so long that what was read for it is let go.
    pub(super) fn let_go(&mut self) {
        let Some(connected) = &mut self.connected else { return };
        if connected.session.let_go() {
            connected.question = None;
            connected.wait = None;
        }
    }

    pub(super) fn heartbeat(&mut self, source: &Source, a: u32) -> Result<(), String> {
        let Some(connected) = &mut self.connected else { return Ok(()) };
        let position = connected.session.position();
        if let Some(cursor) = position.filter(|cursor| *cursor >= connected.session.last_cursor()) {
            connected.session.cursor_told(cursor);
            connected.told.heartbeat(cursor, source, a.is_multiple_of(2))?;
        }
        Ok(())
    }

    /// Whether a copy was compared.
    pub(super) fn check_end(&self, source: &Source) -> Result<bool, String> {
        let Some(connected) = &self.connected else { return Err("it is not connected".into()) };
        connected.told.check_end(source).map_err(|error| format!("{error}; {:?}", connected.session))
    }
}

impl Connected {
    fn is_blocked(&self, wait: Wait, daemon: &Daemon) -> bool {
        let world = &daemon.world;
        match wait {
            Wait::Gate => !world.gate.is_open(),
            // Whoever hands in what it waits for wakes it.
            Wait::Answer | Wait::Sync => true,
            Wait::Head(cursor) => world.feed.head() < cursor,
            Wait::Shape(cursor) => self.session.shape().concerned() <= cursor,
            Wait::Seen(cursor) => world.router.seen() <= cursor,
        }
    }
}

fn published(source: &Source) -> Vec<KnownTable> {
    let known = |table: &Arc<Definition>| KnownTable {
        name: RelationName::new("public", &table.name),
        oid: Oid::new(table.oid),
        columns: table.columns(),
    };
    source.tables().iter().map(known).collect()
}

/// Tables by name.
type Tables = Vec<(String, u32)>;
type Read = (VecDeque<SnapshotEvent>, Tables);

/// The rows of tables as others see them now.
fn read(source: &Source, names: &[RelationName], taken: Rows) -> Result<Read, Refusal> {
    let (mut events, mut oids) = (VecDeque::new(), Vec::new());
    for name in names {
        let table = source.tables().iter().find(|table| table.name == name.table);
        let Some(table) = table else {
            return Err(Refusal::new(ErrorCode::UnknownTable, format!("there is no {name}")));
        };
        oids.push((table.name.clone(), table.oid));
        let relation = relation(table);
        events.push_back(SnapshotEvent::Relation(Arc::clone(&relation)));
        let rows = source.rows(table.oid).filter(|(id, _)| taken.has(*id));
        let rows: Vec<String> = rows.map(|(id, value)| table.row(id, value)).collect();
        for chunk in rows.chunks(2) {
            events.push_back(SnapshotEvent::Progress { done: 1, estimate: 1 });
            let (relation, json) = (Arc::clone(&relation), chunk.join(",").into());
            events.push_back(SnapshotEvent::Rows { relation, json, count: chunk.len() });
        }
    }
    Ok((events, oids))
}

fn relation(table: &Definition) -> Arc<Relation> {
    let column = |(index, name): (usize, String)| {
        let oid = if index == 0 { INT4 } else { TEXT };
        let (type_name, type_oid) = (oid.to_string(), Oid::new(oid));
        Column { name, type_name, type_oid, key: index == 0, nullable: index != 0 }
    };
    let columns = table.columns().into_iter().enumerate().map(column).collect();
    let name = RelationName::new("public", &table.name);
    Arc::new(Relation::new(Oid::new(table.oid), name, ReplicaIdentity::Default, columns))
}
