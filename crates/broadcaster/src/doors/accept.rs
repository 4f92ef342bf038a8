//! Accepting connections: how many, and how long they may take to say what they want.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::entrance::Entrance;
use super::listener::Listener;
use super::pace::SharedPace;
use super::patience::{Attended, Patience};
use super::peer::Arrival;
use super::transport::Transport;
use super::unreadable::{Answering, Understood};
use crate::limits::Limits;
use crate::metrics as names;

/// Connections beyond `connections_max` that are still answered: health checks, and clients that are told that
/// there is no place. Further ones wait in the kernel's queue.
const SPARE_CONNECTIONS: usize = 64;
/// Bytes that a request's head may have.
const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// The pause after accepting failed, as it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`.
///
/// # Errors
/// When TLS cannot be used as it is set up.
pub(super) async fn run(
    listener: &Listener,
    router: Router,
    limits: &Limits,
    entrance: &Entrance,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> io::Result<()> {
    let tls = listener.acceptor()?;
    let requests = Arc::new(Semaphore::new(limits.connections_max.saturating_add(SPARE_CONNECTIONS)));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&requests).acquire_owned().await.ok();
            (listener.accept(limits).await, place)
        };
        let (accepted, place) = tokio::select! {
            // Cancel-safe: accepting is, and the place is given back.
            accepted = accepted => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let (raw, arrival) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted; raise the limit of open files if it is that");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // One that says nothing has a place for a while; nobody shall take them all.
        let Ok(counted) = entrance.knock(arrival.peer, limits.connections_per_address_max) else {
            metrics::counter!(names::CONNECTIONS_REFUSED, "limit" => "connections_per_address_max")
                .increment(1);
            continue;
        };
        let (tls, stop, limits) = (tls.clone(), stop.clone(), *limits);
        let handshake_max = limits.handshake_max;
        let arrived = Arrived {
            paths: TowerToHyperService::new(router.clone()),
            arrival,
            pace: SharedPace::new(limits.requests_per_second_max, Instant::now()),
            patience: Patience::default(),
            understood: Understood::default(),
        };
        tasks.spawn(async move {
            match raw.open(tls, handshake_max).await {
                Ok(transport) => {
                    let patience = arrived.patience.clone();
                    let answering = Answering::new(transport, arrived.understood.clone());
                    let attended = Attended::new(answering, patience, limits.answer_stall_max);
                    serve(attended, arrived, handshake_max, stop).await;
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
            drop((place, counted));
        });
    }
}

/// The paths, for requests that came in by one connection.
struct Arrived {
    paths: TowerToHyperService<Router>,
    arrival: Arrival,
    pace: SharedPace,
    patience: Patience,
    understood: Understood,
}

impl Service<hyper::Request<Incoming>> for Arrived {
    type Response = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.arrival);
        request.extensions_mut().insert(self.pace.clone());
        self.understood.set();
        self.patience.reset();
        request.extensions_mut().insert(self.patience.clone());
        self.paths.call(request)
    }
}

/// Serves the requests of one connection, until it becomes a WebSocket or ends.
async fn serve(
    transport: Attended<Answering<Transport>>,
    arrived: Arrived,
    handshake_max: Duration,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_max)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(transport), arrived)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}
