//! Errors: OpenAI's object everywhere, with the right status, code and field.

use serde_json::{Value, json};

use super::server::{Setup, chat, start};

#[test]
fn paths_and_methods() {
    let server = start();
    assert_eq!(server.get("/v1/nothing").error().0, 404);
    assert_eq!(server.get("/v1/chat/completions").error().0, 405);
    assert_eq!(server.post("/v1/models", &json!({})).error().0, 405);
    assert_eq!(server.connect().request("BREW", "/v1/models", &[], b"").error().0, 405);
    for path in [
        "/page/../main.rs",
        "/page/%2e%2e/main.rs",
        "/page/..%2f..%2fetc/passwd",
        "/page//etc/passwd",
        "/page/index.html",
        "/../../etc/passwd",
        "/page/files.rs",
        "/page/vendor/",
    ] {
        let reply = server.get(path);
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
    }
}

#[test]
fn bodies_that_are_no_requests() {
    let server = start();
    for (body, message) in [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ("{\"messages\": [}", "no valid JSON"),
        ("\u{feff}{}", "no valid JSON"),
        ("[]", "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
        ("{}", "`messages` is missing"),
    ] {
        let reply = server.connect().request("POST", "/v1/chat/completions", &[], body.as_bytes());
        let (status, _, _, told) = reply.error();
        assert_eq!(status, 400);
        assert!(told.contains(message), "{body}: {told}");
    }
    let deep = "[".repeat(100_000);
    let reply = server.connect().request("POST", "/v1/chat/completions", &[], deep.as_bytes());
    assert!(reply.error().3.contains("no valid JSON"));
    let reply = server.connect().request("POST", "/v1/chat/completions", &[], b"{\"model\": \"\xff\"}");
    assert!(reply.error().3.contains("no valid JSON"));
}

#[test]
fn fields_that_cannot_be_met_are_named() {
    let server = start();
    for (fields, param) in [
        (json!({ "n": 2 }), "n"),
        (json!({ "audio": { "voice": "x" } }), "audio"),
        (json!({ "modalities": ["text", "audio"] }), "modalities"),
        (json!({ "functions": [{}] }), "functions"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "temperature": -1 }), "temperature"),
        (json!({ "top_p": 1.5 }), "top_p"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": 1.5 }), "max_tokens"),
        (json!({ "stop": 5 }), "stop"),
        (json!({ "stop": [5] }), "stop"),
        (json!({ "stop": vec!["x"; 17] }), "stop"),
        (json!({ "seed": "x" }), "seed"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "stream_options": {} }), "stream_options"),
        (json!({ "top_logprobs": 2 }), "top_logprobs"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "logit_bias": { "x": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "260": 1 } }), "logit_bias"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias"),
        (json!({ "response_format": { "type": "xml" } }), "response_format.type"),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format.json_schema"),
        (json!({ "tools": [{ "type": "retrieval" }] }), "tools[0].type"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "truncation": "some" }), "truncation"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{}] }), "messages[0].role"),
        (json!({ "messages": ["hi"] }), "messages[0]"),
        (json!({ "messages": [{ "role": "king", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "user", "content": 5 }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "tool", "content": "x" }] }), "messages[0].tool_call_id"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "input_audio" }] }] }),
            "messages[0].content[0].type",
        ),
        (json!({ "messages": [{ "role": "user", "content": [{ "type": "dance" }] }] }), "messages[0].content[0].type"),
        (
            json!({ "messages": [{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "{" } }] }] }),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ] {
        let (status, _, named, message) = server.chat("hello", fields.clone()).error();
        assert_eq!((status, named.as_str()), (400, param), "{fields}: {message}");
    }
    let (status, code, param, _) = server.chat("hello", json!({ "model": "gpt-4o" })).error();
    assert_eq!((status, code.as_str(), param.as_str()), (404, "model_not_found", "model"));
}

#[test]
fn a_full_context_has_both_numbers() {
    let server = start();
    let reply = server.chat("overflow", json!({}));
    let (status, code, param, message) = reply.error();
    assert_eq!((status, code.as_str(), param.as_str()), (400, "context_length_exceeded", "messages"));
    assert!(message.contains("4096") && message.contains("5000"), "{message}");
    assert_eq!(reply.json()["error"]["dwindle"], json!({ "prompt_tokens": 5000, "context": 4096 }));
    // In a stream, whose headers are out already, as an event that ends it.
    let (_, data) = server.chat("overflow", json!({ "stream": true })).events();
    assert_eq!(data.len(), 1);
    assert_eq!(data[0]["error"]["code"], "context_length_exceeded");
    assert_eq!(data[0]["error"]["dwindle"]["context"], 4096);
    // Whoever wants the oldest turns forgotten says so.
    let answer = server.chat("overflow", json!({ "truncation": "auto" })).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "forgotten");
}

#[test]
fn an_engine_that_breaks_is_told_and_ends() {
    let server = start();
    let (status, _, _, message) = server.chat("panic", json!({})).error();
    assert_eq!(status, 500);
    assert!(message.contains("log"), "{message}");
    super::server::wait_until(|| server.get("/health").status == 503);
    assert_eq!(server.chat("hello", json!({})).status, 503);
}

#[test]
fn the_end_is_told_to_streams_and_to_those_who_wait() {
    let server = Setup::default().start();
    let mut running = server.connect();
    running.send("POST", "/v1/chat/completions", &[], chat("wait", json!({ "stream": true })).to_string().as_bytes());
    assert_eq!(running.head().status, 200);
    super::server::wait_for(&server.seen.running, 1);
    let mut waiting = server.connect();
    waiting.send("POST", "/v1/chat/completions", &[], chat("hello", json!({})).to_string().as_bytes());
    super::server::wait_until(|| server.server.worker.load().0 == 1);
    server.close();
    assert_eq!(waiting.reply().error().1, "shutting_down");
    let mut text = String::new();
    while let Some(chunk) = running.chunk() {
        text += std::str::from_utf8(&chunk).unwrap();
    }
    let last = text.trim_end().rsplit("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["code"], "shutting_down", "{text}");
    assert!(running.is_closed());
}
