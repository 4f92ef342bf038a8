//! A TCP proxy that breaks connections on command.

mod lane;
mod pump;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::{LIMIT, within};
use lane::{Lane, Trap};
use pump::pump;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the proxy to whom it leads.
    ToServer,
    /// Back.
    ToClient,
}

/// How the connections of the moment are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// RST: what was in flight is lost.
    Reset,
    /// FIN on both sides.
    Close,
}

/// A proxy on a port of 127.0.0.1 that leads to another port of 127.0.0.1, between walcast and Postgres or a client and
/// walcast. Faults apply to all connections, those that are open and those that come, until they are taken back. Ends
/// with its connections when dropped.
///
/// ```no_run
/// # async fn example(database: walcast_testkit::TestDatabase, cluster: &walcast_testkit::Cluster) {
/// use walcast_testkit::{Direction, Proxy};
///
/// let proxy = Proxy::to(cluster.port()).await;
/// let url = database.url_via(&proxy);
/// // ... connect to url ...
/// proxy.cut_after(Direction::ToClient, 1000); // exactly 1,000 more bytes, then RST
/// proxy.until_cut().await;
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to_server: Lane,
    to_client: Lane,
    /// Ends the connections that are open when it changes.
    ending: watch::Sender<Ending>,
    counts: watch::Sender<Counts>,
    /// Connections are reset as soon as they are accepted.
    refusing: watch::Sender<bool>,
    /// Where new connections lead.
    target: AtomicU16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    accepted: u64,
    open: u64,
    cuts: u64,
}

impl Proxy {
    /// Starts a proxy to `port` of 127.0.0.1. The server there may come later: until then connections are reset.
    ///
    /// # Panics
    ///
    /// When no port can be had.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port on 127.0.0.1");
        let own_port = listener.local_addr().expect("a listener has an address").port();
        let shared = Arc::new(Shared {
            to_server: Lane::default(),
            to_client: Lane::default(),
            ending: watch::Sender::new(Ending::Reset),
            counts: watch::Sender::default(),
            refusing: watch::Sender::new(false),
            target: AtomicU16::new(port),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port: own_port, shared, task }
    }

