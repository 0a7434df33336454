//! Fetches pictures from the web for `--allow-image-urls`: bounded in size, time and redirects, and never from this
//! machine or its network.
//!
//! Every name is resolved here, every address of it is checked, and the connection goes to a checked address, so a name
//! that resolves differently the next moment gains nothing. Each redirect goes through the same.

use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::Semaphore;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::addresses::is_public;
use crate::serve::error::ApiError;

/// The most bytes of a picture from the web.
const MOST_BYTES: u64 = 32 << 20;
/// The longest a picture may take, all redirects together.
const TIMEOUT: Duration = Duration::from_secs(20);
const MOST_REDIRECTS: u32 = 3;
/// Fetches at the same time.
const AT_ONCE: usize = 4;

/// Fetches pictures.
pub struct Fetcher {
    agent: ureq::Agent,
    places: Arc<Semaphore>,
}

/// Resolves names, and refuses those that lead to an address that must not be connected to.
#[derive(Debug)]
struct Checked {
    inner: DefaultResolver,
    may_connect: fn(IpAddr) -> bool,
}

impl Resolver for Checked {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        match found.iter().all(|address| (self.may_connect)(address.ip())) {
            true => Ok(found),
            // One private address among public ones is as suspicious.
            false => Err(ureq::Error::Other(Box::new(Private))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("its address is not on the public internet")]
struct Private;

impl Fetcher {
    /// A fetcher that reaches the public internet alone.
    pub fn new() -> Fetcher {
        Fetcher::reaching(is_public)
    }

    /// A fetcher that reaches the addresses that pass a check.
    fn reaching(may_connect: fn(IpAddr) -> bool) -> Fetcher {
        let config = ureq::Agent::config_builder()
            .max_redirects(MOST_REDIRECTS)
            .timeout_global(Some(TIMEOUT))
            .proxy(None)
            .user_agent(concat!("dwindle/", env!("CARGO_PKG_VERSION")))
            .build();
        let resolver = Checked { inner: DefaultResolver::default(), may_connect };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Fetcher { agent, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Fetches one picture; `field` names it.
    ///
    /// # Errors
    /// It cannot be had, or is no picture.
    pub async fn fetch(&self, url: String, field: String) -> Result<Bytes, ApiError> {
        let _place = self.places.acquire().await;
        let agent = self.agent.clone();
        let fetched = tokio::task::spawn_blocking(move || get(&agent, &url)).await;
        let fetched = fetched.unwrap_or_else(|error| Err(error.to_string()));
        let file = fetched.map_err(|why| {
            ApiError::field(field.clone(), format!("the picture cannot be fetched: {why}"))
                .with_code("invalid_image_url")
        })?;
        super::check(&file, &field)?;
        Ok(file)
    }
}

fn get(agent: &ureq::Agent, url: &str) -> Result<Bytes, String> {
    let response = agent.get(url).call().map_err(|error| match error {
        // What a private server answers is nobody's business; that it is private may be said.
        ureq::Error::Other(inner) => inner.to_string(),
        ureq::Error::StatusCode(status) => format!("the server answers with status {status}"),
        ureq::Error::TooManyRedirects => format!("more than {MOST_REDIRECTS} redirects"),
        ureq::Error::Timeout(_) => format!("it takes more than {} seconds", TIMEOUT.as_secs()),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        _ => "the connection failed".to_owned(),
    })?;
    let mut file = Vec::new();
    let reader = response.into_body().into_with_config().limit(MOST_BYTES + 1).reader();
    let read = reader.take(MOST_BYTES + 1).read_to_end(&mut file);
    if file.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {} MiB", MOST_BYTES >> 20));
    }
    read.map_err(|_| "the connection broke off".to_owned())?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers each connection by the path that it asks for; gives its port.
    fn server(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(32) {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
                answer(first.split(' ').nth(1).unwrap_or(""), &mut stream);
            }
        });
        port
    }

    fn fetch(fetcher: &Fetcher, url: String) -> Result<Bytes, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(fetcher.fetch(url, "f".to_owned())).map_err(|error| error.message)
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and what follows";

    #[test]
    fn private_addresses_are_not_connected_to() {
        let port = server(|_, stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")));
        let fetcher = Fetcher::new();
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
            "169.254.169.254",
            "2130706433",
            "0x7f.1",
        ] {
            let why = fetch(&fetcher, format!("http://{host}:{port}/a.png")).unwrap_err();
            assert!(
                why.contains("not on the public internet")
                    || why.contains("no such host")
                    || why.contains("connection failed"),
                "{host}: {why}"
            );
            assert!(!why.contains("status"), "{host} was asked: {why}");
        }
    }

    #[test]
    fn redirects_are_checked_as_well() {
        // 127.0.0.1 plays the public internet, ::1 and 127.0.0.2 the private one.
        let public = |address: IpAddr| address == IpAddr::from([127, 0, 0, 1]);
        let port = server(|path, stream| {
            let answer = match path {
                "/away" => {
                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:1/x\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                "/loop" => "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/gone" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/text" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
                "/large" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20),
                _ => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PNG.len());
                    let _ = stream.write_all(&[head.as_bytes(), PNG].concat());
                    return;
                }
            };
            let _ = stream.write_all(answer.as_bytes());
            if path == "/large" {
                let _ = (0..64).try_for_each(|_| stream.write_all(&vec![0; 1 << 20]));
            }
        });
        let fetcher = Fetcher::reaching(public);
        let at = |path: &str| fetch(&fetcher, format!("http://127.0.0.1:{port}{path}"));
        assert_eq!(at("/a.png").unwrap(), PNG);
        assert!(at("/away").unwrap_err().contains("not on the public internet"));
        assert!(at("/loop").unwrap_err().contains("redirects"));
        assert!(at("/gone").unwrap_err().contains("status 404"));
        assert!(at("/large").unwrap_err().contains("more than 32 MiB"));
        assert!(at("/text").unwrap_err().contains("cannot be used"));
    }
}
