//! Addresses: which belong to the same server, and where a redirect leads.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// Scheme, host and port of an address, as RFC 6454 compares them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// `None` for what is no `http` or `https` address.
    pub(super) fn of(address: &str) -> Option<Origin> {
        let uri: Uri = address.parse().ok()?;
        let secure = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Some(Origin { secure, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// The address that `Location: target` means in an answer of `base`. `None` where it is none of `http` or `https`, or would
/// leave `https` for `http`, on which anybody could read and change what comes.
pub(super) fn resolve(base: &str, target: &str) -> Option<String> {
    let base: Uri = base.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let target = target.split('#').next().unwrap_or(target);
    let address = if target.starts_with("//") {
        format!("{scheme}:{target}")
    } else if target.starts_with('/') {
        format!("{scheme}://{authority}{target}")
    } else if target.contains("://") {
        target.to_owned()
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{target}")
    };
    let secure = Origin::of(&address)?.secure;
    (secure || scheme != "https").then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a, b| Origin::of(a).is_some() && Origin::of(a) == Origin::of(b);
        assert!(same("https://hub.example/a", "HTTPS://HUB.example:443/b?c"));
        assert!(same("http://127.0.0.1:80", "http://127.0.0.1/x"));
        for other in
            ["http://hub.example", "https://hub.example:8443", "https://cdn.hub.example", "https://hub.example.evil"]
        {
            assert!(!same("https://hub.example", other), "{other}");
        }
        assert!(!same("https://hub.example", "https://hub.example@evil/"));
        for none in ["ftp://hub.example", "hub.example", "", "/a"] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
    }

    #[test]
    fn redirects_resolve_against_the_address_that_was_asked() {
        let from = |target| resolve("https://hub.example/o/m/resolve/main/f.json?x=1", target);
        assert_eq!(from("https://cdn.example/a?b=c#d").unwrap(), "https://cdn.example/a?b=c");
        assert_eq!(from("/n/m/f.json").unwrap(), "https://hub.example/n/m/f.json");
        assert_eq!(from("//cdn.example/a").unwrap(), "https://cdn.example/a");
        assert_eq!(from("g.json").unwrap(), "https://hub.example/o/m/resolve/main/g.json");
        for refused in ["http://hub.example/a", "file:///etc/passwd", "ftp://cdn.example/a", "https://", "a b"] {
            assert_eq!(from(refused), None, "{refused}");
        }
        assert_eq!(resolve("http://mirror/a", "http://cdn/b").unwrap(), "http://cdn/b");
    }
}
