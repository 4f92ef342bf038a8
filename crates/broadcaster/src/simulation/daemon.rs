//! A daemon: the real decoder, assembler, feed and router, and the loops around them, one step at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use walcast_feed::{Feed, FeedLimits, FeedWriter, Read};
use walcast_model::{Cursor, Lsn, Oid, Part, Xid};
use walcast_pgoutput::Decoder;
use walcast_replication::assemble::{
    Assembler, AssemblerSettings, CatalogAnswer, CatalogQuestion, ColumnFacts, RelationFacts, Step,
    StorageFacts,
};

use super::source::{Definition, Source};
use super::store::{Appender, Store};
use super::wire::{INT4, TEXT};
use crate::gate::Gate;
use crate::limits::Limits;
use crate::lineage::Lineage;
use crate::router::Router;
use crate::scans::Scans;
use crate::session::World;

/// The sizes of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) feed_bytes: usize,
    pub(super) part_bytes: usize,
    pub(super) append_bytes: usize,
    pub(super) route_bytes: usize,
    pub(super) limits: Limits,
}

/// What the replicator does with what it has read, in this order.
#[derive(Debug)]
enum Pending {
    Part(Part),
    Reached(Lsn),
    Barrier(String, Cursor),
}

struct Link {
    decoder: Decoder,
    assembler: Assembler,
    told: BTreeMap<u32, Arc<Definition>>,
    /// Transactions before it were sent.
    next: u64,
    messages: VecDeque<Vec<u8>>,
}

pub(super) struct Daemon {
    pub(super) world: Arc<World>,
    pub(super) appender: Appender,
    /// Barriers that came back.
    pub(super) barriers: HashMap<String, Cursor>,
    sizes: Sizes,
    writer: FeedWriter,
    link: Option<Link>,
    /// Whether it has had the slot.
    pub(super) has_held: bool,
    pending: VecDeque<Pending>,
    gate_barrier: String,
}

impl Daemon {
    pub(super) fn start(store: &Store, source: &mut Source, sizes: Sizes, number: u64) -> Self {
        let position = store.position;
        let (writer, feed) = Feed::new(position, FeedLimits { memory_bytes_max: sizes.feed_bytes });
        let router = Router::new(feed.clone(), sizes.limits);
        let gate_barrier = format!("gate {number}");
        source.barrier(gate_barrier.clone());
        let (feed_id, gate) = ("f_1".parse().unwrap(), Gate::closed());
        Self {
            world: Arc::new(World {
                feed_id,
                feed,
                gate,
                router,
                scans: Scans::new(sizes.limits.scans_per_user_max),
                limits: sizes.limits,
                lineage: Lineage::default(),
            }),
            appender: Appender::new(store, number),
            has_held: false,
            barriers: HashMap::new(),
            sizes,
            writer,
            link: None,
            pending: VecDeque::new(),
            gate_barrier,
        }
    }

    pub(super) const fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn cut(&mut self) -> bool {
        self.link.take().is_some()
    }

    /// Reads some messages of the stream, once the feed has taken what was read before.
    pub(super) fn receive(&mut self, source: &Source, count: usize) -> Result<bool, String> {
        if self.drain() || !self.pending.is_empty() {
            return Ok(true);
        }
        let Some(link) = &mut self.link else {
            self.connect(source);
            return Ok(true);
        };
        let mut did = false;
        for _ in 0..count {
            if link.messages.is_empty() {
                let Some(transaction) = source.committed_from(link.next) else { break };
                link.next = transaction.start + 1;
                link.messages.extend(transaction.messages(&mut link.told));
            }
            let Some(message) = link.messages.pop_front() else { break };
            did = true;
            let message = link.decoder.decode(Bytes::from(message)).map_err(|error| error.to_string())?;
            let step = link.assembler.message(message).map_err(|error| error.to_string())?;
            if let Step::NeedsCatalog(question) = step {
                link.assembler.answer(&answer(source, &question));
            }
        }
        self.take();
        self.drain();
        Ok(did)
    }

