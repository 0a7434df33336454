//! Requests to the hub: addresses, who asks, what a refusal means, and when to try again.

use std::fmt::Write;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::digest::Digest;
use super::error::Error;
use super::listing::{self, Entry, Misread};
use super::origin::{Origin, resolve};
use super::pace::Paced;
use super::settings::Settings;

/// How often in a row a request may fail without a single byte arriving.
const ATTEMPTS: u32 = 5;
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The hub may ask for longer pauses than anybody wants to wait for unasked.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A connection that is silent for longer is broken.
const SILENCE: Duration = Duration::from_secs(30);
/// A listing that is longer is no listing.
const MAX_LISTING: u64 = 64 << 20;
/// The hub redirects once, to a store; renamed models once more.
const MAX_REDIRECTS: usize = 8;

/// Speaks to one hub.
#[derive(Debug, Clone)]
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
}

/// What a request is about, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) id: &'a str,
    pub(super) revision: &'a str,
    /// None for the listing.
    pub(super) file: Option<&'a str>,
}

/// A request that failed, and whether another may succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
}

/// When a failed request is worth another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Soon,
    /// The hub said when.
    After(Duration),
}

impl Failure {
    pub(super) fn never(error: Error) -> Self {
        Failure { error, again: Again::Never }
    }
}

impl Subject<'_> {
    pub(super) fn what(&self) -> String {
        match self.file {
            Some(file) => format!("{file} of {}", self.id),
            None => self.id.to_owned(),
        }
    }

    /// A broken connection.
    pub(super) fn broken(&self, reason: impl ToString) -> Failure {
        let error = Error::Network { what: self.what(), reason: reason.to_string(), cached: false };
        Failure { error, again: Again::Soon }
    }
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed here, since the token is for the hub alone.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("dwindle/", env!("CARGO_PKG_VERSION")));
        Client { agent: config.build().new_agent(), endpoint: settings.endpoint.clone(), token: settings.token.clone() }
    }

    /// What the hub says a model holds at a revision: its commit, and the files that a conversion needs.
    pub(super) fn describe(&self, subject: Subject) -> Result<(String, Vec<Entry>), Failure> {
        let path = format!("/api/models/{}/revision/{}?blobs=true", subject.id, encode(subject.revision));
        let response = self.get(&path, None, subject)?;
        let body = response.into_body().into_with_config().limit(MAX_LISTING).reader();
        listing::parse(io::BufReader::new(Paced::new(body))).map_err(|misread| match misread {
            Misread::Broken(reason) => subject.broken(reason),
            Misread::Nonsense(reason) => Failure::never(Error::Answer { what: subject.what(), reason }),
        })
    }

    /// A file from byte `from` on. The answer may be all of the file nevertheless (status 200 instead of 206).
    pub(super) fn file(
        &self,
        commit: &str,
        name: &str,
        from: u64,
        subject: Subject,
    ) -> Result<Response<Body>, Failure> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        self.get(&file_path(subject.id, commit, name), range.as_deref(), subject)
    }

    /// Size and hash of a file, from the headers of its address, where the listing tells neither.
    pub(super) fn measure(&self, commit: &str, name: &str, subject: Subject) -> Result<(u64, Digest), Failure> {
        let address = format!("{}{}", self.endpoint, file_path(subject.id, commit, name));
        // The hub answers with a redirection to its stores, whose own headers would say something else.
        let request = self.authorized(self.agent.head(&address), &address);
        let response = request.call().map_err(|error| subject.broken(error))?;
        if response.status().as_u16() >= 400 {
            return Err(self.refusal(&response, subject));
        }
        let headers = response.headers();
        let size = header(headers, "x-linked-size").or(header(headers, "content-length")).and_then(|s| s.parse().ok());
        let etag = header(headers, "x-linked-etag").or(header(headers, "etag"));
        let digest = etag.and_then(|tag| Digest::parse(tag.trim_start_matches("W/").trim_matches('"')));
        size.zip(digest).ok_or_else(|| Failure::never(Error::NoHash { file: name.to_owned() }))
    }

    /// Asks the hub, and whomever it redirects to.
    fn get(&self, path: &str, range: Option<&str>, subject: Subject) -> Result<Response<Body>, Failure> {
        let nonsense = |reason| Failure::never(Error::Answer { what: subject.what(), reason });
        let mut address = format!("{}{path}", self.endpoint);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.authorized(self.agent.get(&address), &address);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let response = request.call().map_err(|error| subject.broken(error))?;
            match response.status().as_u16() {
                200 | 206 | 416 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let target = header(response.headers(), "location").and_then(|target| resolve(&address, target));
                    address = target.ok_or_else(|| nonsense("it redirects to no usable address".to_owned()))?;
                }
                _ => return Err(self.refusal(&response, subject)),
            }
        }
        Err(nonsense(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    /// Adds the token if the address is the hub's own: the same scheme, host and port. Files come from elsewhere, by addresses
    /// that hold their own permission.
    fn authorized<B>(&self, request: ureq::RequestBuilder<B>, address: &str) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) if Origin::of(address).is_some_and(|origin| Origin::of(&self.endpoint) == Some(origin)) => {
                request.header("Authorization", format!("Bearer {token}"))
            }
            _ => request,
        }
    }

    /// What an answer means that is not what was asked for.
    fn refusal(&self, response: &Response<Body>, subject: Subject) -> Failure {
        let Subject { id, revision, file } = subject;
        let (id, revision, with_token) = (id.to_owned(), revision.to_owned(), self.token.is_some());
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let error = match (response.status().as_u16(), code, file) {
            (403, _, _) | (_, "GatedRepo", _) => {
                Error::Gated { page: format!("{}/{id}", self.endpoint), id, with_token }
            }
            (401, _, _) => Error::Unauthorized { id, with_token },
            (404, "" | "EntryNotFound", Some(file)) => {
                Error::NoSuchFile { id, revision, file: file.to_owned(), hint: ", though it was listed; try again" }
            }
            (404, _, _) => Error::NoSuchModel { id, revision },
            (429, _, _) => {
                let wait = wanted_pause(response.headers());
                let again = match wait {
                    Some(wait) if wait > LONGEST_PAUSE => Again::Never,
                    Some(wait) => Again::After(wait),
                    None => Again::Soon,
                };
                return Failure { error: Error::RateLimited { wait }, again };
            }
            (status, _, _) => {
                let again = match wanted_pause(response.headers()) {
                    Some(wait) if status >= 500 && wait <= LONGEST_PAUSE => Again::After(wait),
                    _ if status >= 500 || status == 408 => Again::Soon,
                    _ => Again::Never,
                };
                return Failure { error: Error::Status { status, what: subject.what() }, again };
            }
        };
        Failure::never(error)
    }
}

