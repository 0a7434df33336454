//! Reads the bodies of requests: bounded in size, in time, and all together in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::serve::error::ApiError;

/// The most bytes of a body; a photo in base64 has about ten million.
pub const MOST_BYTES: usize = 64 << 20;
/// The most bytes of all bodies that are read or wait.
const MOST_TOGETHER: usize = 128 << 20;
/// The longest silence within a body.
const SILENCE: Duration = Duration::from_secs(30);
/// What is too large is read this far and dropped, because clients that are still sending do not read an answer.
const MOST_DROPPED: usize = 256 << 20;
/// Larger bodies are parsed on another thread, so that streams go on meanwhile.
const PARSED_HERE: usize = 256 << 10;

/// Memory for the bodies of requests.
#[derive(Debug)]
pub struct Bodies(Arc<Semaphore>);

/// A request's share of that memory; given back when it is dropped.
#[derive(Debug)]
pub struct Share(#[expect(dead_code, reason = "it counts as long as it lives")] OwnedSemaphorePermit);

/// A body, and its share of the memory.
pub struct Parsed {
    /// Its JSON.
    pub value: Value,
    /// To be kept as long as anything large of the body is.
    pub share: Share,
}

impl Default for Bodies {
    fn default() -> Self {
        Bodies(Arc::new(Semaphore::new(MOST_TOGETHER >> 10)))
    }
}

fn too_large() -> ApiError {
    let message = format!("the request's body is larger than {} MiB; send smaller or fewer pictures", MOST_BYTES >> 20);
    ApiError::new(413, message).with_code("request_too_large")
}

impl Bodies {
    /// Reads a body of JSON.
    ///
    /// # Errors
    /// It is too large, too slow, or no JSON.
    pub async fn json(&self, request: Request<Body>) -> Result<Parsed, ApiError> {
        let (head, body) = request.into_parts();
        let length = declared(&head.headers);
        if length.is_some_and(|length| length > MOST_BYTES as u64) {
            if !head.headers.contains_key(header::EXPECT) {
                discard(body).await;
            }
            return Err(too_large());
        }
        let share = length.map_or(MOST_BYTES, |length| length as usize).div_ceil(1 << 10) + 1;
        let Ok(mut share) = Arc::clone(&self.0).try_acquire_many_owned(share as u32) else {
            let message = "the server holds as many large requests as it has memory for; try again in a moment";
            return Err(ApiError::new(503, message).with_code("out_of_memory").with_retry(5));
        };
        let bytes = collect(body).await?;
        // A body without a length was counted as the largest one.
        let used = bytes.len().div_ceil(1 << 10) + 1;
        if let Some(rest) = share.num_permits().checked_sub(used) {
            drop(share.split(rest));
        }
        let parse = move || serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string());
        let parsed = match used << 10 > PARSED_HERE {
            false => parse(),
            true => tokio::task::spawn_blocking(parse).await.unwrap_or_else(|error| Err(error.to_string())),
        };
        match parsed {
            Ok(value) => Ok(Parsed { value, share: Share(share) }),
            Err(why) => {
                Err(ApiError::bad(format!("the request's body is no valid JSON: {why}")).with_code("invalid_json"))
            }
        }
    }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect(mut body: Body) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    loop {
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Err(_))) => return Err(ApiError::bad("the request's body broke off")),
            Err(_) => {
                let message = format!("nothing of the request's body came for {} seconds", SILENCE.as_secs());
                return Err(ApiError::new(408, message));
            }
        };
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > MOST_BYTES {
                discard(body).await;
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Reads what is left of a body, for a while.
async fn discard(mut body: Body) {
    let mut dropped = 0;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > MOST_DROPPED {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(SILENCE, read).await;
}
