//! Connections: their number, the time and size of headers, and the orderly end.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::guard::Peer;
use super::stall::Stalling;

/// Connections at the same time; more wait to be accepted.
const MOST: usize = 256;
/// Connections of one other machine at the same time; more are closed at once.
const MOST_OF_ONE: usize = 32;
/// The longest that the headers of a request may take, and that a connection may idle.
const HEADER_TIME: Duration = Duration::from_secs(20);
/// The most bytes of a request's headers; they are refused at the latest when there are twice as many.
const HEADER_BYTES: usize = 64 << 10;
const HEADER_COUNT: usize = 64;
/// The longest that a client may not read.
const WRITE_TIME: Duration = Duration::from_secs(120);
/// The longest that open connections are waited for at the end.
const END_TIME: Duration = Duration::from_secs(2);

/// How many connections each other machine has.
#[derive(Debug, Default)]
struct Counts(Mutex<HashMap<IpAddr, usize>>);

impl Counts {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Counted> {
        if !address.is_loopback() {
            let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_insert(0);
            if *count >= MOST_OF_ONE {
                return None;
            }
            *count += 1;
        }
        Some(Counted { counts: Arc::clone(self), address })
    }
}

/// One connection in the counts.
struct Counted {
    counts: Arc<Counts>,
    address: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Accepts connections until `end` says so, then waits a moment for those that are open.
pub async fn serve<F, R>(listener: TcpListener, mut end: watch::Receiver<bool>, respond: F)
where
    F: Fn(Peer, Request<Body>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MOST));
    let counts = Arc::new(Counts::default());
    loop {
        let accepted = tokio::select! {
            biased;
            _ = end.wait_for(|end| *end) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let Some(counted) = counts.enter(peer.address.ip().to_canonical()) else { continue };
        let respond = respond.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = respond(peer, request.map(Body::new));
            async move { Ok::<_, Infallible>(response.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_headers(HEADER_COUNT)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(Stalling::new(stream, WRITE_TIME)), service);
        let mut end = end.clone();
        tokio::spawn(async move {
            let _held = (place, counted);
            tokio::pin!(connection);
            tokio::select! {
                // Broken connections are the client's business.
                _ = connection.as_mut() => return,
                _ = end.wait_for(|end| *end) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(END_TIME, places.acquire_many(MOST as u32)).await;
}

type Accepted = (tokio::net::TcpStream, Peer, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => {
            // Pieces of a stream go out as they come.
            let _ = stream.set_nodelay(true);
            Some((stream, Peer { address }, place))
        }
        Err(error) => {
            // Too many open files, for example: some will be closed.
            tracing::warn!("cannot accept a connection: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}
