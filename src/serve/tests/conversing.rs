//! `/v1/chat/completions`: fields, whole answers, and every detail of streams.

use serde_json::{Value, json};

use super::server::{Setup, chat, start};

#[test]
fn whole_answers() {
    let server = start();
    let reply = server.chat("hello", json!({}));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "toy");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(answer["choices"][0]["message"]["role"], "assistant");
    assert_eq!(answer["choices"][0]["message"]["content"], "You said: hello");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
    let usage = &answer["usage"];
    assert_eq!(usage["completion_tokens"], 15);
    assert_eq!(usage["total_tokens"], usage["prompt_tokens"].as_u64().unwrap() + 15);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(answer["timings"]["predicted_n"], 15);
    assert_eq!(answer["timings"]["predicted_per_second"], 30.0);
    assert_eq!(answer["dwindle"], json!({ "descriptions": [], "forgotten_turns": 0 }));
    // The same conversation again: all but the last position is there already.
    let again = server.chat("hello", json!({})).json();
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], prompt - 1);
    assert_eq!(again["timings"]["cache_n"], prompt - 1);
}

#[test]
fn streams() {
    let server = start();
    for include_usage in [false, true] {
        let mut fields = json!({ "stream": true });
        if include_usage {
            fields["stream_options"] = json!({ "include_usage": true });
        }
        let reply = server.chat("say größer 🦀", fields);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let (progress, mut data) = reply.events();
        assert!(progress.iter().any(|event| event["phase"] == "prefill"), "{progress:?}");
        assert_eq!(data.pop().unwrap(), "[DONE]");
        if include_usage {
            let usage = data.pop().unwrap();
            assert_eq!(usage["choices"], json!([]));
            assert_eq!(usage["usage"]["completion_tokens"], "größer 🦀".len());
            assert!(usage["usage"]["prompt_tokens_details"]["cached_tokens"].is_u64());
        }
        let last = data.pop().unwrap();
        assert_eq!(last["choices"][0]["delta"], json!({}));
        assert_eq!(last["choices"][0]["finish_reason"], "stop");
        assert!(last["timings"]["prompt_ms"].is_number() && last["dwindle"]["descriptions"].is_array());
        let first = data.remove(0);
        assert_eq!(first["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        let mut text = String::new();
        for chunk in &data {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!(chunk["id"], first["id"]);
            assert_eq!(chunk["choices"][0]["index"], 0);
            assert_eq!(chunk["choices"][0]["finish_reason"], Value::Null);
            assert!(chunk.get("usage").is_none(), "usage was not asked for here: {chunk}");
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap();
        }
        assert_eq!(text, "größer 🦀");
    }
}

#[test]
fn headers_come_before_the_answer_begins() {
    let server = start();
    let mut first = server.connect();
    first.send("POST", "/v1/chat/completions", &[], chat("wait", json!({ "stream": true })).to_string().as_bytes());
    assert_eq!(first.head().status, 200);
    super::server::wait_for(&server.seen.running, 1);
    // This one waits behind the first, and is told so at once.
    let mut second = server.connect();
    second.send("POST", "/v1/chat/completions", &[], chat("hello", json!({ "stream": true })).to_string().as_bytes());
    assert_eq!(second.head().status, 200);
    let comment = String::from_utf8(second.chunk().unwrap()).unwrap();
    assert_eq!(comment, ": dwindle {\"phase\":\"queued\",\"position\":1}\n\n");
    drop(first);
    let mut rest = String::new();
    while let Some(chunk) = second.chunk() {
        rest += std::str::from_utf8(&chunk).unwrap();
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[test]
fn streams_and_whole_answers_say_the_same() {
    let server = start();
    for message in ["hello", "say ", "say a\\nb", "long 300", "say ä€🦀"] {
        let whole = server.chat(message, json!({})).json();
        let (_, data) = server.chat(message, json!({ "stream": true })).events();
        let text: String = data.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(whole["choices"][0]["message"]["content"], text, "{message}");
    }
}

#[test]
fn limits_and_stops() {
    let server = start();
    for name in ["max_tokens", "max_completion_tokens"] {
        let answer = server.chat("long 100", json!({ name: 7 })).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "0123456");
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
    }
    for stop in [json!("45"), json!(["never", "45"]), json!(["45", ""])] {
        let answer = server.chat("long 100", json!({ "stop": stop })).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "0123");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    }
}

#[test]
fn sampling_reaches_the_engine() {
    let server = start();
    let fields = json!({
        "temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5, "seed": 42,
        "some_field_of_tomorrow": { "a": 1 }, "user": "me", "store": false, "metadata": {}, "n": 1, "modalities": ["text"],
        "service_tier": "auto", "reasoning_effort": "low", "logit_bias": { "65": -100 }, "parallel_tool_calls": true,
        "response_format": { "type": "text" }, "presence_penalty": 0.5, "frequency_penalty": -1, "audio": null
    });
    assert_eq!(server.chat("hello", fields).status, 200);
    let sampling = *server.seen.sampling.lock().unwrap();
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p), (0.25, 0.5, 7, 0.125));
    assert_eq!((sampling.repetition_penalty, sampling.seed), (1.5, 42));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (0.5, -1.0));
    server.chat("hello", json!({}));
    let sampling = *server.seen.sampling.lock().unwrap();
    assert_eq!(sampling.temperature, 0.5, "the model's");
    server.chat("hello", json!({}));
    assert_ne!(server.seen.sampling.lock().unwrap().seed, sampling.seed, "another seed for each request");
}

#[test]
fn messages_of_all_roles_and_forms() {
    let server = start();
    let body = json!({ "messages": [
        { "role": "developer", "content": "Be brief." },
        { "role": "system", "content": [{ "type": "text", "text": "And kind." }] },
        { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }], "name": "Ann" },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c1", "type": "function",
            "function": { "name": "look", "arguments": "{\"at\":1}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": "found" },
        { "role": "user", "content": "hello" },
    ] });
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let prompts = server.seen.prompts.lock().unwrap();
    let prompt = prompts.last().unwrap();
    for part in [
        "System: Be brief.",
        "System: And kind.",
        "User: ab",
        "{\"name\":\"look\",\"arguments\":{\"at\":1}}",
        "found",
        "hello",
    ] {
        assert!(prompt.contains(part), "{part} in {prompt}");
    }
    assert!(prompt.contains("The result of look:"), "the result names its function: {prompt}");
}

#[test]
fn probabilities() {
    let server = start();
    let answer = server.chat("say ab", json!({ "logprobs": true, "top_logprobs": 1 })).json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 2);
    assert_eq!(content[0]["token"], "a");
    assert_eq!(content[0]["bytes"], json!([97]));
    assert_eq!(content[0]["logprob"], -0.5);
    assert_eq!(content[0]["top_logprobs"][0]["token"], "a");
    let (_, data) = server.chat("say ab", json!({ "logprobs": true, "stream": true })).events();
    let told = data.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array()).flatten().count();
    assert_eq!(told, 2);
}

#[test]
fn a_model_without_a_template_completes_only() {
    let info = crate::serve::engine::Info { template: None, ..super::toy::info() };
    let server = Setup { info, ..Setup::default() }.start();
    let (status, code, _, message) = server.chat("hello", json!({})).error();
    assert_eq!((status, code.as_str()), (400, "no_chat_template"));
    assert!(message.contains("/v1/completions"), "{message}");
    let answer = server.post("/v1/completions", &json!({ "prompt": "hello" }));
    assert_eq!(answer.status, 200, "{}", answer.text());
}
