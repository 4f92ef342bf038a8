//! Accepting connections: how many, how long they may take to say what they want, and their socket's options.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;

/// Connections beyond `connections_max` that are still answered: health checks, and clients that are told that
/// there is no place. Further ones wait in the kernel's queue.
const SPARE_CONNECTIONS: usize = 64;
/// Bytes that a request's head may have.
const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// The pause after accepting failed, as it does when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`.
pub(super) async fn run(
    listener: &TcpListener,
    router: Router,
    limits: &Limits,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let requests = Arc::new(Semaphore::new(limits.connections_max.saturating_add(SPARE_CONNECTIONS)));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let place = Arc::clone(&requests).acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            // Cancel-safe: accepting is, and the place is given back.
            accepted = accepted => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, _)) => {
                if let Err(error) = set_options(&socket, limits) {
                    tracing::debug!(%error, "a socket option cannot be set");
                }
                let serving = serve(socket, router.clone(), limits.handshake_max, stop.clone());
                tasks.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted; raise the limit of open files if it is that");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves the requests of one connection, until it becomes a WebSocket or ends.
async fn serve(socket: TcpStream, router: Router, handshake_max: Duration, stop: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_max)
        .max_buf_size(REQUEST_HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router))
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

fn set_options(socket: &TcpStream, limits: &Limits) -> io::Result<()> {
    // walcast batches by itself.
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    let keepalive = TcpKeepalive::new()
        .with_time(limits.tcp_keepalive)
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_user_timeout(limits.tcp_user_timeout)?;
        socket.set_tcp_notsent_lowat(limits.tcp_unsent_bytes_max)?;
    }
    Ok(())
}
