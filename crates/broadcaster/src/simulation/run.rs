//! One run: the world, and who does what in it.

use super::client::{Client, Counts};
use super::daemon::Daemon;
use super::schedule::{Action, Kind, Schedule};
use super::source::Source;
use super::store::{MovedOn, Store, at};

/// Rounds in which everybody may do what he has to do, at the end. A run needs some dozens.
const ROUNDS_MAX: usize = 5_000;

/// Makes a client that has stored nothing ask for all tables, from nothing.
const EVERYTHING: u32 = 24;

/// What a run has tried.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tried {
    pub(super) actions: u64,
    pub(super) changes: u64,
    pub(super) kills: u64,
    /// Daemons whose record was no longer what they had read when they claimed the feed.
    pub(super) overtaken_starts: u64,
    pub(super) cuts: u64,
    pub(super) overtaken: u64,
    pub(super) copies: u64,
    pub(super) clients: Counts,
}

struct Run {
    source: Source,
    store: Store,
    daemon: Option<Daemon>,
    daemons: u64,
    clients: Vec<Client>,
    tried: Tried,
}

/// Plays a schedule, then lets everything come to rest, and checks that nothing is missing.
pub(super) fn play(schedule: &Schedule) -> Result<Tried, String> {
    let mut run = Run {
        source: Source::new(),
        store: Store::new(at(100)),
        daemon: None,
        daemons: 0,
        clients: (0..schedule.clients).map(|_| Client::default()).collect(),
        tried: Tried::default(),
    };
    for (index, action) in schedule.actions.iter().enumerate() {
        run.start(schedule);
        run.act(*action).map_err(|error| format!("step {index}, {action:?}: {error}"))?;
    }
    run.rest(schedule).map_err(|error| format!("at rest: {error}"))?;
    for client in &run.clients {
        let counts = &mut run.tried.clients;
        counts.frames += client.counts.frames;
        counts.pages += client.counts.pages;
        counts.resumed += client.counts.resumed;
        counts.synced += client.counts.synced;
        counts.too_old += client.counts.too_old;
        counts.refused += client.counts.refused;
    }
    run.tried.actions = schedule.actions.len() as u64;
    run.tried.changes = run.source.log().len() as u64;
    Ok(run.tried)
}

impl Run {
    fn start(&mut self, schedule: &Schedule) {
        if self.daemon.is_none() {
            self.daemons += 1;
            let daemon = Daemon::start(&self.store, &mut self.source, schedule.sizes, self.daemons);
            self.daemon = Some(daemon);
        }
    }

    fn kill(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        if let Some(commit) = daemon.appender.into_commit() {
            self.store.float(commit);
        }
        for client in &mut self.clients {
            client.leave();
        }
        self.tried.kills += 1;
    }

    /// Whether anything was done.
    fn act(&mut self, Action { kind, a, b }: Action) -> Result<bool, String> {
        let Self { source, store, .. } = self;
        match kind {
            Kind::Begin => return Ok(source.begin()),
            Kind::Write => return Ok(source.write(a, b)),
            Kind::Define => return Ok(source.define(a, b)),
            Kind::Commit => return Ok(source.commit(a, b)),
            Kind::Abort => return Ok(source.abort(a)),
            Kind::Appear => return Ok(source.appear(a)),
            Kind::Idle => source.idle(a),
            Kind::Away => store.is_away = !store.is_away && a % 3 != 0,
            Kind::DropOldest => return Ok(store.drop_oldest(a)),
            Kind::Land => return store.land(a, source),
            Kind::Kill => self.kill(),
            Kind::Subscribe | Kind::Take | Kind::Answer | Kind::Sync | Kind::Barrier => {
                return self.client(kind, a, b);
            }
            Kind::Heartbeat | Kind::LetGo | Kind::Leave => return self.client(kind, a, b),
            Kind::Receive | Kind::Keepalive | Kind::Acknowledge | Kind::Cut | Kind::Route => {
                return self.daemon(kind, a);
            }
            Kind::Append | Kind::Settle => return self.daemon(kind, a),
        }
        Ok(true)
    }

    fn daemon(&mut self, kind: Kind, a: u32) -> Result<bool, String> {
        let Self { source, store, daemon: Some(daemon), .. } = self else { return Ok(false) };
        let feed = daemon.world.feed.clone();
        let did = match kind {
            Kind::Receive => daemon.receive(source, 1 + a as usize % 10)?,
            Kind::Keepalive => daemon.keepalive(source, a),
            Kind::Route => {
                let behind = daemon.world.router.seen() < feed.oldest();
                self.tried.overtaken += u64::from(behind);
                daemon.route()
            }
            Kind::Acknowledge => return acknowledge(daemon, source, store),
            Kind::Cut => {
                // A server that crashes may forget what it was told last.
                if a.is_multiple_of(2) && source.confirmed.len() > 1 {
                    source.confirmed.pop();
                }
                self.tried.cuts += 1;
                daemon.cut()
            }
            Kind::Append if !daemon.has_held => false,
            Kind::Append => {
                let bytes = daemon.sizes().append_bytes;
                match daemon.appender.step(store, &feed, a, bytes) {
                    Ok(did) => did,
                    Err(MovedOn) => {
                        self.tried.overtaken_starts += 1;
                        self.kill();
                        return Ok(true);
                    }
                }
            }
            _ => daemon.appender.settle(store, source, &feed, a)?,
        };
        daemon.open_gate();
        Ok(did)
    }

