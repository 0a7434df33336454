//! `/v1/responses`: whole answers, events, items of a conversation.

use serde_json::{Value, json};

use super::server::start;

fn named(reply: &super::client::Reply) -> Vec<(String, Value)> {
    let event = |text: &str| {
        let (name, data) = text.split_once('\n')?;
        let name = name.strip_prefix("event: ")?.to_owned();
        Some((name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()))
    };
    reply.text().split_terminator("\n\n").filter_map(event).collect()
}

#[test]
fn whole_responses() {
    let server = start();
    let body = json!({ "model": "toy", "input": "hello", "instructions": "Be brief.", "metadata": { "a": "b" }, "store": true });
    let reply = server.post("/v1/responses", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let response = reply.json();
    assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(response["output"][0]["type"], "message");
    assert_eq!(response["output"][0]["content"][0]["type"], "output_text");
    assert_eq!(response["output"][0]["content"][0]["text"], "You said: hello");
    assert_eq!(response["usage"]["output_tokens"], 15);
    assert!(response["usage"]["input_tokens_details"]["cached_tokens"].is_u64());
    assert_eq!((&response["store"], &response["metadata"]["a"]), (&json!(false), &json!("b")));
    assert!(server.seen.prompts.lock().unwrap()[0].starts_with("System: Be brief.\n"));
    let response = server.post("/v1/responses", &json!({ "input": "long 100", "max_output_tokens": 5 })).json();
    assert_eq!(response["status"], "incomplete");
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
}

#[test]
fn events_of_a_text() {
    let server = start();
    let events = named(&server.post("/v1/responses", &json!({ "input": "say abc", "stream": true })));
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(number)));
    }
    assert_eq!(events[7].1["text"], "abc");
    assert_eq!(events[10].1["response"]["output"][0]["content"][0]["text"], "abc");
    assert_eq!(events[10].1["response"]["usage"]["output_tokens"], 3);
}

#[test]
fn events_of_a_call() {
    let server = start();
    let tool = json!({ "type": "function", "name": "shell", "parameters": { "type": "object" }, "strict": false });
    let say = "say Now.<tool_call>{\"name\": \"shell\", \"arguments\": {\"command\": [\"ls\"]}}</tool_call>";
    let body = json!({ "input": [{ "role": "user", "content": [{ "type": "input_text", "text": say }] }], "stream": true,
        "tools": [tool, { "type": "web_search" }], "tool_choice": "auto" });
    let events = named(&server.post("/v1/responses", &body));
    let of = |wanted: &str| events.iter().filter(|(name, _)| name == wanted).map(|(_, data)| data).collect::<Vec<_>>();
    let added = of("response.output_item.added");
    assert_eq!(
        (added.len(), &added[1]["item"]["type"], &added[1]["item"]["name"]),
        (2, &json!("function_call"), &json!("shell"))
    );
    assert_eq!(added[1]["output_index"], 1);
    let delta = of("response.function_call_arguments.delta");
    let arguments: String = delta.iter().filter_map(|data| data["delta"].as_str()).collect();
    assert_eq!(arguments, "{\"command\": [\"ls\"]}");
    assert_eq!(of("response.function_call_arguments.done")[0]["arguments"], arguments);
    let done = of("response.completed");
    let item = &done[0]["response"]["output"][1];
    assert_eq!((&item["type"], &item["arguments"]), (&json!("function_call"), &json!(arguments)));
    assert_eq!(item["call_id"], added[1]["item"]["call_id"]);
    // The next turn has the call and its result.
    let body = json!({ "input": [
        { "role": "user", "content": "do it" },
        { "type": "reasoning", "summary": [] },
        { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Now." }] },
        { "type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{\"command\":[\"ls\"]}" },
        { "type": "function_call_output", "call_id": "c1", "output": "files" },
        { "role": "user", "content": "hello" },
    ] });
    assert_eq!(server.post("/v1/responses", &body).status, 200);
    let prompts = server.seen.prompts.lock().unwrap();
    let prompt = prompts.last().unwrap();
    assert!(prompt.contains("Now.\n<tool_call>") && prompt.contains("The result of shell:\nfiles"), "{prompt}");
}

#[test]
fn what_needs_memory_is_refused() {
    let server = start();
    for (body, param) in [
        (json!({ "input": "x", "previous_response_id": "resp_1" }), "previous_response_id"),
        (json!({ "input": "x", "background": true }), "background"),
        (json!({ "input": "x", "conversation": "c" }), "conversation"),
        (json!({ "input": [{ "type": "item_reference", "id": "x" }] }), "input[0].type"),
        (json!({ "input": [{ "type": "computer_call" }] }), "input[0].type"),
        (json!({ "input": [] }), "input"),
        (json!({}), "input"),
    ] {
        let (status, _, named, message) = server.post("/v1/responses", &body).error();
        assert_eq!((status, named.as_str()), (400, param), "{message}");
    }
}

#[test]
fn failures_within_a_stream() {
    let server = start();
    let events = named(&server.post("/v1/responses", &json!({ "input": "overflow", "stream": true })));
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "context_length_exceeded");
    assert_eq!(events[events.len() - 2].0, "error");
}

#[test]
fn formats() {
    let server = start();
    let schema = json!({ "type": "object", "properties": { "a": { "type": "boolean" } }, "required": ["a"],
        "additionalProperties": false });
    let body =
        json!({ "input": "hello", "text": { "format": { "type": "json_schema", "name": "x", "schema": schema } } });
    let response = server.post("/v1/responses", &body).json();
    let text = response["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["a"].is_boolean(), "{text}");
}