    fn connect(&mut self, source: &Source) {
        self.has_held = true;
        let head = self.writer.head();
        let settings = AssemblerSettings { part_bytes_max: self.sizes.part_bytes, secret: "secret".into() };
        let confirmed = source.confirmed.last().copied().unwrap_or_default();
        self.link = Some(Link {
            decoder: Decoder::new(),
            assembler: Assembler::new(settings, head, Xid::new(source.next_xid())),
            told: BTreeMap::new(),
            next: confirmed.max(head.lsn().get()),
            messages: VecDeque::new(),
        });
    }

    /// The server says how far it has decoded: truly, or something of the past, or in the middle of a transaction.
    pub(super) fn keepalive(&mut self, source: &Source, a: u32) -> bool {
        let Some(link) = &mut self.link else { return false };
        if !self.pending.is_empty() {
            return false;
        }
        let before = self.writer.head();
        let said = match (link.assembler.in_transaction(), source.committed_from(link.next), a % 2) {
            (true, ..) => link.next + 100,
            (false, None, 0) if link.messages.is_empty() => source.wal_end,
            _ => link.next / 2,
        };
        link.assembler.keepalive(Lsn::new(said));
        self.take();
        self.drain();
        self.writer.head() > before
    }

    fn take(&mut self) {
        let Some(link) = &mut self.link else { return };
        let progress = link.assembler.take();
        self.pending.extend(progress.parts.into_iter().map(Pending::Part));
        self.pending.extend(progress.reached.map(Pending::Reached));
        let barriers = progress.barriers.into_iter();
        self.pending.extend(barriers.map(|(id, position)| Pending::Barrier(id, position)));
    }

    /// Gives the feed what it has room for.
    fn drain(&mut self) -> bool {
        let mut did = false;
        while let Some(pending) = self.pending.pop_front() {
            match pending {
                Pending::Part(part) => {
                    if self.writer.push(vec![part.clone()]).now_or_never().is_none() {
                        self.pending.push_front(Pending::Part(part));
                        return did;
                    }
                }
                Pending::Reached(position) => self.writer.advance(position),
                Pending::Barrier(id, position) => drop(self.barriers.insert(id, position)),
            }
            did = true;
        }
        did
    }

    /// The router looks at the next parts.
    pub(super) fn route(&self) -> bool {
        let (router, feed) = (&self.world.router, &self.world.feed);
        let from = router.seen();
        match feed.read(from, self.sizes.route_bytes) {
            Read::Parts { parts, next } => router.route(&parts, next),
            Read::AtHead { head } if head > from => router.route(&[], head),
            Read::AtHead { .. } => return false,
            Read::Behind { oldest } => router.overtaken(oldest),
        }
        true
    }

    /// Opens the gate once the first barrier is back and everything before it is in history.
    pub(super) fn open_gate(&self) {
        let back = self.barriers.get(&self.gate_barrier);
        if back.is_some_and(|position| self.world.feed.stored() >= *position) {
            self.world.gate.open();
        }
    }

    pub(super) const fn sizes(&self) -> &Sizes {
        &self.sizes
    }
}

/// What the catalog says now, which may be later than what the stream is about.
fn answer(source: &Source, question: &CatalogQuestion) -> CatalogAnswer {
    let table = source.tables().iter().find(|table| Oid::new(table.oid) == question.relation);
    let facts = table.map(|table| {
        let column = |(index, name): (usize, String)| ColumnFacts {
            name,
            type_oid: Oid::new(if index == 0 { INT4 } else { TEXT }),
            not_null: index == 0,
            primary_key: index == 0,
        };
        RelationFacts { columns: table.columns().into_iter().enumerate().map(column).collect() }
    });
    let type_names = question.type_names.iter().map(|(oid, _)| oid.to_string()).collect();
    CatalogAnswer { relation: facts, type_names, storage: StorageFacts::None }
}
