//! One count of subscriptions, in a process of its own, so that its memory can be told.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use walcast_broadcaster::inside::Client;

use crate::Outcome;
use crate::clients::{Clients, Journal, subscribe};
use crate::floor::Floor;
use crate::options::Options;
use crate::statistics::percentile;
use crate::world::{self, World, Writer};

/// The first argument of such a process.
pub(crate) const COMMAND: &str = "inside";

/// Changes that may be on their way in the throughput part.
const WINDOW: usize = 4096;
/// Single subscriptions that are added and removed.
const SINGLES: usize = 300;
/// The owner whose rows show whether the feed goes on.
const PROBE: usize = 0;
/// Changes a second that show it.
const PROBES: usize = 1000;
/// Changes that everybody is told of when all want the same.
const SHARED: usize = 20;

/// What was measured, by its name.
pub(crate) type Measured = BTreeMap<String, f64>;

/// Runs this binary again.
pub(crate) fn measure(count: usize, options: &Options) -> Outcome<Measured> {
    spawn(&[count, options.changes, options.rate, options.seconds, 0])
}

/// With subscriptions that all want the same.
pub(crate) fn measure_same(count: usize, options: &Options) -> Outcome<Measured> {
    spawn(&[count, options.changes, options.rate, options.seconds, 1])
}

fn spawn(arguments: &[usize]) -> Outcome<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(COMMAND).args(arguments.iter().map(ToString::to_string)).stderr(Stdio::inherit());
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{arguments:?} ended with {}", output.status).into());
    }
    let mut measured = Measured::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let (name, value) = line.rsplit_once(' ').ok_or("a name and a value")?;
        measured.insert(name.to_owned(), value.parse()?);
    }
    Ok(measured)
}

pub(crate) fn main(arguments: &[String]) -> Outcome<()> {
    let numbers: Vec<usize> = arguments.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [count, changes, rate, seconds, same] = numbers[..] else { return Err("five numbers".into()) };
    // As the daemon has them.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measured = runtime.block_on(Box::pin(async {
        let run = Run::start(count, (2 * changes + rate * seconds) * 2 + 2_000_000, same == 0)?;
        if same == 1 { run.same().await } else { run.distinct(changes, rate, seconds).await }
    }))?;
    for (name, value) in measured {
        println!("{name} {value}");
    }
    Ok(())
}

/// This thread writes the feed, as the thread of the slot does, and is none of the runtime's.
struct Run {
    count: usize,
    journal: Arc<Journal>,
    world: World,
    writer: Writer,
    /// Numbers the changes.
    written: usize,
    /// Draws owners.
    random: u64,
    measured: Measured,
}

impl Run {
    fn start(count: usize, changes: usize, is_distinct: bool) -> Outcome<Self> {
        let (world, writer) = world::start()?;
        let journal = Arc::new(Journal::new(changes, is_distinct));
        Ok(Self { count, journal, world, writer, written: 0, random: 1, measured: Measured::new() })
    }

    fn note(&mut self, name: &str, value: f64) {
        self.measured.insert(name.to_owned(), value);
    }

