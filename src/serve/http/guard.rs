//! Who may ask for what: this machine, whoever has the key, and paired devices.

use std::net::SocketAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::serve::error::ApiError;
use crate::serve::lan::Lan;

/// What a request may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Everything but looking after devices.
    Device(String),
}

/// A key, of which only the hash is kept.
#[derive(Clone)]
pub struct Key(blake3::Hash);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Remembers a key.
    pub fn new(key: &str) -> Key {
        Key(blake3::hash(key.as_bytes()))
    }

    /// Whether it is the key; takes the same time for every wrong one.
    fn is(&self, given: &str) -> bool {
        self.0.as_bytes().ct_eq(blake3::hash(given.as_bytes()).as_bytes()).into()
    }
}

/// The cookie that a paired device shows.
pub const COOKIE: &str = "dwindle_device";

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The other end of the connection.
    pub address: SocketAddr,
}

impl Peer {
    /// Whether it is this machine, and no proxy on it that speaks for others.
    pub fn is_local(&self, headers: &HeaderMap) -> bool {
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
        self.address.ip().to_canonical().is_loopback() && !forwarded
    }
}

/// Finds out what a request may do; `None`: nothing.
pub fn access(peer: Peer, head: &Parts, key: Option<&Key>, lan: &Lan) -> Option<Access> {
    let bearer = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    if let (Some(key), Some((_, given))) = (key, bearer)
        && key.is(given.trim())
    {
        return Some(Access::Full);
    }
    if key.is_none() && peer.is_local(&head.headers) {
        return Some(Access::Full);
    }
    cookie(&head.headers).and_then(|secret| lan.device_of(secret)).map(Access::Device)
}

/// The secret of a paired device.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

/// What somebody without access is told.
pub fn unauthorized(key: Option<&Key>, had_key: bool) -> ApiError {
    let (message, code) = match (key, had_key) {
        (Some(_), true) => ("Incorrect API key provided.", "invalid_api_key"),
        (Some(_), false) => (
            "You didn't provide an API key: send it as `Authorization: Bearer KEY`, or pair this device.",
            "missing_api_key",
        ),
        (None, _) => {
            ("This device is not paired: open the address with the token that the server prints.", "not_paired")
        }
    };
    ApiError::new(401, message).with_code(code)
}
