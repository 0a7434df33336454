//! The line before the engine: full, left, cancelled, slow.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::Client;
use super::server::{Running, Setup, chat, start, wait_for, wait_until};

fn send(server: &Running, message: &str, stream: bool) -> Client {
    let mut client = server.connect();
    client.send("POST", "/v1/chat/completions", &[], chat(message, json!({ "stream": stream })).to_string().as_bytes());
    client
}

#[test]
fn a_full_line_refuses() {
    let server = Setup { queue: 2, ..Setup::default() }.start();
    let first = send(&server, "wait", true);
    wait_for(&server.seen.running, 1);
    let mut others = Vec::new();
    for waiting in 1..=2 {
        others.push(send(&server, "hello", false));
        wait_until(|| server.server.worker.load().0 == waiting);
    }
    let reply = server.chat("hello", json!({}));
    assert_eq!(reply.header("retry-after"), Some("5"));
    let (status, code, _, message) = reply.error();
    assert_eq!((status, code.as_str()), (503, "queue_full"));
    assert!(message.contains("2 requests"), "{message}");
    // A stream that is refused is an ordinary error.
    assert_eq!(server.chat("hello", json!({ "stream": true })).error().0, 503);
    assert_eq!(server.get("/dwindle/info").json()["queue"], json!({ "length": 2, "limit": 2 }));
    drop(first);
    for mut client in others {
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn leaving_cancels_an_answer() {
    let server = start();
    for (cancelled, stream) in [(1, true), (2, false)] {
        let client = send(&server, "wait", stream);
        wait_for(&server.seen.running, 1);
        let since = Instant::now();
        drop(client);
        wait_for(&server.seen.cancelled, cancelled);
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    }
    assert_eq!(server.chat("hello", json!({})).status, 200);
}

#[test]
fn leaving_gives_up_a_place() {
    let server = start();
    let first = send(&server, "wait", true);
    wait_for(&server.seen.running, 1);
    let second = send(&server, "say second", true);
    wait_until(|| server.server.worker.load().0 == 1);
    let mut third = send(&server, "say third", true);
    assert_eq!(third.head().status, 200);
    let place = |chunk: Vec<u8>| String::from_utf8(chunk).unwrap();
    assert!(place(third.chunk().unwrap()).contains("\"position\":2"));
    drop(second);
    assert!(place(third.chunk().unwrap()).contains("\"position\":1"));
    drop(first);
    while third.chunk().is_some() {}
    let prompts = server.seen.prompts.lock().unwrap();
    assert!(!prompts.iter().any(|prompt| prompt.contains("second")), "{prompts:?}");
    assert!(prompts.last().unwrap().contains("third"));
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    let server = start();
    // It asks for much, and reads nothing.
    let mut slow = server.connect();
    let body = chat("long 4000", json!({ "stream": true, "max_tokens": 4000 }));
    slow.send("POST", "/v1/chat/completions", &[], body.to_string().as_bytes());
    let since = Instant::now();
    assert_eq!(server.chat("hello", json!({})).status, 200);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_eq!(server.seen.cancelled.load(Ordering::SeqCst), 0);
    // What it did not read is still there.
    let mut text = Vec::new();
    slow.stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 65536];
    while !text.windows(6).any(|window| window == b"[DONE]") {
        let count = slow.stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the stream ended early");
        text.extend_from_slice(&buffer[..count]);
    }
    assert!(text.windows(8).filter(|window| window == b"\"content").count() > 3000);
}

#[test]
fn answers_are_given_in_order_to_everybody() {
    let server = start();
    let mut clients: Vec<Client> =
        (0..12).map(|number| send(&server, &format!("say {number}"), number % 2 == 0)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.reply();
        assert_eq!(reply.status, 200);
        let text = match number % 2 {
            0 => reply.events().1.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect(),
            _ => reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
        };
        assert_eq!(text, number.to_string());
    }
}

#[test]
fn connections_are_used_again() {
    let server = start();
    let mut client = server.connect();
    for number in 0..5 {
        let body = chat(&format!("say {number}"), json!({ "stream": number % 2 == 0 })).to_string();
        let reply = client.request("POST", "/v1/chat/completions", &[], body.as_bytes());
        assert!(reply.text().contains(&number.to_string()));
    }
}
