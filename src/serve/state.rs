//! What all requests share: the worker, who may ask, and what the user chose.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::ApiError;
use super::http::body::Bodies;
use super::http::guard::Key;
use super::http::origin::Allowed;
use super::lan::Lan;
use super::metrics::Metrics;
use super::pictures::Fetcher;
use super::worker::{Loaded, Worker};

/// The server.
pub struct Server {
    /// The thread that answers.
    pub worker: Worker,
    /// The name of what it serves.
    pub model: String,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Whether everybody may read them.
    pub tells_metrics: bool,
    /// Hosts and origins.
    pub allowed: Allowed,
    /// The key that requests must show.
    pub key: Option<Key>,
    /// Paired devices.
    pub lan: Lan,
    /// Fetches pictures, where that is allowed.
    pub fetcher: Option<Fetcher>,
    /// Memory for bodies.
    pub bodies: Bodies,
    /// Where it listens.
    pub url: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
}

impl Server {
    /// Names under which the models can be asked for.
    pub fn names<'a>(&'a self, loaded: &'a Loaded) -> impl Iterator<Item = &'a str> {
        let others = loaded.info.models.iter().map(String::as_str).filter(|name| *name != self.model);
        std::iter::once(self.model.as_str()).chain(others)
    }

    /// Checks the name of a model; none is the one that there is.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn check_model(&self, loaded: &Loaded, wanted: Option<&str>) -> Result<(), ApiError> {
        match wanted {
            Some(name) if !self.names(loaded).any(|known| known == name) => {
                let name: String = name.chars().take(100).collect();
                let message = format!("The model `{name}` does not exist; this server has `{}`.", self.model);
                let error = ApiError { status: 404, ..ApiError::field("model", message) };
                Err(error.with_code("model_not_found"))
            }
            _ => Ok(()),
        }
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A new number with a prefix, as OpenAI's objects have.
pub fn identifier(prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    // Nothing depends on its being unique but a client's bookkeeping.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().fold(prefix.to_owned(), |text, byte| text + &format!("{byte:02x}"))
}
