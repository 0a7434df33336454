//! What happens to every request before and after its endpoint: who asks, from where, and what answers always say.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::http::guard::{self, Access, Peer};
use super::http::reply::{self, Reply};
use super::page;
use super::state::Server;

/// How long whoever shows a wrong key waits for the answer.
const WRONG_KEY: Duration = Duration::from_millis(200);

/// All requests come through here.
#[derive(Clone)]
pub struct Gate {
    server: Arc<Server>,
    router: Router,
}

impl Gate {
    /// A gate before endpoints.
    pub fn new(server: Arc<Server>) -> Gate {
        let router = super::api::router(Arc::clone(&server));
        Gate { server, router }
    }

    /// Answers one request.
    pub async fn respond(self, peer: Peer, request: Request<Body>) -> Reply {
        let (mut head, body) = request.into_parts();
        // The path alone: queries may hold tokens.
        tracing::debug!("{} {}", head.method, head.uri.path());
        let origin = match self.server.allowed.check(&head.headers, &head.uri) {
            Ok(origin) => origin,
            Err(error) => return self.finish(reply::error(&error), None),
        };
        if let Some(origin) = &origin
            && head.method == Method::OPTIONS
            && head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        {
            return self.finish(preflight(&head), Some(origin));
        }
        head.extensions.insert(peer);
        match self.access(peer, &head) {
            Some(access) => {
                head.extensions.insert(access);
            }
            None if is_open(peer, &head) => {}
            None => {
                let reply = self.refused(&head).await;
                return self.finish(reply, origin.as_deref());
            }
        }
        let service = TowerToHyperService::new(self.router.clone());
        // Its error type has no values.
        let Ok(reply) = service.call(Request::from_parts(head, body)).await;
        self.finish(reply, origin.as_deref())
    }

    fn access(&self, peer: Peer, head: &Parts) -> Option<Access> {
        guard::access(peer, head, self.server.key.as_ref(), &self.server.lan)
    }

    async fn refused(&self, head: &Parts) -> Reply {
        let is_looked_at = head.method == Method::GET && head.uri.path() == "/" && self.server.lan.pairs();
        if is_looked_at {
            return page::pairing(StatusCode::UNAUTHORIZED);
        }
        let had_key = head.headers.contains_key(header::AUTHORIZATION);
        if had_key {
            tokio::time::sleep(WRONG_KEY).await;
        }
        reply::error(&guard::unauthorized(self.server.key.as_ref(), had_key))
    }

    /// What all answers say.
    fn finish(&self, mut reply: Reply, origin: Option<&str>) -> Reply {
        self.server.metrics.responded(reply.status().as_u16());
        let headers = reply.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
        if let Some(origin) = origin.and_then(|origin| HeaderValue::from_str(origin).ok()) {
            // One origin by its name, and never with credentials.
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
            headers.insert("cross-origin-resource-policy", HeaderValue::from_static("cross-origin"));
        }
        reply
    }
}

/// What is open to those without access: pairing and its files, and, on this machine, the page and whether the server lives.
fn is_open(peer: Peer, head: &Parts) -> bool {
    let path = head.uri.path();
    let is_local = peer.is_local(&head.headers) && (path == "/health" || page::is_page(path));
    path == "/pair" || page::is_public(path) || is_local
}

fn preflight(head: &Parts) -> Reply {
    let mut reply = Reply::new(Body::empty());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    // Clients send headers of their own; none of them means anything here.
    if let Some(wanted) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    if head.headers.contains_key("access-control-request-private-network") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    reply
}