    /// Leads new connections to another port of 127.0.0.1. Open ones stay where they are.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port, Ordering::Relaxed);
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `url` with host and port replaced by the proxy's; works for `postgresql:`, `ws:` and `http:`.
    pub fn url(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("{url} is no URL"));
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let user = authority.rfind('@').map_or("", |at| &authority[..=at]);
        format!("{scheme}://{user}127.0.0.1:{}{path}", self.port)
    }

    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::ToServer => &self.shared.to_server,
            Direction::ToClient => &self.shared.to_client,
        }
    }

    /// Resets all open connections (RST on both sides; bytes in flight are lost). New ones are accepted.
    pub fn cut(&self) {
        self.shared.cut(Ending::Reset);
    }

    /// Closes all open connections in good order (FIN on both sides). New ones are accepted.
    pub fn close(&self) {
        self.shared.cut(Ending::Close);
    }

    /// Whether new connections are reset as soon as they are made. Open ones stay.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refusing.send_replace(refuse);
    }

    /// Lets nothing through any more in this direction and tells nobody: connections stay open, also when one side hangs
    /// up. Bytes wait, and go on with [`heal`](Self::heal). In both directions: a network that is gone.
    pub fn blackhole(&self, direction: Direction) {
        self.lane(direction).change(|faults| faults.blackhole = true);
    }

    /// Each byte arrives this much later, at full throughput.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.lane(direction).change(|faults| faults.delay = delay);
    }

    /// At most this many bytes a second on each connection.
    ///
    /// # Panics
    ///
    /// When `bytes_per_second` is 0; that is [`blackhole`](Self::blackhole).
    pub fn throttle(&self, direction: Direction, bytes_per_second: u32) {
        assert!(bytes_per_second > 0, "throttle to 0 bytes a second is a blackhole");
        self.lane(direction).change(|faults| faults.bytes_per_second = Some(bytes_per_second));
    }

    /// Passes on at most `bytes` at once, with a pause after each slice. With a pause of zero the receiver may still read
    /// several slices together.
    ///
    /// # Panics
    ///
    /// When `bytes` is 0.
    pub fn slice(&self, direction: Direction, bytes: usize, pause: Duration) {
        assert!(bytes > 0, "a slice has at least one byte");
        self.lane(direction).change(|faults| faults.slice = Some((bytes, pause)));
    }

    /// Passes exactly `bytes` more in this direction, all connections taken together, then resets the connection that
    /// carried the last of them. Works once.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.lane(direction).set_trap(bytes, Trap::Cut);
    }

    /// Passes exactly `bytes` more in this direction, all connections taken together, then lets nothing through, as
    /// [`blackhole`](Self::blackhole).
    pub fn blackhole_after(&self, direction: Direction, bytes: u64) {
        self.lane(direction).set_trap(bytes, Trap::Blackhole);
    }

    /// Takes back all faults but cuts that have happened. What a blackhole held goes on.
    pub fn heal(&self) {
        self.shared.refusing.send_replace(false);
        self.shared.to_server.heal();
        self.shared.to_client.heal();
    }

    /// Waits until what one connection has sent since a [`blackhole`](Self::blackhole) began in this direction, and what is
    /// held for that, is as `is_it` says: the only way to see that something was sent which never arrives.
    ///
    /// # Panics
    ///
    /// When it is not within [`LIMIT`](crate::LIMIT).
    pub async fn until_held(&self, direction: Direction, what: &str, is_it: impl Fn(&[u8]) -> bool) {
        within(&format!("{what} in the blackhole"), LIMIT, self.lane(direction).until_held(is_it)).await;
    }

    /// Bytes passed on in this direction so far.
    pub fn passed(&self, direction: Direction) -> u64 {
        self.lane(direction).passed()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.counts.borrow().accepted
    }

    /// Connections that are open now.
    pub fn open(&self) -> u64 {
        self.shared.counts.borrow().open
    }

    /// Waits until `count` connections have been accepted since the start.
    ///
    /// # Panics
    ///
    /// When they have not within [`LIMIT`](crate::LIMIT).
    pub async fn until_accepted(&self, count: u64) {
        self.until(&format!("{count} connections through the proxy"), |counts| counts.accepted >= count)
            .await;
    }

    /// Waits until no connection is open.
    ///
    /// # Panics
    ///
    /// When one still is after [`LIMIT`](crate::LIMIT).
    pub async fn until_idle(&self) {
        self.until("the end of all connections through the proxy", |counts| counts.open == 0).await;
    }

    /// Waits until a [`cut_after`](Self::cut_after) has cut.
    ///
    /// # Panics
    ///
    /// When none has within [`LIMIT`](crate::LIMIT).
    pub async fn until_cut(&self) {
        self.until("the cut after a number of bytes", |counts| counts.cuts > 0).await;
    }

    /// Waits until this many bytes have passed in this direction since the start.
    ///
    /// # Panics
    ///
    /// When they have not within [`LIMIT`](crate::LIMIT).
    pub async fn until_passed(&self, direction: Direction, bytes: u64) {
        let what = format!("{bytes} bytes {direction:?} through the proxy");
        within(&what, LIMIT, self.lane(direction).until_passed(bytes)).await;
    }

    async fn until(&self, what: &str, reached: impl FnMut(&Counts) -> bool) {
        let mut counts = self.shared.counts.subscribe();
        let _counts = within(what, LIMIT, counts.wait_for(reached)).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The accepting task owns the connections.
        self.task.abort();
    }
}

impl Shared {
    fn cut(&self, ending: Ending) {
        self.ending.send_replace(ending);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((client, _)) = listener.accept().await else { continue };
        // Before the count says so: a cut from now on means this connection too.
        let ending = shared.ending.subscribe();
        shared.counts.send_modify(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        let open = OpenConnection(Arc::clone(&shared));
        connections.spawn(async move {
            carry(client, ending, &open.0).await;
        });
    }
}

/// Counted as open until dropped.
struct OpenConnection(Arc<Shared>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open -= 1);
    }
}

async fn carry(client: TcpStream, mut ending: watch::Receiver<Ending>, shared: &Shared) {
    if *shared.refusing.borrow() {
        reset(&client);
        return;
    }
    let port = shared.target.load(Ordering::Relaxed);
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
        reset(&client);
        return;
    };
    if run(client, server, &mut ending, shared).await.is_err_and(|error| error.kind() == pump::CUT) {
        shared.counts.send_modify(|counts| counts.cuts += 1);
    }
}

/// Carries both directions until both have ended, or one breaks, or all connections are to end.
async fn run(
    mut client: TcpStream,
    mut server: TcpStream,
    ending: &mut watch::Receiver<Ending>,
    shared: &Shared,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let outcome = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, &shared.to_server),
                pump(from_server, to_client, &shared.to_client),
            )
        };
        tokio::select! {
            outcome = both => outcome.map(|_| Ending::Close),
            // The sender lives as long as `shared`.
            _changed = ending.changed() => Ok(*ending.borrow_and_update()),
        }
    };
    if !matches!(outcome, Ok(Ending::Close)) {
        reset(&client);
        reset(&server);
    }
    outcome.map(|_| ())
}

/// The coming drop sends RST instead of FIN.
fn reset(stream: &TcpStream) {
    let _gone_already = stream.set_zero_linger();
}
