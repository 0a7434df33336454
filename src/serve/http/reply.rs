//! Whole answers: JSON, errors, texts.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::serve::error::ApiError;

/// An answer to a request.
pub type Reply = Response<Body>;

/// A JSON answer with status 200.
pub fn json(value: &Value) -> Reply {
    with_type(StatusCode::OK, "application/json", value.to_string())
}

/// A text of a type.
pub fn text(content_type: &'static str, text: String) -> Reply {
    with_type(StatusCode::OK, content_type, text)
}

/// A body of a type.
pub fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

/// An error as OpenAI's object.
pub fn error(error: &ApiError) -> Reply {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = with_type(status, "application/json", error.body().to_string());
    let headers = reply.headers_mut();
    if let Some(seconds) = error.retry_after {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // Nobody has to be asked again whether an error is still one.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}
