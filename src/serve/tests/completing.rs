//! `/v1/completions`, `/v1/models`, `/tokenize`, `/v1/embeddings`, `/health`, `/metrics`, `/dwindle/info`.

use std::time::Duration;

use serde_json::json;

use super::server::{Setup, start, wait_until};

#[test]
fn texts_are_continued() {
    let server = start();
    let answer = server.post("/v1/completions", &json!({ "prompt": "say abc", "logprobs": 1 })).json();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], "abc");
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"], json!(["a", "b", "c"]));
    assert_eq!(answer["choices"][0]["logprobs"]["text_offset"], json!([0, 1, 2]));
    // OpenAI's default is 16 tokens.
    let answer = server.post("/v1/completions", &json!({ "prompt": ["long 100"] })).json();
    assert_eq!(answer["choices"][0]["text"].as_str().unwrap().len(), 16);
    let tokens: Vec<u8> = b"say x".to_vec();
    let answer = server.post("/v1/completions", &json!({ "prompt": tokens })).json();
    assert_eq!(answer["choices"][0]["text"], "x");
    let fields = json!({ "prompt": "say abc", "stream": true, "stream_options": { "include_usage": true } });
    let (_, data) = server.post("/v1/completions", &fields).events();
    let text: String = data.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "abc");
    assert_eq!(data[data.len() - 3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(data[data.len() - 2]["choices"], json!([]));
    assert_eq!(data[data.len() - 1], "[DONE]");
    for (body, param) in [
        (json!({ "prompt": ["a", "b"] }), "prompt"),
        (json!({ "prompt": "a", "n": 2 }), "n"),
        (json!({ "prompt": "a", "best_of": 2 }), "best_of"),
        (json!({ "prompt": "a", "echo": true }), "echo"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix"),
        (json!({}), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [-1] }), "prompt"),
    ] {
        let (status, _, named, message) = server.post("/v1/completions", &body).error();
        assert_eq!((status, named.as_str()), (400, param), "{body}: {message}");
    }
}

#[test]
fn models_are_listed() {
    let server = start();
    let list = server.get("/v1/models").json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "toy");
    assert_eq!(list["data"][0]["object"], "model");
    assert_eq!(server.get("/v1/models/toy").json()["id"], "toy");
    assert_eq!(server.get("/v1/models/toy-chat").json()["id"], "toy-chat");
    let (status, code, _, message) = server.get("/v1/models/gpt-4o").error();
    assert_eq!((status, code.as_str()), (404, "model_not_found"));
    assert!(message.contains("`gpt-4o`") && message.contains("`toy`"), "{message}");
}

#[test]
fn texts_are_tokenized() {
    let server = start();
    let tokens = |body: serde_json::Value| server.post("/tokenize", &body).json()["tokens"].clone();
    assert_eq!(tokens(json!({ "content": "ab" })), json!([97, 98]));
    assert_eq!(tokens(json!({ "content": "a", "add_special": true })), json!([257, 97]));
    assert_eq!(
        tokens(json!({ "content": "é", "with_pieces": true })),
        json!([{ "id": 195, "piece": [195] }, { "id": 169, "piece": [169] }])
    );
    assert_eq!(server.post("/tokenize", &json!({})).error().2, "content");
}

#[test]
fn embeddings_are_refused() {
    let (status, code, ..) = start().post("/v1/embeddings", &json!({ "input": "a" })).error();
    assert_eq!((status, code.as_str()), (400, "embeddings_not_supported"));
}

#[test]
fn health_says_whether_it_is_loaded() {
    let server = Setup { loading: Duration::from_millis(400), ..Setup::default() }.start();
    let reply = server.get("/health");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("2")));
    assert_eq!(reply.error().1, "loading");
    // Others wait for it.
    assert_eq!(server.chat("hello", json!({})).status, 200);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    let server = Setup { fails: true, ..Setup::default() }.start();
    wait_until(|| server.get("/health").error().3.contains("failed"));
    assert_eq!(server.chat("hello", json!({})).status, 503);
}

#[test]
fn counters_count_where_they_are_wanted() {
    assert_eq!(start().get("/metrics").error().0, 404);
    let server = Setup { metrics: true, ..Setup::default() }.start();
    server.chat("say secret words", json!({}));
    server.get("/nothing");
    let reply = server.get("/metrics");
    assert!(reply.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = reply.text();
    for line in [
        "dwindle_requests_total{end=\"answered\"} 1",
        "dwindle_predicted_tokens_total 12",
        "dwindle_responses_total{status=\"4xx\"} 1",
        "dwindle_queue_length 0",
        "dwindle_busy 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains("secret"));
}

#[test]
fn the_page_is_told_what_it_needs() {
    let info = start().get("/dwindle/info").json();
    for (name, value) in [
        ("model", json!("toy")),
        ("models", json!(["toy-chat", "toy-eyes"])),
        ("sees", json!(true)),
        ("ensemble", json!(true)),
        ("describer", json!("toy-eyes")),
        ("context", json!(4096)),
        ("device", json!("paper")),
        ("planned_peak_bytes", json!(1 << 20)),
        ("slots", json!(3)),
        ("queue", json!({ "length": 0, "limit": 16 })),
        ("busy", json!(false)),
        ("has_template", json!(true)),
        ("tools", json!(false)),
        ("lan", json!({ "on": false, "url": null })),
        ("local", json!(true)),
    ] {
        assert_eq!(info[name], value, "{name}");
    }
    assert!(info["picture_formats"].as_array().unwrap().contains(&json!("image/webp")));
    assert_eq!(info["sampling"]["temperature"], 0.5);
}

#[test]
fn weights_are_released_while_nobody_asks() {
    let server = Setup { idle: Some(Duration::from_millis(100)), ..Setup::default() }.start();
    super::server::wait_for(&server.seen.unloaded, 1);
    std::thread::sleep(Duration::from_millis(300));
    super::server::wait_for(&server.seen.unloaded, 1);
    assert_eq!(server.chat("hello", json!({})).status, 200);
    super::server::wait_for(&server.seen.unloaded, 2);
}
