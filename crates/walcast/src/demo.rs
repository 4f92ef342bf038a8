//! `walcast demo`: a throwaway Postgres with a shop that is open, the daemon beside it, and a client that shows what
//! happens.

mod local_copy;
mod screen;
mod shop;
mod workload;

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use walcast_client::{Client, Subscription};
use walcast_cluster::{Cluster, InstallPlan, Installation, free_port};
use walcast_model::Timestamp;
use walcast_postgres::{ConnectionConfig, Session, quote_literal};

use crate::output::terminal_columns;
use screen::Screen;

/// The port that is taken when it is free: the one of `walcast serve`.
const USUAL_PORT: u16 = 4700;
/// How long the daemon may take to end when the demo does.
const DAEMON_STOP_LIMIT: Duration = Duration::from_secs(15);
/// Name of slot and publication.
const SLOT: &str = "walcast_demo";

/// Flags of `walcast demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// When no Postgres server is found, install one with the system's package manager (the commands are shown first)
    #[arg(long)]
    pub(crate) install: bool,
    /// Folder with `postgres` and `initdb` to use [default: the newest found]
    #[arg(long, value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:4700, or a free port when that is taken]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// Transactions of the shop per second
    #[arg(long, value_name = "NUMBER", default_value_t = 3.0, value_parser = parse_rate)]
    pub(crate) rate: f64,
}

/// What the demo's daemon is to be run with.
#[derive(Clone, Debug)]
pub(crate) struct DemoDaemon {
    /// The shop, as superuser, with a password.
    pub(crate) database_url: String,
    /// Free a moment ago.
    pub(crate) listen: SocketAddr,
    pub(crate) slot: String,
    pub(crate) publication: String,
}

/// Why the demo did not run, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Cluster(#[from] walcast_cluster::Error),
    /// No server here, and not asked to install one.
    #[error("{found}\nor let walcast do it: walcast demo --install")]
    NothingInstalled { found: walcast_cluster::Error },
    #[error("the demo's Postgres: {0}")]
    Postgres(#[from] walcast_postgres::Error),
    #[error("the demo's connection string: {0}")]
    ConnectionString(#[from] walcast_postgres::ConnectionStringError),
    #[error("the demo's client: {0}")]
    Client(#[from] walcast_client::Error),
    #[error("the demo's daemon ended: {0}")]
    Daemon(Box<dyn StdError + Send + Sync>),
    #[error("the demo's daemon did not end: {0}")]
    DaemonPanicked(JoinError),
    #[error("writing to the terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Runs the demo until `stop` is cancelled or the daemon fails, then takes everything away again. `daemon` runs the
/// daemon until its token is cancelled. Text goes to standard output.
///
/// # Errors
///
/// [`DemoError`]. Nothing is left behind then either. Not to be dropped before it is done: the server goes away by
/// itself, but the daemon has no time to end in good order.
pub(crate) async fn run<D, F>(args: DemoArgs, stop: CancellationToken, daemon: D) -> Result<(), DemoError>
where
    D: FnOnce(DemoDaemon, CancellationToken) -> F,
    F: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let mut screen = Screen::new(anstream::stdout(), terminal_columns);
    let installation = find_postgres(&args)?;
    screen
        .say("postgres", &format!("{} from {}", installation.version(), installation.bin_dir().display()))?;
    // Whoever interrupts meanwhile leaves nothing behind: a cluster that is dropped goes away.
    let Some(database) = stop.run_until_cancelled(open_database(&installation)).await else { return Ok(()) };
    let (cluster, url) = database?;
    let listen = args.listen.unwrap_or_else(usual_address);
    introduce(&mut screen, &cluster, &url, listen)?;

    let stop_daemon = CancellationToken::new();
    let plan =
        DemoDaemon { database_url: url.clone(), listen, slot: SLOT.to_owned(), publication: SLOT.to_owned() };
    let mut running = tokio::spawn(daemon(plan, stop_daemon.clone()));
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        // Both ends of `watch` are errors: a stream has no end of its own.
        outcome = watch(&mut screen, &url, listen, args.rate) => outcome,
        ended = &mut running => Err(daemon_ended(ended)),
    };
    let stopped = end(&mut screen, running, &stop_daemon, cluster).await;
    outcome.and(stopped)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.01..=1000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.01 to 1000".to_owned()),
    }
}

/// Finds a server, or has one installed when that was asked for and none is here.
fn find_postgres(args: &DemoArgs) -> Result<Installation, DemoError> {
    if let Some(folder) = &args.pg_bin {
        return Ok(Installation::at(folder)?);
    }
    match Installation::newest() {
        Ok(installation) => Ok(installation),
        Err(found) if !args.install => Err(DemoError::NothingInstalled { found }),
        Err(found) => {
            let plan = InstallPlan::for_this_platform().ok_or(found)?;
            plan.run(&mut anstream::stdout())?;
            Ok(Installation::newest()?)
        }
    }
}

