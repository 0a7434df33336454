//! Sizes, numbers and times of what a client sends.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{chat, start};

#[test]
fn bodies_that_are_too_large() {
    let server = start();
    // It says so itself: refused by its header, when it was read.
    let body = vec![b' '; (64 << 20) + 1];
    let reply = server.connect().request("POST", "/v1/chat/completions", &[], &body);
    let (status, code, _, message) = reply.error();
    assert_eq!((status, code.as_str()), (413, "request_too_large"));
    assert!(message.contains("64 MiB"), "{message}");
    // It waits for permission: refused without a byte.
    let mut client = server.connect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        100_u64 << 30
    );
    client.stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(client.reply().error().0, 413);
    // It does not say how large it is.
    let mut client = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.stream.write_all(head.as_bytes()).unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..65 {
        if client.stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = client.stream.write_all(b"0\r\n\r\n");
    assert_eq!(client.reply().error().0, 413);
    // A photo is not too large.
    let photo = "A".repeat(20 << 20);
    let message = json!([{ "type": "text", "text": photo }, { "type": "text", "text": "\nsay fine" }]);
    let reply = server.post("/v1/chat/completions", &json!({ "messages": [{ "role": "user", "content": message }] }));
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "fine");
}

#[test]
fn memory_for_bodies_is_bounded() {
    let server = start();
    let mut clients = Vec::new();
    for _ in 0..2 {
        // Each announces what may be sent, and sends nothing of it.
        let mut client = server.connect();
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 63 << 20);
        client.stream.write_all(head.as_bytes()).unwrap();
        clients.push(client);
    }
    super::server::wait_until(|| {
        let mut client = server.connect();
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 63 << 20);
        client.stream.write_all(head.as_bytes()).unwrap();
        client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut first = [0; 64];
        let count = client.stream.read(&mut first).unwrap_or(0);
        first[..count].starts_with(b"HTTP/1.1 503")
    });
    // Small requests go on.
    assert_eq!(server.chat("hello", json!({})).status, 200);
    drop(clients);
}

#[test]
fn headers_that_are_too_many_or_too_long() {
    let server = start();
    let status = |headers: String| {
        let mut client = server.connect();
        let _ =
            client.stream.write_all(format!("GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes());
        client.head().status
    };
    assert_eq!(status((0..40).map(|n| format!("X-{n}: y\r\n")).collect()), 200);
    assert_eq!(status((0..200).map(|n| format!("X-{n}: y\r\n")).collect()), 431);
    // What was read before the limit may be followed by as much again.
    assert_eq!(status(format!("X-Long: {}\r\n", "y".repeat(300 << 10))), 431);
    let mut client = server.connect();
    client.stream.write_all(b"nonsense\r\n\r\n").unwrap();
    assert_eq!(client.head().status, 400);
    // The same length twice, or a length beside chunks, would be read differently by a proxy.
    for headers in ["Content-Length: 5\r\nContent-Length: 6\r\n", "Content-Length: x\r\n"] {
        let mut client = server.connect();
        let text = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nhello");
        client.stream.write_all(text.as_bytes()).unwrap();
        assert_eq!(client.head().status, 400, "{headers}");
    }
}

#[test]
fn slow_headers_are_not_waited_for() {
    let server = start();
    let mut client = server.connect();
    client.stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: loc").unwrap();
    let since = Instant::now();
    client.stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    while client.stream.read(&mut [0; 256]).is_ok_and(|count| count > 0) {}
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
}

#[test]
fn many_idle_connections_stop_nobody() {
    let server = start();
    let idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    let reply = server.post("/v1/chat/completions", &chat("hello", json!({})));
    assert_eq!(reply.status, 200);
    drop(idle);
}
