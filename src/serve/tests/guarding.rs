//! Hosts, origins, keys.

use serde_json::json;

use super::server::{Setup, start};

#[test]
fn names_that_others_point_here_are_refused() {
    let server = start();
    let with_host = |host: &str| server.connect().request("GET", "/v1/models", &[("Host", host)], b"");
    assert_eq!(with_host("localhost:1234").status, 200);
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example"] {
        let (status, code, _, message) = with_host(host).error();
        assert_eq!((status, code.as_str()), (403, "host_not_allowed"), "{host}");
        assert!(message.contains("--allow-host"), "{message}");
    }
    // A stream and the page as well.
    assert_eq!(server.connect().request("GET", "/", &[("Host", "evil.example")], b"").status, 403);
}

#[test]
fn pages_of_others_are_refused() {
    let server = Setup { origins: vec!["http://localhost:3000".to_owned()], ..Setup::default() }.start();
    let from = |origin: &str| server.connect().request("GET", "/v1/models", &[("Origin", origin)], b"");
    let own = from(&server.server.url.clone());
    assert_eq!((own.status, own.header("access-control-allow-origin")), (200, None));
    let friend = from("http://localhost:3000");
    assert_eq!(friend.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(friend.header("access-control-allow-credentials"), None);
    assert_eq!(friend.header("vary"), Some("origin"));
    for origin in ["http://evil.example", "null", "http://localhost:3001"] {
        let reply = from(origin);
        assert_eq!(reply.error().1, "origin_not_allowed", "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    let asked = |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, content-type, x-stainless-os"),
        ];
        server.connect().request("OPTIONS", "/v1/chat/completions", &headers, b"")
    };
    let reply = asked("http://localhost:3000");
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-headers"), Some("authorization, content-type, x-stainless-os"));
    assert_eq!(asked("http://evil.example").status, 403);
    let headers = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")];
    assert_eq!(server.connect().request("GET", "/v1/models", &headers, b"").status, 403);
}

#[test]
fn a_key_is_asked_for() {
    let server = Setup { key: Some("correct horse"), ..Setup::default() }.start();
    let (status, code, ..) = server.get("/v1/models").error();
    assert_eq!((status, code.as_str()), (401, "missing_api_key"));
    let with = |header: &str| server.connect().request("GET", "/v1/models", &[("Authorization", header)], b"");
    for wrong in ["Bearer wrong", "Bearer correct hors", "Bearer ", "Basic correct horse", "correct horse"] {
        assert_eq!(with(wrong).status, 401, "{wrong}");
    }
    let (_, code, ..) = with("Bearer nonsense").error();
    assert_eq!(code, "invalid_api_key");
    assert_eq!(with("Bearer correct horse").status, 200);
    assert_eq!(with("bearer correct horse").status, 200);
    assert_eq!(server.chat("hello", json!({})).status, 401);
    assert!(server.seen.prompts.lock().unwrap().is_empty());
    // Whether it lives, and the page that asks for the key, are no secrets on this machine.
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/").status, 200);
    let forwarded = [("X-Forwarded-For", "10.0.0.9")];
    assert_eq!(server.connect().request("GET", "/health", &forwarded, b"").status, 401);
}

#[test]
fn answers_are_not_to_be_guessed_at() {
    let server = start();
    for path in ["/", "/v1/models", "/nothing"] {
        let reply = server.get(path);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{path}");
    }
    let policy = server.get("/").header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
}