    fn draw(&mut self) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as usize % self.count + 1
    }

    async fn write(&mut self, owner: usize) {
        self.journal.sent(self.written);
        let owner = i64::try_from(owner).unwrap_or_default();
        self.writer.insert(self.written, owner).await;
        self.written += 1;
    }

    /// Writes at a steady rate until `done`: the numbers of the changes.
    async fn pace(
        &mut self,
        rate: usize,
        probes_only: bool,
        mut done: impl FnMut(&Journal) -> bool,
    ) -> std::ops::Range<usize> {
        let (began, first) = (Instant::now(), self.written);
        while !done(&self.journal) {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
            while self.written - first < due {
                let owner = if probes_only { PROBE } else { self.draw() };
                self.write(owner).await;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        first..self.written
    }

    /// Until everything that was written has arrived.
    async fn settle(&self, delivered: usize) -> Outcome<()> {
        let began = Instant::now();
        while self.journal.delivered.load(Ordering::Relaxed) < delivered {
            if self.world.past.asked.load(Ordering::Relaxed) > 0 {
                return Err("a subscription fell behind the feed".into());
            }
            if began.elapsed() > Duration::from_secs(60) {
                let arrived = self.journal.delivered.load(Ordering::Relaxed);
                return Err(format!("{arrived} of {delivered} changes arrived").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn latency(&mut self, name: &str, changes: std::ops::Range<usize>) {
        let latencies = self.journal.latencies(changes);
        self.note(&format!("{name} p50"), percentile(&latencies, 50.0));
        self.note(&format!("{name} p99"), percentile(&latencies, 99.0));
        self.note(&format!("{name} max"), percentile(&latencies, 100.0));
    }

    /// Everybody comes while the feed runs.
    async fn come(&mut self, owners: &[usize]) -> Outcome<Clients> {
        let probe = Clients::new(&self.journal);
        probe.come(&self.world.broadcaster, &[PROBE])?;
        probe.until_caught_up(1).await?;
        let quiet = self.pace_probes(Duration::from_secs(1)).await?;
        self.latency("probe", quiet);
        let before = memory("VmRSS")?;
        let clients = Clients::new(&self.journal);
        let began = Instant::now();
        clients.come(&self.world.broadcaster, owners)?;
        let all = owners.len() + 1;
        let probes = self
            .pace(PROBES, true, |journal| {
                journal.caught_up.load(Ordering::Relaxed) >= all || began.elapsed().as_secs() > 300
            })
            .await;
        let seconds = began.elapsed().as_secs_f64();
        clients.until_caught_up(all).await?;
        self.settle(self.written).await?;
        self.note("add all, seconds", seconds);
        self.latency("probe, all come", probes);
        let bytes = memory("VmRSS")?.saturating_sub(before) * 1024;
        self.note("bytes each", bytes as f64 / owners.len() as f64);
        // It stays to the end of the process.
        std::mem::forget(probe);
        Ok(clients)
    }

    async fn pace_probes(&mut self, time: Duration) -> Outcome<std::ops::Range<usize>> {
        let began = Instant::now();
        let probes = self.pace(PROBES, true, |_| began.elapsed() >= time).await;
        self.settle(self.written).await?;
        Ok(probes)
    }

    async fn distinct(mut self, changes: usize, rate: usize, seconds: usize) -> Outcome<Measured> {
        let owners: Vec<usize> = (1..=self.count).collect();
        let clients = self.come(&owners).await?;
        let began = Instant::now();
        let paced = self.pace(rate, false, |_| began.elapsed() >= Duration::from_secs(seconds as u64)).await;
        self.settle(self.written).await?;
        self.latency("latency", paced);
        self.throughput(changes).await?;
        self.singles(rate).await?;
        self.alter().await?;
        self.go(clients).await?;
        self.floor(changes).await?;
        self.note("history asked", self.world.past.asked.load(Ordering::Relaxed) as f64);
        match self.journal.wrong.load(Ordering::Relaxed) {
            0 => Ok(self.measured),
            wrong => Err(format!("{wrong} frames were wrong").into()),
        }
    }

    async fn throughput(&mut self, changes: usize) -> Outcome<()> {
        self.flood("", changes, async |run, owner| run.write(owner).await).await
    }

    /// What the same tasks take that are given frames that are ready.
    async fn floor(&mut self, changes: usize) -> Outcome<()> {
        let floor = Floor::start(self.count, &self.journal);
        let written = async |run: &mut Self, owner| {
            run.journal.sent(run.written);
            floor.write(run.written, owner);
            run.written += 1;
        };
        self.flood("floor, ", changes, written).await?;
        floor.end().await;
        let of_the_floor = self.measured["changes/s"] / self.measured["floor, changes/s"];
        self.note("changes/s, of the floor's", of_the_floor);
        Ok(())
    }

    /// Writes so many changes as fast as they are taken.
    async fn flood(
        &mut self,
        name: &str,
        changes: usize,
        mut write: impl AsyncFnMut(&mut Self, usize),
    ) -> Outcome<()> {
        let (began, first) = (Instant::now(), self.written);
        let cpu = cpu_seconds()?;
        while self.written - first < changes {
            if self.written - self.journal.delivered.load(Ordering::Relaxed) < WINDOW {
                let owner = self.draw();
                write(self, owner).await;
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        self.settle(self.written).await?;
        self.note(&format!("{name}changes/s"), changes as f64 / began.elapsed().as_secs_f64());
        self.note(&format!("{name}CPU µs a change"), (cpu_seconds()? - cpu) * 1e6 / changes as f64);
        Ok(())
    }

    /// One comes and goes while the feed runs, again and again.
    async fn singles(&mut self, rate: usize) -> Outcome<()> {
        let (broadcaster, owners) = (self.world.broadcaster.clone(), self.count + 1);
        let singles = tokio::spawn(async move {
            let mut times: [Vec<f64>; 3] = Default::default();
            let mut client = Client::new(&broadcaster, u64::MAX);
            for single in 0..SINGLES {
                let message = subscribe(owners + single, single).map_err(|error| error.to_string())?;
                let id = message.id.clone();
                let began = Instant::now();
                client.subscribe(message).map_err(|refusal| refusal.to_string())?;
                times[0].push(began.elapsed().as_secs_f64() * 1e6);
                while !client.next().await[0].starts_with(br#"{"type":"caught_up""#) {}
                times[1].push(began.elapsed().as_secs_f64() * 1e6);
                let began = Instant::now();
                client.unsubscribe(&id);
                times[2].push(began.elapsed().as_secs_f64() * 1e6);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok::<_, String>(times)
        });
        self.pace(rate, false, |_| singles.is_finished()).await;
        self.settle(self.written).await?;
        for (name, times) in ["add, µs", "add to live, µs", "remove, µs"].into_iter().zip(singles.await??)
        {
            self.note(&format!("{name} p50"), percentile(&times, 50.0));
            self.note(&format!("{name} p99"), percentile(&times, 99.0));
        }
        Ok(())
    }

    /// The table gets another column while the feed runs.
    async fn alter(&mut self) -> Outcome<()> {
        let asked = self.world.source.asked.load(Ordering::Relaxed);
        let cpu = cpu_seconds()?;
        self.writer.alter();
        let probes = self.pace_probes(Duration::from_secs(3)).await?;
        self.latency("probe, table altered", probes);
        self.note("CPU s, table altered", cpu_seconds()? - cpu);
        self.note("questions", (self.world.source.asked.load(Ordering::Relaxed) - asked) as f64);
        Ok(())
    }

    /// Everybody goes while the feed runs.
    async fn go(&mut self, clients: Clients) -> Outcome<()> {
        let began = Instant::now();
        let going = tokio::spawn(async move { clients.go().await });
        let probes = self.pace(PROBES, true, |_| going.is_finished()).await;
        self.note("remove all, seconds", began.elapsed().as_secs_f64());
        self.settle(self.written).await?;
        self.latency("probe, all go", probes);
        Ok(())
    }

    /// Everybody wants the same.
    async fn same(mut self) -> Outcome<Measured> {
        let owners = vec![1; self.count];
        let clients = self.come(&owners).await?;
        let (first, began) = (self.written, Instant::now());
        let before = self.journal.delivered.load(Ordering::Relaxed);
        for shared in 1..=SHARED {
            self.write(1).await;
            self.settle(before + shared * self.count).await?;
        }
        self.note("frames/s", (SHARED * self.count) as f64 / began.elapsed().as_secs_f64());
        let latencies = self.journal.latencies(first..self.written);
        self.note("latency of the last p50", percentile(&latencies, 50.0));
        let began = Instant::now();
        clients.go().await;
        self.note("remove all, seconds", began.elapsed().as_secs_f64());
        Ok(self.measured)
    }
}

/// A line of the process's account of its memory, in KiB (Linux only).
fn memory(line: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    Ok(found.ok_or("no such line")?.trim().trim_end_matches(" kB").parse()?)
}

/// User and system time of this process (Linux only).
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("no fields")?;
    let ticks = |index: usize| fields.split(' ').nth(index).and_then(|field| field.parse::<f64>().ok());
    // Ticks are 10 ms on every Linux that Rust runs on.
    Ok((ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0)
}
