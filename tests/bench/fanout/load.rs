//! What deliveries cost, paced and flooded.

use std::collections::BTreeMap;

use tokio::time::Instant;
use walcast_testkit::Cluster;

use crate::Outcome;
use crate::child::Child;
use crate::options::Options;
use crate::process::Usage;
use crate::receiver;
use crate::statistics::{median, percentile, range};
use crate::subject::{Floor, Walcast};

/// Frames in one write of the floor that coalesces: as many as go into 64 KiB, as the daemon does.
const COALESCED_BYTES: usize = 64 << 10;

/// What one of them did in one round.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Deliveries a second.
    rate: f64,
    /// CPU seconds for a million deliveries.
    cpu: f64,
    /// Milliseconds; of the paced part.
    p50: f64,
    p99: f64,
}

/// By sockets.
type All = BTreeMap<(usize, What, Who), Vec<Figures>>;

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Paced,
    Flooded,
}

/// Who did it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Who {
    Floor,
    Coalesced,
    Walcast,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Paced => "paced",
            Self::Flooded => "flooded",
        }
    }
}

impl Who {
    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor, a write for each",
            Self::Coalesced => "floor, coalesced",
            Self::Walcast => "walcast",
        }
    }
}

pub(crate) async fn run(options: &Options, cluster: &Cluster) -> Outcome<()> {
    let (mut all, mut frame_bytes) = (All::new(), 300);
    for round in 0..options.rounds {
        for sockets in &options.sockets {
            // Each begins in turn; the daemon first, which says how large its frames are.
            for turn in 0..2 {
                if (round + turn) % 2 == 1 {
                    floor(options, *sockets, frame_bytes, &mut all).await?;
                } else if !options.floor_only {
                    frame_bytes = walcast(options, cluster, *sockets, &mut all).await?;
                }
            }
        }
    }
    print(options, &all, frame_bytes);
    Ok(())
}

/// Starts a receiver with so many sockets.
pub(crate) async fn receiver(port: u16, sockets: usize, cursor: &str) -> Outcome<Child> {
    let mut receiver = Child::start(receiver::COMMAND)?;
    receiver.ask(&format!("open {port} {sockets} {cursor}")).await?;
    Ok(receiver)
}

/// Milliseconds from when each transaction was sent, the first being `first`, to each of its arrivals.
pub(crate) async fn latencies(receiver: &mut Child, first: usize, sent: &[u64]) -> Outcome<Vec<f64>> {
    let file = tempfile::NamedTempFile::new()?;
    receiver.ask(&format!("samples {}", file.path().display())).await?;
    let mut latencies = Vec::new();
    for sample in std::fs::read(file.path())?.chunks_exact(12) {
        let (number, time) = sample.split_at(4);
        let number = u32::from_le_bytes(number.try_into()?) as usize;
        if let Some(sent) = number.checked_sub(first).and_then(|index| sent.get(index)) {
            // It may come before the return of its commit is seen.
            let took = u64::from_le_bytes(time.try_into()?).saturating_sub(*sent);
            latencies.push(took as f64 / 1e6);
        }
    }
    Ok(latencies)
}

/// Forgets them.
async fn drop_samples(receiver: &mut Child) -> Outcome<()> {
    receiver.ask("samples /dev/null").await.map(drop)
}

/// An account of one part.
struct Account {
    pid: u32,
    before: Usage,
    began: Instant,
}

impl Account {
    fn open(pid: u32) -> Outcome<Self> {
        let before = Usage::of(pid).ok_or("this needs Linux")?;
        Ok(Self { pid, before, began: Instant::now() })
    }

    fn close(self, deliveries: usize) -> Outcome<Figures> {
        let used = Usage::of(self.pid).ok_or("it has ended")? - self.before;
        let seconds = self.began.elapsed().as_secs_f64();
        let millions = deliveries as f64 / 1e6;
        Ok(Figures {
            rate: deliveries as f64 / seconds,
            cpu: used.cpu_seconds / millions,
            ..Figures::default()
        })
    }
}

/// Rate and count of the transactions of the paced part.
fn pace(options: &Options, sockets: usize) -> (f64, usize) {
    let rate = (options.paced / sockets).max(1);
    (rate as f64, rate * options.seconds)
}