/// Counts failures in a row, and pauses after each.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Something arrived: the next failure is a first one again.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits until it is time for another request, or gives the error back.
    pub(super) fn endure(&mut self, failure: Failure, stop: &AtomicBool) -> Result<(), Error> {
        self.failures += 1;
        let pause = match failure.again {
            Again::Never => return Err(failure.error),
            _ if self.failures >= ATTEMPTS => return Err(failure.error),
            Again::Soon => {
                tracing::info!("{}; trying again", failure.error);
                FIRST_PAUSE * (1 << (self.failures - 1))
            }
            Again::After(pause) => {
                tracing::warn!("the hub asks for a pause; going on in {} s", pause.as_secs());
                pause
            }
        };
        let end = Instant::now() + pause;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Abandoned);
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

/// The pause that `Retry-After` asks for, or the hub's `RateLimit: "api";r=0;t=SECONDS`.
fn wanted_pause(headers: &HeaderMap) -> Option<Duration> {
    let after = header(headers, "retry-after").and_then(|text| text.trim().parse().ok());
    let limit =
        || header(headers, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    after.or_else(limit).map(Duration::from_secs)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn file_path(id: &str, commit: &str, name: &str) -> String {
    format!("/{id}/resolve/{commit}/{}", encode(name))
}

/// A part of an address: everything that could mean something else is escaped.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing into a string cannot fail.
            _ => write!(encoded, "%{byte:02X}").unwrap_or_default(),
        }
    }
    encoded
}

/// Reads the body in pieces: each piece, or what broke.
pub(super) fn pieces(
    response: Response<Body>,
    stop: &AtomicBool,
    subject: Subject,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Failure> {
    let mut reader = Paced::new(response.into_body().into_reader());
    let mut buffer = vec![0; 1 << 18];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::never(Error::Abandoned));
        }
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&buffer[..count]).map_err(Failure::never)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(subject.broken(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped() {
        assert_eq!(encode("model-00001.safetensors"), "model-00001.safetensors");
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode("a b?c#ü"), "a%20b%3Fc%23%C3%BC");
    }

    #[test]
    fn pauses_that_the_hub_asks_for() {
        let pause = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            wanted_pause(&headers).map(|pause| pause.as_secs())
        };
        assert_eq!(pause("retry-after", "17"), Some(17));
        assert_eq!(pause("ratelimit", "\"api\";r=0;t=55"), Some(55));
        // A date is a possible form too; the usual pauses are as good.
        assert_eq!(pause("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"), None);
        assert_eq!(pause("retry-after", "-1"), None);
    }

    #[test]
    fn patience_ends_and_is_renewed() {
        let stop = AtomicBool::new(false);
        let subject = Subject { id: "a/b", revision: "main", file: None };
        let at_once = || Failure { again: Again::After(Duration::ZERO), ..subject.broken("gone") };
        let mut patience = Patience::default();
        for _ in 1..ATTEMPTS {
            patience.endure(at_once(), &stop).unwrap();
        }
        assert!(matches!(patience.endure(at_once(), &stop), Err(Error::Network { .. })));
        patience.renew();
        patience.endure(at_once(), &stop).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(patience.endure(subject.broken("gone"), &stop), Err(Error::Abandoned)));
    }
}
