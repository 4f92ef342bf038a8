//! Workloads, faults and the oracle together, until something is found or the time is over.
//!
//! ```text
//! round:  workload + TPC-B ──► faults of the schedule ──► everything whole again, writers stop
//!         ──► every client has come to the end of the ledger ──► copies = tables ──► change_history = what was told
//! ```
//!
//! A round is repeated until the time is over. The seed decides the statements of each writer, the flags of the daemon and
//! the schedule of the faults; the operating system decides how they interleave.

mod idle;
mod report;
mod settle;
mod subscribed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::Installation;
use crate::fault::{ClientFault, Fault, Planned, Schedule, World, WorldSettings};
use crate::oracle::{Audit, Client, ClientBuilder, Command, Storing, Violation, ViolationKind, Witness};
use crate::workload::{Mix, TpcB, TpcBRunner, Workload};
pub use idle::{IdleReport, IdleWatch};
pub use report::SoakReport;

/// What is run.
#[derive(Clone, Debug)]
pub struct Soak {
    /// Decides everything that can be decided.
    pub seed: u64,
    /// No round is begun after it.
    pub time: Duration,
    /// Of the faults of one round.
    pub round: Duration,
    /// No fault lasts longer.
    pub hold_max: Duration,
    /// Postgres.
    pub installation: Installation,
    /// Rows of the largest transaction.
    pub rows_max: u32,
    /// How TPC-B is run.
    pub tpcb: TpcBRunner,
    /// Writers of the generated workload.
    pub writers: usize,
    /// Prints the schedule and the progress.
    pub verbose: bool,
}

impl Soak {
    /// A run of about `time` with a few faults, small transactions and short rounds, for CI.
    #[must_use]
    pub fn short(installation: Installation, seed: u64, time: Duration) -> Self {
        Self {
            seed,
            time,
            round: Duration::from_secs(9),
            hold_max: Duration::from_secs(2),
            installation,
            rows_max: 3000,
            tpcb: TpcBRunner::Sessions(300),
            writers: 4,
            verbose: std::env::var_os("WALCAST_SOAK_VERBOSE").is_some(),
        }
    }