    fn client(&mut self, kind: Kind, a: u32, b: u32) -> Result<bool, String> {
        let Self { source, store, daemon: Some(daemon), clients, .. } = self else { return Ok(false) };
        let number = a as usize % clients.len();
        let (client, a) = (&mut clients[number], a / 4);
        let did = match kind {
            Kind::Subscribe => client.subscribe(number, daemon, source, a, b),
            Kind::Take => client.take(daemon, source, store, 1 + a as usize % 24, b)?,
            Kind::Answer => client.answer(daemon, source, store, a),
            Kind::Sync => client.sync(number, daemon, source, a),
            Kind::Barrier => client.barrier(daemon),
            Kind::Heartbeat => {
                client.heartbeat(source, a)?;
                false
            }
            Kind::LetGo => {
                client.let_go();
                false
            }
            _ => client.leave(),
        };
        Ok(did)
    }

    /// No more faults: everybody does what he has to do until nobody has.
    fn rest(&mut self, schedule: &Schedule) -> Result<(), String> {
        self.store.is_away = false;
        while self.source.commit(0, 1) {}
        let acting =
            [Kind::Appear, Kind::Receive, Kind::Acknowledge, Kind::Route, Kind::Append, Kind::Settle];
        let clients = [Kind::Barrier, Kind::Take, Kind::Answer, Kind::Sync];
        for _ in 0..ROUNDS_MAX {
            self.start(schedule);
            let mut did = false;
            for kind in acting {
                // 3: a commit that succeeds.
                did |= self.act(Action { kind, a: 3, b: 0 })?;
            }
            for number in 0..self.clients.len() {
                if let Self { source, daemon: Some(daemon), clients, .. } = self {
                    did |= clients[number].subscribe(number, daemon, source, EVERYTHING, 0);
                }
                for kind in clients {
                    let a = (number + self.clients.len() * 4) as u32;
                    did |= self.act(Action { kind, a, b: 0 })?;
                }
            }
            if !did {
                return self.check();
            }
        }
        Err("it does not come to rest".into())
    }

    fn check(&mut self) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            let compared =
                client.check_end(&self.source).map_err(|error| format!("client {number}: {error}"))?;
            self.tried.copies += u64::from(compared);
        }
        let last = self.source.log().last().map(|logged| logged.at);
        if last.is_some_and(|last| last >= self.store.position) {
            return Err(format!("history is at {} and not past {last:?}", self.store.position));
        }
        Ok(())
    }
}

/// The slot is told what is durable.
fn acknowledge(daemon: &Daemon, source: &mut Source, store: &Store) -> Result<bool, String> {
    let position = daemon.appender.acknowledged;
    let before = source.confirmed.last().copied().unwrap_or_default();
    if position <= before {
        return Ok(false);
    }
    if at(position) > store.position {
        return Err(format!("{} is acknowledged, and history is at {}", at(position), store.position));
    }
    source.confirmed.push(position);
    Ok(true)
}

impl Tried {
    pub(super) fn add(&mut self, other: Self) {
        for (sum, more) in self.numbers_mut().into_iter().zip(other.numbers()) {
            *sum.1 += more.1;
        }
    }

    fn numbers(mut self) -> [(&'static str, u64); 13] {
        self.numbers_mut().map(|(name, number)| (name, *number))
    }

    const fn numbers_mut(&mut self) -> [(&'static str, &mut u64); 13] {
        let Self { actions, changes, kills, overtaken_starts, cuts, overtaken, copies, clients } = self;
        let Counts { frames, pages, resumed, synced, too_old, refused } = clients;
        [
            ("actions", actions),
            ("changes", changes),
            ("kills", kills),
            ("starts that were overtaken", overtaken_starts),
            ("cuts", cuts),
            ("overtaken", overtaken),
            ("copies compared", copies),
            ("frames", frames),
            ("pages", pages),
            ("resumed", resumed),
            ("initial syncs", synced),
            ("cursors too old", too_old),
            ("refused", refused),
        ]
    }

    /// A simulation in which something never happens does not test it.
    pub(super) fn assert_thorough(self) {
        for (what, count) in self.numbers() {
            assert!(count > 0, "no {what}: the schedules have to be others");
        }
    }
}
