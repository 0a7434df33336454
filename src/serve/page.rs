//! The page: its files lie in the program, are compressed once, and are the only files that are ever served.

mod files;

use std::io::Write;
use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::error::ApiError;
use super::http::reply::{self, Reply};

/// A file of the page.
#[derive(Debug)]
pub struct File {
    /// Its path below `/page/`.
    pub path: &'static str,
    /// Its contents.
    pub content: &'static [u8],
}

/// Nothing but what this server serves; no script and no style within the page's text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; \
                      manifest-src 'self'; worker-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";

/// What is served of a file.
struct Prepared {
    file: &'static File,
    content_type: &'static str,
    tag: String,
    /// Where that is smaller.
    gzip: Option<Bytes>,
}

fn prepared() -> &'static [Prepared] {
    static PREPARED: OnceLock<Vec<Prepared>> = OnceLock::new();
    PREPARED.get_or_init(|| files::FILES.iter().map(prepare).collect())
}

fn prepare(file: &'static File) -> Prepared {
    let hash = blake3::hash(file.content).to_hex();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let packed = encoder.write_all(file.content).and_then(|()| encoder.finish()).ok();
    Prepared {
        file,
        content_type: content_type(file.path),
        tag: format!("\"{}\"", &hash.as_str()[..24]),
        gzip: packed.filter(|packed| packed.len() + 64 < file.content.len()).map(Bytes::from),
    }
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "text/plain; charset=utf-8",
    }
}

/// Files that somebody without access gets: the pairing page's.
pub fn is_public(path: &str) -> bool {
    ["/page/pair.css", "/page/icon.svg"].contains(&path)
}

/// Whether a path belongs to the page.
pub fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/page/")
}

/// `/`.
pub async fn index(request: Request) -> Reply {
    serve("index.html", request.headers(), StatusCode::OK)
}

/// `/page/…`.
pub async fn file(Path(path): Path<String>, request: Request) -> Reply {
    // The pages themselves stand elsewhere.
    match path.ends_with(".html") {
        true => missing(),
        false => serve(&path, request.headers(), StatusCode::OK),
    }
}

/// The page for those who are not paired.
pub fn pairing(status: StatusCode) -> Reply {
    serve("pair.html", &HeaderMap::new(), status)
}

fn missing() -> Reply {
    reply::error(&ApiError::new(404, "the page has no such file").with_code("not_found"))
}

fn serve(path: &str, headers: &HeaderMap, status: StatusCode) -> Reply {
    // Looked up in a list: a path leads nowhere else.
    let Some(found) = prepared().iter().find(|prepared| prepared.file.path == path) else { return missing() };
    let says = |name: header::HeaderName, text: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        value.split(',').any(|part| part.split(';').next().unwrap_or("").trim().trim_start_matches("W/") == text)
    };
    let is_known = says(header::IF_NONE_MATCH, &found.tag);
    let gzip = found.gzip.as_ref().filter(|_| says(header::ACCEPT_ENCODING, "gzip"));
    let body = match gzip {
        _ if is_known => Body::empty(),
        Some(packed) => Body::from(packed.clone()),
        None => Body::from(Bytes::from_static(found.file.content)),
    };
    let status = if is_known { StatusCode::NOT_MODIFIED } else { status };
    let mut answer = reply::with_type(status, found.content_type, body);
    let headers = answer.headers_mut();
    if gzip.is_some() && !is_known {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Ok(tag) = HeaderValue::from_str(&found.tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static("camera=(self), microphone=(), geolocation=()"));
    if path == "worker.js" {
        // It keeps the page itself, too.
        headers.insert("service-worker-allowed", HeaderValue::from_static("/"));
    }
    answer
}
