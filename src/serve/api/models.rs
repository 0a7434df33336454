//! `GET /v1/models` and `/v1/models/{id}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Answer;
use crate::serve::http::reply;
use crate::serve::state::Server;

/// All models: the bundle's, under one name.
pub async fn list(State(server): State<Arc<Server>>) -> Answer {
    let loaded = server.worker.loaded().await?;
    Ok(reply::json(&json!({ "object": "list", "data": [object(&server, &loaded.info)] })))
}

/// One of them.
pub async fn one(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Answer {
    let loaded = server.worker.loaded().await?;
    server.check_model(&loaded, Some(&id))?;
    let mut model = object(&server, &loaded.info);
    model["id"] = id.into();
    Ok(reply::json(&model))
}

fn object(server: &Server, info: &crate::serve::engine::Info) -> Value {
    json!({
        "id": server.model,
        "object": "model",
        "created": server.started,
        "owned_by": "dwindle",
        // As vLLM and LM Studio tell it.
        "max_model_len": info.context,
        "meta": { "n_ctx": info.context, "n_vocab": info.vocab_size, "models": info.models, "sees": info.sees },
    })
}
