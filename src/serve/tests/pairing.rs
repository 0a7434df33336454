//! Devices of the same house: what they may do before and after they are paired, and after they are revoked.

use serde_json::json;

use super::client::Reply;
use super::server::{Running, Setup};

/// A request as another machine sends it; loopback with this header is not trusted.
fn from_afar(server: &Running, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let headers = [&[("X-Forwarded-For", "192.168.1.7")], headers].concat();
    server.connect().request(method, path, &headers, b"")
}

fn pairing_url(server: &Running) -> String {
    let url = server.get("/dwindle/devices").json()["url"].as_str().unwrap().to_owned();
    url.strip_prefix(&server.server.url).unwrap().to_owned()
}

#[test]
fn a_device_is_paired_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Setup { lan: Some(folder.path().to_owned()), ..Setup::default() }.start();
    // Nothing but the pairing page.
    for (method, path) in [
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("GET", "/dwindle/info"),
        ("GET", "/dwindle/devices"),
        ("DELETE", "/dwindle/devices/x"),
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/page/main.js"),
        ("GET", "/page/index.html"),
        ("GET", "/nothing"),
        ("POST", "/"),
    ] {
        let (status, code, ..) = from_afar(&server, method, path, &[]).error();
        assert_eq!((status, code.as_str()), (401, "not_paired"), "{method} {path}");
    }
    let page = from_afar(&server, "GET", "/", &[]);
    assert_eq!(page.status, 401);
    assert!(page.text().contains("Pair this device"));
    assert_eq!(from_afar(&server, "GET", "/page/pair.css", &[]).status, 200);
    // Wrong tokens, and one that is only looked at.
    let path = pairing_url(&server);
    for wrong in ["/pair", "/pair?token=", "/pair?token=aaaaaaaaaaaaaaaa", "/pair?x=y"] {
        let reply = from_afar(&server, "GET", wrong, &[]);
        assert_eq!((reply.status, reply.header("set-cookie")), (401, None), "{wrong}");
    }
    assert_eq!(from_afar(&server, "HEAD", &path, &[]).status, 200);
    let reply = from_afar(&server, "GET", &path, &[("User-Agent", "A Phone")]);
    assert_eq!((reply.status, reply.header("location")), (303, Some("/")));
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Max-Age=31536000"));
    let cookie = cookie.split(';').next().unwrap().to_owned();
    // A token is spent once, and the next one is another.
    assert_eq!(from_afar(&server, "GET", &path, &[]).status, 401);
    assert_ne!(pairing_url(&server), path);
    // Paired, it may chat, but not look after devices.
    let paired = [("Cookie", cookie.as_str())];
    assert_eq!(from_afar(&server, "GET", "/v1/models", &paired).status, 200);
    assert_eq!(from_afar(&server, "GET", "/page/main.js", &paired).status, 200);
    assert_eq!(from_afar(&server, "GET", "/dwindle/info", &paired).json()["local"], false);
    assert_eq!(from_afar(&server, "GET", "/dwindle/devices", &paired).status, 403);
    let devices = server.get("/dwindle/devices").json();
    let device = &devices["devices"][0];
    assert_eq!(device["name"], "A Phone");
    assert!(devices["qr_svg"].as_str().unwrap().contains("<svg"));
    let id = device["id"].as_str().unwrap();
    assert_eq!(from_afar(&server, "DELETE", &format!("/dwindle/devices/{id}"), &paired).status, 403);
    // It is known again after a restart.
    let again = Setup { lan: Some(folder.path().to_owned()), ..Setup::default() }.start();
    assert_eq!(from_afar(&again, "GET", "/v1/models", &paired).status, 200);
    let revoke = |server: &Running| server.connect().request("DELETE", &format!("/dwindle/devices/{id}"), &[], b"");
    assert_eq!(revoke(&again).json(), json!({ "id": id, "deleted": true }));
    assert_eq!(revoke(&again).status, 404);
    assert_eq!(from_afar(&again, "GET", "/v1/models", &paired).status, 401);
    for forged in ["dwindle_device=", "dwindle_device=0", "other=1; dwindle_device=abc"] {
        assert_eq!(from_afar(&again, "GET", "/v1/models", &[("Cookie", forged)]).status, 401);
    }
}

#[test]
fn a_page_of_others_does_not_use_the_cookie() {
    let folder = tempfile::tempdir().unwrap();
    let server = Setup { lan: Some(folder.path().to_owned()), ..Setup::default() }.start();
    let reply = from_afar(&server, "GET", &pairing_url(&server), &[]);
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let headers = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example")];
    assert_eq!(from_afar(&server, "POST", "/v1/chat/completions", &headers).status, 403);
}

#[test]
fn without_pairing_there_is_nothing_to_pair_with() {
    let server = Setup::default().start();
    assert_eq!(server.get("/pair?token=x").status, 404);
    assert_eq!(server.get("/dwindle/devices").json(), json!({ "devices": [], "url": null, "qr_svg": null }));
    assert_eq!(from_afar(&server, "GET", "/v1/models", &[]).status, 401);
}

#[test]
fn a_key_pairs_browsers_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let lan = Some(folder.path().to_owned());
    let server = Setup { lan, key: Some("correct horse"), ..Setup::default() }.start();
    let key = [("Authorization", "Bearer correct horse")];
    let devices = server.connect().request("GET", "/dwindle/devices", &key, b"").json();
    let url = devices["url"].as_str().unwrap().strip_prefix(&server.server.url).unwrap().to_owned();
    assert_eq!(server.get("/dwindle/devices").status, 401);
    let cookie = server.get(&url).header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let reply = server.connect().request("GET", "/v1/models", &[("Cookie", cookie.as_str())], b"");
    assert_eq!(reply.status, 200);
}
