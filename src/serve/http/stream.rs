//! Server-sent events: a task writes them, the connection reads them, and whichever ends first ends the other.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Response, header};
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::reply::Reply;
use crate::serve::updates::{Update, Updates};

/// The longest silence of a stream; proxies and clients give up after a minute or more.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// Pieces between the task and the connection; more wait as updates.
const PIECES: usize = 16;

/// Where a task writes its events.
#[derive(Debug)]
pub struct Events(Sender<Bytes>);

/// The client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

impl Events {
    /// Writes `data: …`.
    ///
    /// # Errors
    /// The client left.
    pub async fn data(&self, value: &Value) -> Result<(), Left> {
        self.write(format!("data: {value}\n\n")).await
    }

    /// Writes an event with a name.
    ///
    /// # Errors
    /// The client left.
    pub async fn named(&self, name: &str, value: &Value) -> Result<(), Left> {
        self.write(format!("event: {name}\ndata: {value}\n\n")).await
    }

    /// Writes a comment about the progress, which clients ignore and the page reads.
    ///
    /// # Errors
    /// The client left.
    pub async fn progress(&self, value: &Value) -> Result<(), Left> {
        self.write(format!(": dwindle {value}\n\n")).await
    }

    /// Writes the end that OpenAI's clients wait for.
    ///
    /// # Errors
    /// The client left.
    pub async fn done(&self) -> Result<(), Left> {
        self.write("data: [DONE]\n\n".to_owned()).await
    }

    async fn write(&self, text: String) -> Result<(), Left> {
        self.0.send(text.into()).await.map_err(|_| Left)
    }

    /// Waits for the next update of a request; comments keep the connection alive meanwhile.
    ///
    /// # Errors
    /// The client left.
    pub async fn next(&self, updates: &mut Updates) -> Result<Option<Update>, Left> {
        loop {
            tokio::select! {
                biased;
                () = self.0.closed() => return Err(Left),
                update = updates.next() => return Ok(update),
                () = tokio::time::sleep(HEARTBEAT) => self.progress(&serde_json::json!({ "phase": "waiting" })).await?,
            }
        }
    }
}

struct Pieces(Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Starts a task that writes events, and answers with what it writes. Headers go out at once.
pub fn events<F>(task: impl FnOnce(Events) -> F) -> Reply
where
    F: Future<Output = Result<(), Left>> + Send + 'static,
{
    let (sender, receiver) = channel(PIECES);
    let task = task(Events(sender));
    tokio::spawn(async move {
        // Whoever left does not need to hear of it.
        let _ = task.await;
    });
    let mut reply = Response::new(Body::new(Pieces(receiver)));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx would collect the whole answer first.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}

/// An update that is progress, as a comment's JSON; `None` for parts of the answer.
pub fn progress(update: &Update) -> Option<Value> {
    use serde_json::json;
    Some(match update {
        Update::Queued(position) => json!({ "phase": "queued", "position": position }),
        Update::Describing { picture, pictures } => {
            json!({ "phase": "describing", "picture": picture, "pictures": pictures })
        }
        Update::Described { picture, pictures, text, cached } => json!({
            "phase": "described", "picture": picture, "pictures": pictures, "text": text, "cached": cached
        }),
        Update::Encoding { picture, pictures } => {
            json!({ "phase": "encoding", "picture": picture, "pictures": pictures })
        }
        Update::Prefill { done, total, cached } => {
            json!({ "phase": "prefill", "done": done, "total": total, "cached": cached })
        }
        Update::Text { .. } | Update::Done(_) | Update::Failed(_) => return None,
    })
}
