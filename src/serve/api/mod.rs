//! The endpoints.

mod chat;
mod completions;
mod devices;
mod figures;
mod info;
mod models;
mod prepare;
mod responses;
mod tokenize;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};

use super::error::ApiError;
use super::http::reply::{self, Reply};
use super::page;
use super::state::Server;

/// What a handler gives.
pub type Answer = Result<Reply, ApiError>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        reply::error(&self)
    }
}

/// All endpoints.
pub fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{*path}", get(page::file))
        .route("/pair", get(devices::pair))
        .route("/health", get(info::health))
        .route("/metrics", get(info::metrics))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/dwindle/info", get(info::info))
        .route("/dwindle/devices", get(devices::list))
        .route("/dwindle/devices/{id}", delete(devices::revoke))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/embeddings", post(embeddings))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(server)
}

async fn unknown(request: Request<Body>) -> ApiError {
    let path: String = request.uri().path().chars().take(100).collect();
    ApiError::new(404, format!("there is no {} {path}", request.method())).with_code("not_found")
}

async fn wrong_method(request: Request<Body>) -> ApiError {
    let path: String = request.uri().path().chars().take(100).collect();
    ApiError::new(405, format!("{path} does not accept {}", request.method())).with_code("method_not_allowed")
}

/// No bundle of today holds a model for embeddings.
async fn embeddings(State(server): State<Arc<Server>>, _request: Request<Body>) -> ApiError {
    let message = format!("the model `{}` makes no embeddings; it chats and completes texts", server.model);
    ApiError::field("model", message).with_code("embeddings_not_supported")
}
