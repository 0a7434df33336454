//! Which `Host` and `Origin` headers are accepted: a page of the web must not reach this server, not even through a name
//! that its owner points at this machine (DNS rebinding).

use std::net::IpAddr;

use anyhow::{Result, bail};
use axum::http::{HeaderMap, Uri, header};

use crate::serve::error::ApiError;

/// Names and origins besides the usual ones.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    hosts: Vec<String>,
    origins: Vec<String>,
    any_origin: bool,
}

impl Allowed {
    /// Reads the user's lists. Any origin is accepted only where a key is asked for.
    ///
    /// # Errors
    /// A text that is no origin or no name.
    pub fn new(hosts: &[String], origins: &[String], has_key: bool) -> Result<Allowed> {
        let mut allowed = Allowed::default();
        for host in hosts {
            if host.is_empty() || host.contains(['/', ':', ' ']) {
                bail!("--allow-host {host}: expected a name like chat.example.org, without scheme and port");
            }
            allowed.hosts.push(host.to_ascii_lowercase());
        }
        for origin in origins {
            if origin == "*" {
                if !has_key {
                    bail!("--allow-origin '*' would let every page of the web use the model; it needs --api-key");
                }
                allowed.any_origin = true;
                continue;
            }
            let parsed: Option<Uri> = origin.parse().ok();
            let is_origin = |uri: &Uri| {
                uri.scheme().is_some() && uri.host().is_some() && uri.path() == "/" && uri.query().is_none()
            };
            if !parsed.as_ref().is_some_and(is_origin) || origin.ends_with('/') {
                bail!("--allow-origin {origin}: expected a scheme and a host like http://localhost:3000");
            }
            allowed.origins.push(origin.to_ascii_lowercase());
        }
        Ok(allowed)
    }

    /// Checks the headers; gives the origin that may read the answer, where the request comes from another one.
    ///
    /// # Errors
    /// A host or an origin that is not accepted.
    pub fn check(&self, headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, ApiError> {
        let host = self.host(headers, uri)?;
        let Some(origin) = headers.get(header::ORIGIN) else {
            let says = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
            // Pictures and scripts of other pages send no origin; following a link is somebody's wish.
            if says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
                return Err(refused("another web page"));
            }
            return Ok(None);
        };
        let origin = origin.to_str().unwrap_or("").to_ascii_lowercase();
        if origin == format!("http://{host}") || origin == format!("https://{host}") {
            return Ok(None);
        }
        match self.any_origin || self.origins.contains(&origin) {
            true => Ok(Some(origin)),
            false => Err(refused(&origin)),
        }
    }

    fn host(&self, headers: &HeaderMap, uri: &Uri) -> Result<String, ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(ApiError::bad("the request needs one `Host` header"));
        };
        let host = host.to_str().unwrap_or("").to_ascii_lowercase();
        if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(&host)) {
            return Err(ApiError::bad("the request's target and its `Host` header differ"));
        }
        let name = without_port(&host);
        let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        match is_address || is_local || self.hosts.iter().any(|allowed| allowed == name) {
            true => Ok(host),
            false => {
                let message = format!(
                    "the host name `{}` is not accepted; use the address, or start the server with `--allow-host`",
                    name.chars().take(100).collect::<String>()
                );
                Err(ApiError::new(403, message).with_code("host_not_allowed"))
            }
        }
    }
}

fn refused(origin: &str) -> ApiError {
    let origin: String = origin.chars().take(100).collect();
    let message =
        format!("requests from {origin} are not accepted; start the server with `--allow-origin` to accept them");
    ApiError::new(403, message).with_code("origin_not_allowed")
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // Colons within brackets belong to an IPv6 address.
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(allowed: &Allowed, host: &str, others: &[(&'static str, &str)]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        for (name, value) in others {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        allowed.check(&headers, &"/v1/models".parse().unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn names_of_others_are_refused() {
        let allowed = Allowed::new(&["Chat.Example.org".to_owned()], &[], false).unwrap();
        for host in [
            "localhost",
            "localhost:80",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "192.168.1.5:1",
            "app.localhost:3",
            "chat.example.org:443",
        ] {
            assert_eq!(check(&allowed, host, &[]), Ok(None), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "example.org", "notlocalhost"]
        {
            assert!(check(&allowed, host, &[]).is_err(), "{host}");
        }
        let mut two = HeaderMap::new();
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        two.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert!(allowed.check(&two, &"/".parse().unwrap()).is_err());
        assert!(allowed.check(&HeaderMap::new(), &"/".parse().unwrap()).is_err());
        let mut other = HeaderMap::new();
        other.insert(header::HOST, HeaderValue::from_static("localhost"));
        assert!(allowed.check(&other, &"http://evil.example/".parse().unwrap()).is_err());
    }

    #[test]
    fn pages_of_others_are_refused() {
        let allowed = Allowed::new(&[], &["http://localhost:3000".to_owned()], false).unwrap();
        let from = |origin: &str| check(&allowed, "127.0.0.1:8080", &[("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:8080"), Ok(None));
        assert_eq!(from("http://localhost:3000"), Ok(Some("http://localhost:3000".to_owned())));
        for origin in ["http://evil.example", "null", "http://localhost:3001", "http://127.0.0.1:8081", "file://", ""] {
            assert!(from(origin).is_err(), "{origin}");
        }
        let fetched = |mode: &str| {
            check(&allowed, "127.0.0.1:8080", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode)])
        };
        assert!(fetched("no-cors").is_err());
        assert!(fetched("navigate").is_ok());
    }

    #[test]
    fn lists_of_the_user() {
        assert!(Allowed::new(&[], &["*".to_owned()], false).is_err());
        let any = Allowed::new(&[], &["*".to_owned()], true).unwrap();
        assert_eq!(
            check(&any, "localhost", &[("origin", "http://a.example")]),
            Ok(Some("http://a.example".to_owned()))
        );
        for wrong in ["localhost:3000", "http://a/", "http://a/b", "nonsense"] {
            assert!(Allowed::new(&[], &[wrong.to_owned()], false).is_err(), "{wrong}");
        }
        assert!(Allowed::new(&["a:80".to_owned()], &[], false).is_err());
    }
}
