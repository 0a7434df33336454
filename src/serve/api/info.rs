//! What the server tells of itself: `/health`, `/metrics`, `/dwindle/info`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::json;

use super::Answer;
use crate::memory;
use crate::serve::error::ApiError;
use crate::serve::http::guard::Peer;
use crate::serve::http::reply;
use crate::serve::pictures;
use crate::serve::state::Server;
use crate::serve::tools;
use crate::serve::worker::Stage;

/// Whether it answers.
pub async fn health(State(server): State<Arc<Server>>) -> Answer {
    match server.worker.stage() {
        Stage::Ready(_) => Ok(reply::json(&json!({ "status": "ok" }))),
        Stage::Loading => Err(ApiError::loading()),
        Stage::Failed => Err(ApiError::new(503, "the engine failed; the server's log says why")),
    }
}

/// Its counters, where the user opened them.
pub async fn metrics(State(server): State<Arc<Server>>) -> Answer {
    match server.tells_metrics {
        true => Ok(reply::text("text/plain; version=0.0.4; charset=utf-8", server.metrics.text(server.worker.load()))),
        false => Err(ApiError::new(404, "metrics are off; start the server with `--metrics`").with_code("not_found")),
    }
}

/// What the page needs to know.
pub async fn info(State(server): State<Arc<Server>>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Answer {
    let loaded = server.worker.loaded().await?;
    let info = &loaded.info;
    let (waiting, limit, busy) = server.worker.load();
    let formats: &[&str] = if info.sees { &pictures::FORMATS } else { &[] };
    Ok(reply::json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": server.model,
        "models": info.models,
        "sees": info.sees,
        "ensemble": info.describer.is_some(),
        "describer": info.describer,
        "context": info.context,
        "device": info.device,
        "planned_peak_bytes": info.planned_peak_bytes,
        "resident_bytes": memory::resident_bytes(),
        "anonymous_bytes": memory::anonymous_bytes(),
        "slots": info.slots,
        "queue": { "length": waiting, "limit": limit },
        "busy": busy,
        "has_template": info.template.is_some(),
        "tools": tools::syntax_of(info).is_some(),
        "picture_formats": formats,
        "sampling": {
            "temperature": info.sampling.temperature,
            "top_p": info.sampling.top_p,
            "top_k": info.sampling.top_k,
            "min_p": info.sampling.min_p,
            "repetition_penalty": info.sampling.repetition_penalty,
        },
        "lan": { "on": server.lan.url().is_some(), "url": server.lan.url() },
        "local": peer.is_local(&headers),
    })))
}