/// A server that only this user can enter, with the shop in it; and the shop's URL.
async fn open_database(installation: &Installation) -> Result<(Cluster, String), DemoError> {
    // Others on this machine reach the port, but not the folder of the socket.
    let cluster = Cluster::builder(installation.clone())
        .hba("host all all 127.0.0.1/32 scram-sha-256")
        .setting("shared_buffers", "64MB")
        .start()
        .await?;
    let password = format!("{:016x}", rand::random::<u64>());
    let socket = ConnectionConfig::parse(&cluster.socket_url("postgres"), &|_| None)?;
    let session = Session::connect(&socket, "walcast demo").await?;
    let secret = quote_literal(&password);
    session
        .batch_execute(&format!("ALTER ROLE postgres PASSWORD {secret}"))
        .await
        .map_err(walcast_postgres::Error::from)?;
    session
        .batch_execute(&format!("CREATE DATABASE {}", shop::DATABASE))
        .await
        .map_err(walcast_postgres::Error::from)?;
    let session = Session::connect(&socket.with_database(shop::DATABASE), "walcast demo").await?;
    shop::create(&session).await?;
    let url = cluster.url(shop::DATABASE).replacen("postgres@", &format!("postgres:{password}@"), 1);
    Ok((cluster, url))
}

fn usual_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    match TcpListener::bind(usual) {
        Ok(_free) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())),
    }
}

fn introduce<W: io::Write>(
    screen: &mut Screen<W>,
    cluster: &Cluster,
    url: &str,
    listen: SocketAddr,
) -> io::Result<()> {
    screen.say("shop", "customers, products, orders, order_lines; a few changes a second")?;
    screen.say("daemon", &format!("ws://{listen}/v1/stream   http://{listen}/readyz"))?;
    screen.say("try", "in another terminal, and see it arrive here:")?;
    let statement = "UPDATE products SET price = price - 1 WHERE id = 1";
    match psql(cluster.installation()) {
        Some(program) => {
            // Two lines, which a shell takes as one command.
            screen.offer(&format!("{program} {url} \\"))?;
            screen.offer(&format!("  -c \"{statement}\""))?;
        }
        None => {
            screen.offer(statement)?;
            screen.say("", "by any client of Postgres (psql is not installed here), at")?;
            screen.offer(url)?;
        }
    }
    screen.say("end", "Ctrl-C stops everything and removes it\n")
}

/// `psql` when a shell finds it, else the path of the one beside the server.
fn psql(installation: &Installation) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("psql").exists()) {
        return Some("psql".to_owned());
    }
    installation.program("psql").map(|program| program.display().to_string())
}

/// Opens the shop and shows the stream. Ends only by an error.
async fn watch<W: io::Write>(
    screen: &mut Screen<W>,
    url: &str,
    listen: SocketAddr,
    rate: f64,
) -> Result<(), DemoError> {
    let config = ConnectionConfig::parse(url, &|_| None)?;
    let mut client = Client::builder(&format!("ws://{listen}")).build()?;
    client.subscribe(Subscription::new("demo", ["public.*"])?).await?;
    let stream = async {
        while let Some(event) = client.next().await {
            screen.show(&event?, Timestamp::now())?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = stream => outcome,
        () = workload::run(config, rate) => Ok(()),
    }
}

fn daemon_ended(ended: Result<Result<(), Box<dyn StdError + Send + Sync>>, JoinError>) -> DemoError {
    match ended {
        Ok(Ok(())) => DemoError::Daemon("without being asked to".into()),
        Ok(Err(error)) => DemoError::Daemon(error),
        Err(error) => DemoError::DaemonPanicked(error),
    }
}

/// The daemon first, so that it can acknowledge; then the server, whose folder goes with it.
async fn end<W: io::Write>(
    screen: &mut Screen<W>,
    mut running: JoinHandle<Result<(), Box<dyn StdError + Send + Sync>>>,
    stop_daemon: &CancellationToken,
    cluster: Cluster,
) -> Result<(), DemoError> {
    let folder = cluster.socket_directory().display().to_string();
    // The terminal may be gone; the rest is to be done all the same.
    let said = screen.say("end", "stopping the daemon and Postgres");
    stop_daemon.cancel();
    let outcome = if running.is_finished() {
        Ok(())
    } else {
        match tokio::time::timeout(DAEMON_STOP_LIMIT, &mut running).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(DemoError::Daemon(error)),
            Ok(Err(error)) => Err(DemoError::DaemonPanicked(error)),
            Err(_) => {
                running.abort();
                tracing::warn!("the daemon did not end within {DAEMON_STOP_LIMIT:?} and was left");
                Ok(())
            }
        }
    };
    // Waits for the server, at most a few seconds.
    if let Err(error) = tokio::task::spawn_blocking(move || drop(cluster)).await {
        tracing::warn!(%error, "the demo's Postgres was not ended in good order");
    }
    said?;
    screen.say("end", &format!("{folder} is removed"))?;
    outcome
}