    /// A run of `time` with everything.
    #[must_use]
    pub fn long(installation: Installation, seed: u64, time: Duration) -> Self {
        Self {
            seed,
            time,
            round: Duration::from_secs(45),
            hold_max: Duration::from_secs(9),
            tpcb: TpcBRunner::find(installation.bin_dir()),
            installation,
            rows_max: 1_000_000,
            writers: 5,
            verbose: true,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    ///
    /// The first violation, with the schedule so far and the end of the daemon's log.
    ///
    /// # Panics
    ///
    /// When a server, which is not under test, does not do what it is told.
    pub async fn run(&self) -> Result<SoakReport, String> {
        let mut run = Box::pin(Run::start(self)).await;
        let outcome = Box::pin(run.rounds()).await;
        let log = run.world.daemon().log();
        match outcome {
            Ok(()) => Ok(run.finish()),
            Err(violation) => Err(report::failure(self, &violation, &run.schedule, &log)),
        }
    }
}

/// A run under way.
struct Run<'a> {
    soak: &'a Soak,
    clients: Vec<Client>,
    audit: Audit,
    witness: Witness,
    world: World,
    violations: mpsc::UnboundedReceiver<Violation>,
    mix: Mix,
    /// Every fault so far, with when it came.
    schedule: Vec<String>,
    counts: BTreeMap<String, u64>,
    marks: u32,
    compared: u64,
    log_seen: usize,
    began: Instant,
    rounds: u32,
}

/// What the daemon is told, by the seed.
fn flags(random: &mut StdRng) -> Vec<(&'static str, String)> {
    let one_of =
        |random: &mut StdRng, choices: &[&str]| choices[random.random_range(0..choices.len())].to_owned();
    vec![
        ("--part-bytes", one_of(random, &["1KiB", "4KiB", "64KiB", "1MiB"])),
        ("--feed-memory", one_of(random, &["1MiB", "4MiB", "64MiB"])),
        ("--append-bytes-max", one_of(random, &["16KiB", "1MiB", "8MiB"])),
        ("--append-changes-max", one_of(random, &["500", "20000"])),
        ("--heartbeat", "2s".to_owned()),
        ("--discover-interval", "1s".to_owned()),
        ("--drain-max", "500ms".to_owned()),
        ("--idle-persist-interval", "1s".to_owned()),
        ("--history-partition-wal", "16MiB".to_owned()),
    ]
}

/// The clients: what they subscribe to and what they store.
const CLIENTS: [(&str, &[&str], Storing); 4] = [
    ("all", &["*"], Storing::Transactions),
    ("all, storing parts", &["*"], Storing::Parts),
    (
        "some tables",
        &[
            "public.mark",
            "public.accounts",
            "public.measures_1",
            "public.papers",
            "public.children",
            "public.bulk",
        ],
        Storing::Transactions,
    ),
    ("schema public", &["public.*"], Storing::Parts),
];

impl<'a> Run<'a> {
    async fn start(soak: &'a Soak) -> Self {
        let mut random = StdRng::seed_from_u64(soak.seed);
        let settings = WorldSettings {
            installation: soak.installation.clone(),
            history_apart: random.random_bool(0.8),
            flags: flags(&mut random),
        };
        let mix = Mix::Everything { rows_max: soak.rows_max };
        let about = format!(
            "Postgres {}, seed {}, history {}, {}",
            soak.installation.version(),
            soak.seed,
            if settings.history_apart { "in a cluster of its own" } else { "beside the tables" },
            settings
                .flags
                .iter()
                .take(4)
                .map(|(flag, value)| format!("{flag} {value}"))
                .collect::<Vec<_>>()
                .join(" ")
        );
        if soak.verbose {
            println!("{about}");
        }
        let world = Box::pin(World::start(settings, async |database| {
            mix.create(database, 200).await;
            database.run("CREATE TABLE mark (n int PRIMARY KEY)").await;
            TpcB::create(database, &soak.tpcb).await;
        }))
        .await;
        let name = world.database().slot_name();
        let publications = [name.clone(), format!("{name}_inserts")];
        let publications: Vec<&str> = publications.iter().map(String::as_str).collect();
        let slot = world.database().unique("witness");
        let witness = Witness::start(world.database().url(), &slot, &publications).await;
        let (sender, violations) = mpsc::unbounded_channel();
        let clients = CLIENTS.iter().enumerate().map(|(number, (name, tables, storing))| {
            let builder = ClientBuilder {
                name: format!("client {number} ({name})"),
                url: world.ws_url(),
                tables: tables.iter().map(|table| (*table).to_owned()).collect(),
                storing: *storing,
                seed: soak.seed.wrapping_add(number as u64),
                silence_max: Duration::from_secs(6),
            };
            builder.start(witness.ledger(), sender.clone())
        });
        Self {
            clients: clients.collect(),
            audit: Audit::new(witness.ledger()),
            witness,
            world,
            violations,
            mix,
            schedule: vec![about],
            counts: BTreeMap::new(),
            marks: 0,
            compared: 0,
            log_seen: 0,
            began: Instant::now(),
            rounds: 0,
            soak,
        }
    }

    fn finish(mut self) -> SoakReport {
        SoakReport {
            seed: self.soak.seed,
            time: self.began.elapsed(),
            rounds: self.rounds,
            transactions: self.witness.ledger().len() as u64,
            audited: self.audit.changes(),
            compared: self.compared,
            delivered: self.clients.iter().map(|client| report::Seen::of(client.tally())).collect(),
            faults: self.counts.clone(),
            takeovers: self.world.takeovers(),
            bytes: self.world.bytes_to_clients(),
            peak_memory: self.world.peak_memory(),
            not_exercised: [Fault::ClockStepped, Fault::HistoryDiskFull]
                .into_iter()
                .filter(|fault| !self.world.can(*fault))
                .map(|fault| fault.to_string())
                .collect(),
        }
    }

    fn note(&mut self, what: &str) {
        let line = format!("{:7.1}s {what}", self.began.elapsed().as_secs_f64());
        if self.soak.verbose {
            println!("{line}");
        }
        self.schedule.push(line);
    }

