//! `POST /tokenize`, as llama.cpp has it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use serde_json::{Value, json};

use super::Answer;
use crate::serve::error::ApiError;
use crate::serve::http::reply;
use crate::serve::request::fields::Fields;
use crate::serve::state::Server;

/// The tokens of a text.
pub async fn tokenize(State(server): State<Arc<Server>>, request: Request<Body>) -> Answer {
    let loaded = server.worker.loaded().await?;
    let body = server.bodies.json(request).await?;
    let fields = Fields::root(&body.value)?;
    let content = fields.required_string("content")?.to_owned();
    let add_special = fields.boolean("add_special")?.unwrap_or(false);
    let with_pieces = fields.boolean("with_pieces")?.unwrap_or(false);
    let share = body.share;
    let tokens = tokio::task::spawn_blocking(move || {
        let tokens = loaded.tokens.encode(&content, add_special)?;
        let piece = |token: &u32| -> Value {
            let bytes = loaded.tokens.bytes(*token);
            match String::from_utf8(bytes) {
                Ok(text) => json!({ "id": token, "piece": text }),
                Err(error) => json!({ "id": token, "piece": error.into_bytes() }),
            }
        };
        let list = match with_pieces {
            true => tokens.iter().map(piece).collect(),
            false => Value::from(tokens),
        };
        drop(share);
        Ok::<_, dwindle_runtime::Error>(list)
    });
    let tokens = tokens.await.map_err(|_| ApiError::new(500, "the tokenizer failed"))??;
    Ok(reply::json(&json!({ "tokens": tokens })))
}