async fn walcast(options: &Options, cluster: &Cluster, sockets: usize, all: &mut All) -> Outcome<usize> {
    let mut walcast = Walcast::start(options, cluster).await;
    let pid = walcast.daemon.pid();
    let mut receiver = receiver(walcast.daemon.port(), sockets, "latest").await?;
    // Beforehand: the definition of the table is told with the first.
    warm_up(&mut walcast, &mut receiver, sockets).await?;

    let (rate, count) = pace(options, sockets);
    let account = Account::open(pid)?;
    let (first, sent) = walcast.paced(rate, count).await?;
    let told = receiver.ask(&format!("expect {}", count * sockets)).await?;
    let mut figures = account.close(count * sockets)?;
    let latencies = latencies(&mut receiver, first, &sent).await?;
    (figures.p50, figures.p99) = (percentile(&latencies, 50.0), percentile(&latencies, 99.0));
    all.entry((sockets, What::Paced, Who::Walcast)).or_default().push(figures);
    let bytes = told.first().and_then(|bytes| bytes.parse::<usize>().ok()).ok_or("no bytes")?;

    let count = options.flooded.div_ceil(sockets);
    let account = Account::open(pid)?;
    let expect = format!("expect {}", count * sockets);
    receiver.tell(&expect).await?;
    walcast.flood(count).await?;
    receiver.answer().await?;
    all.entry((sockets, What::Flooded, Who::Walcast)).or_default().push(account.close(count * sockets)?);
    Ok(bytes / (pace(options, sockets).1 * sockets))
}

/// Sends a few.
pub(crate) async fn warm_up(walcast: &mut Walcast, receiver: &mut Child, sockets: usize) -> Outcome<()> {
    const COUNT: usize = 20;
    walcast.paced(20.0, COUNT).await?;
    receiver.ask(&format!("expect {}", COUNT * sockets)).await?;
    drop_samples(receiver).await
}

async fn floor(options: &Options, sockets: usize, bytes: usize, all: &mut All) -> Outcome<()> {
    let mut floor = Floor::start().await?;
    let pid = floor.child.pid();
    let mut receiver = receiver(floor.port, sockets, "latest").await?;

    let (rate, count) = pace(options, sockets);
    let account = Account::open(pid)?;
    let sent = floor.paced(rate, count, bytes).await?;
    receiver.ask(&format!("expect {}", count * sockets)).await?;
    let mut figures = account.close(count * sockets)?;
    let latencies = latencies(&mut receiver, 0, &sent).await?;
    (figures.p50, figures.p99) = (percentile(&latencies, 50.0), percentile(&latencies, 99.0));
    all.entry((sockets, What::Paced, Who::Floor)).or_default().push(figures);

    for (who, each) in [(Who::Floor, 1), (Who::Coalesced, COALESCED_BYTES / bytes)] {
        let count = options.flooded.div_ceil(sockets).next_multiple_of(each);
        let account = Account::open(pid)?;
        receiver.tell(&format!("expect {}", count * sockets)).await?;
        floor.flood(count, bytes, each).await?;
        receiver.answer().await?;
        all.entry((sockets, What::Flooded, who)).or_default().push(account.close(count * sockets)?);
        drop_samples(&mut receiver).await?;
    }
    Ok(())
}

fn print(options: &Options, all: &All, frame_bytes: usize) {
    let (rounds, paced) = (options.rounds, options.paced);
    println!(
        "\nframes of {frame_bytes} bytes, paced: {paced} deliveries/s in all; median of {rounds} (from – to)\n"
    );
    println!(
        "| sockets | | | deliveries/s | CPU-s/million | × floor, a write for each | latency p50, ms | p99, ms |"
    );
    println!("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for ((sockets, what, who), figures) in all {
        let column = |of: fn(&Figures) -> f64| -> Vec<f64> { figures.iter().map(of).collect() };
        let floor = all.get(&(*sockets, *what, Who::Floor)).map(Vec::as_slice).unwrap_or_default();
        // Within each round: what else the machine does changes slowly.
        let ratios: Vec<f64> =
            figures.iter().zip(floor).map(|(figures, floor)| figures.cpu / floor.cpu).collect();
        let latency = |of: fn(&Figures) -> f64| match what {
            What::Paced => spread(&column(of)),
            What::Flooded => "–".to_owned(),
        };
        println!(
            "| {sockets} | {} | {} | {:.0}k | {} | {} | {} | {} |",
            what.name(),
            who.name(),
            median(&column(|figures| figures.rate)) / 1e3,
            spread(&column(|figures| figures.cpu)),
            spread(&ratios),
            latency(|figures| figures.p50),
            latency(|figures| figures.p99),
        );
    }
}

/// Median, smallest and largest.
pub(crate) fn spread(values: &[f64]) -> String {
    let (low, high) = range(values);
    format!("{:.2} ({low:.2} – {high:.2})", median(values))
}
