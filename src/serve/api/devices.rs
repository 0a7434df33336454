//! Pairing of devices, and looking after them.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use serde_json::json;

use super::Answer;
use crate::serve::error::ApiError;
use crate::serve::http::guard::{Access, COOKIE};
use crate::serve::http::reply;
use crate::serve::lan;
use crate::serve::page;
use crate::serve::state::Server;

/// A year, as long as the devices' file remembers a device.
const COOKIE_SECONDS: u64 = 365 * 24 * 3600;

/// Pairs whoever shows the token.
pub async fn pair(State(server): State<Arc<Server>>, request: Request<Body>) -> Answer {
    if !server.lan.pairs() {
        let message = "devices are not paired here: start the server with `--lan` or `--api-key`";
        return Err(ApiError::new(404, message).with_code("not_found"));
    }
    // A program that only looks must not spend the token.
    if request.method() == Method::HEAD {
        return Ok(page::pairing(StatusCode::OK));
    }
    let name = request.headers().get(header::USER_AGENT).and_then(|name| name.to_str().ok()).unwrap_or("").to_owned();
    let query = request.uri().query().unwrap_or("");
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or("").to_owned();
    let paired = server.lan.pair(&token, &name);
    let secret = paired.map_err(|error| {
        tracing::warn!("a device cannot be paired: {error:#}");
        ApiError::new(500, format!("the device cannot be paired: {error}"))
    })?;
    let Some(secret) = secret else { return Ok(page::pairing(StatusCode::UNAUTHORIZED)) };
    let mut answer = reply::with_type(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "paired");
    let cookie = format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path=/; Max-Age={COOKIE_SECONDS}");
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Hexadecimal digits need no escaping.
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    Ok(answer)
}

fn only_full(access: &Access) -> Result<(), ApiError> {
    match access {
        Access::Full => Ok(()),
        Access::Device(_) => {
            let message = "devices are looked after on the computer that runs the server, or with the API key";
            Err(ApiError::new(403, message).with_code("forbidden"))
        }
    }
}

/// The paired devices, and the address that pairs the next one.
pub async fn list(
    State(server): State<Arc<Server>>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
) -> Answer {
    only_full(&access)?;
    let failed = |error: anyhow::Error| ApiError::new(500, error.to_string());
    let current = crate::serve::http::guard::cookie(&headers).and_then(|secret| server.lan.device_of(secret));
    let devices = server.lan.devices().into_iter().map(|device| {
        json!({
            "id": device.id,
            "name": device.name,
            "paired_at": device.paired_at,
            "last_seen": device.last_seen,
            "current": current.as_ref() == Some(&device.id),
        })
    });
    let devices: Vec<_> = devices.collect();
    let url = server.lan.pairing_url(&server.url).map_err(failed)?;
    let qr_svg = url.as_deref().map(lan::svg).transpose().map_err(failed)?;
    Ok(reply::json(&json!({ "devices": devices, "url": url, "qr_svg": qr_svg })))
}

/// Forgets a device.
pub async fn revoke(
    State(server): State<Arc<Server>>,
    Extension(access): Extension<Access>,
    Path(id): Path<String>,
) -> Answer {
    only_full(&access)?;
    match server.lan.revoke(&id) {
        Ok(true) => Ok(reply::json(&json!({ "id": id, "deleted": true }))),
        Ok(false) => Err(ApiError::new(404, "there is no device of this number").with_code("not_found")),
        Err(error) => Err(ApiError::new(500, format!("the device cannot be revoked: {error:#}"))),
    }
}