    async fn rounds(&mut self) -> Result<(), Violation> {
        self.settle().await?;
        while self.began.elapsed() < self.soak.time {
            self.rounds += 1;
            Box::pin(self.round()).await?;
        }
        Ok(())
    }

    async fn round(&mut self) -> Result<(), Violation> {
        let seed = self.soak.seed.wrapping_mul(1000).wrapping_add(u64::from(self.rounds));
        let workload = Workload::of(self.mix, self.world.database(), self.soak.writers, seed).await;
        let tpcb = TpcB::start(self.world.database(), &self.soak.tpcb, 2, seed);
        let world = &self.world;
        let schedule = Schedule::new(seed, self.soak.hold_max, |fault| world.can(fault));
        let outcome = Box::pin(self.faults(schedule)).await;
        tpcb.stop().await;
        let committed = workload.stop().await;
        outcome?;
        self.settle().await?;
        self.compare().await?;
        let ledger = self.witness.ledger().len();
        let audited = self.audit.changes();
        let peak = self.world.peak_memory() >> 20;
        self.note(&format!(
            "round {} holds: {committed} transactions of its writers, {ledger} in all, {audited} changes audited, peak RSS {peak} MiB",
            self.rounds
        ));
        Ok(())
    }

    /// Runs faults for the time of a round.
    async fn faults(&mut self, mut schedule: Schedule) -> Result<(), Violation> {
        let began = Instant::now();
        while began.elapsed() < self.soak.round {
            let mut planned: Vec<Planned> = schedule.next().into_iter().collect();
            while planned.last().is_some_and(|last| last.with_next) {
                planned.extend(schedule.next());
            }
            for fault in &planned {
                *self.counts.entry(fault.fault.to_string()).or_default() += 1;
                self.note(&fault.to_string());
                self.begin(fault).await;
            }
            let hold = planned.iter().map(|planned| planned.hold).max().unwrap_or_default();
            let broken = self.watch(hold).await;
            for fault in planned.iter().rev() {
                self.world.end(fault).await;
            }
            broken?;
            self.watch(planned.last().map_or(Duration::ZERO, |last| last.pause)).await?;
            self.check_alive()?;
            self.world.peak_memory();
        }
        Ok(())
    }

    async fn begin(&mut self, planned: &Planned) {
        let Fault::Client(fault) = planned.fault else { return self.world.begin(planned).await };
        let client = &self.clients[usize::try_from(planned.number).unwrap_or(0) % self.clients.len()];
        client.command(match fault {
            ClientFault::Cut => Command::Cut,
            ClientFault::Stall => Command::Stall(planned.hold),
            ClientFault::GoBack => Command::GoBack,
            ClientFault::BeginAnew => Command::BeginAnew,
        });
    }

    /// Waits, and ends early when a client has found something.
    async fn watch(&mut self, time: Duration) -> Result<(), Violation> {
        match timeout(time, self.violations.recv()).await {
            Ok(Some(violation)) => Err(violation),
            Ok(None) => Err(Violation::new(ViolationKind::Stuck, "all clients have ended")),
            Err(_) => Ok(()),
        }
    }

    /// A daemon never panics.
    fn check_daemon(&mut self) -> Result<(), Violation> {
        let log = self.world.daemon().log();
        let new = log.get(self.log_seen.min(log.len())..).unwrap_or_default();
        self.log_seen = log.len();
        match new.iter().find(|line| line.contains("panicked")) {
            Some(line) => Err(Violation::wrong(format!("the daemon panicked: {line}"))),
            None => Ok(()),
        }
    }

    fn check_alive(&self) -> Result<(), Violation> {
        if self.world.daemon().has_ended() {
            return Err(Violation::new(ViolationKind::Stuck, "the daemon has ended by itself"));
        }
        if self.witness.has_ended() {
            return Err(Violation::new(ViolationKind::Stuck, "the witness has panicked: see above"));
        }
        Ok(())
    }

    async fn stuck(&self, text: &str) -> Violation {
        let health = self.world.daemon();
        let health = timeout(Duration::from_secs(5), health.get("/readyz")).await;
        let health = health.ok().flatten().map_or_else(|| "no answer".to_owned(), |answer| answer.body);
        Violation::new(ViolationKind::Stuck, format!("{text}\n  /readyz: {health}"))
    }
}
