//! Functions and restricted answers.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::server::{Running, Setup, start};

fn tools() -> Value {
    let tool = |name: &str| {
        json!({ "type": "function", "function": { "name": name, "description": "says how it is", "parameters": {
            "type": "object",
            "properties": { "days": { "type": "integer", "minimum": 0, "maximum": 9 }, "exact": { "type": "boolean" } },
            "required": ["days", "exact"], "additionalProperties": false,
        } } })
    };
    json!([tool("weather"), tool("traffic")])
}

/// A server whose template knows tools in the way of Qwen.
fn knowing() -> Running {
    let template = "{% if tools %}<tool_call>{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
    let info =
        crate::serve::engine::Info { template: Some(template.to_owned()), knows_tools: true, ..super::toy::info() };
    Setup { info, ..Setup::default() }.start()
}

const CALL: &str =
    "say Wait.<tool_call>\\n{\"name\": \"weather\", \"arguments\": {\"days\": 3, \"exact\": true}}\\n</tool_call>";

#[test]
fn calls_that_the_model_wants() {
    for server in [knowing(), start()] {
        let answer = server.chat(CALL, json!({ "tools": tools() })).json();
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["content"], "Wait.");
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
        assert_eq!(call["function"]["arguments"], "{\"days\": 3, \"exact\": true}");
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
        // The same as a stream.
        let (_, data) = server.chat(CALL, json!({ "tools": tools(), "stream": true })).events();
        let deltas: Vec<&Value> = data.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
        let text: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
        assert_eq!(text, "Wait.");
        let calls: Vec<&Value> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0)).collect();
        assert_eq!(calls[0]["function"], json!({ "name": "weather", "arguments": "" }));
        assert!(calls[0]["id"].is_string() && calls[0]["type"] == "function");
        assert!(calls.len() > 5, "arguments come in pieces");
        assert!(calls.iter().all(|call| call["index"] == 0) && calls[1..].iter().all(|call| call.get("id").is_none()));
        let arguments: String = calls.iter().filter_map(|call| call["function"]["arguments"].as_str()).collect();
        assert_eq!(arguments, "{\"days\": 3, \"exact\": true}");
        let finish: Vec<&str> = data.iter().filter_map(|chunk| chunk["choices"][0]["finish_reason"].as_str()).collect();
        assert_eq!(finish, ["tool_calls"]);
    }
}

#[test]
fn templates_get_functions_and_other_models_an_instruction() {
    let server = knowing();
    server.chat("hello", json!({ "tools": tools() }));
    assert_eq!(server.seen.tools.load(Ordering::SeqCst), 2);
    assert!(!server.seen.prompts.lock().unwrap().last().unwrap().contains("traffic"));
    assert_eq!(server.get("/dwindle/info").json()["tools"], true);
    let server = start();
    server.chat("hello", json!({ "tools": tools() }));
    assert_eq!(server.seen.tools.load(Ordering::SeqCst), 0);
    assert!(server.seen.prompts.lock().unwrap().last().unwrap().contains("\"name\":\"traffic\""));
    // None may be called: none is told of, and what looks like a call is text.
    for server in [knowing(), start()] {
        let answer = server.chat(CALL, json!({ "tools": tools(), "tool_choice": "none" })).json();
        assert_eq!(server.seen.tools.load(Ordering::SeqCst), 0);
        assert!(!server.seen.prompts.lock().unwrap().last().unwrap().contains("traffic"));
        assert!(answer["choices"][0]["message"].get("tool_calls").is_none());
        assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains("<tool_call>"));
    }
}

#[test]
fn one_call_where_one_is_wanted() {
    let two = format!("{CALL}{}", &CALL[9..]);
    let server = knowing();
    let answer = server.chat(&two, json!({ "tools": tools() })).json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 2);
    let answer = server.chat(&two, json!({ "tools": tools(), "parallel_tool_calls": false })).json();
    assert_eq!(answer["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn calls_that_must_be_made_conform() {
    for server in [knowing(), start()] {
        for (choice, names) in [
            (json!("required"), &["weather", "traffic"][..]),
            (json!({ "type": "function", "function": { "name": "traffic" } }), &["traffic"]),
        ] {
            for seed in 0..5 {
                let fields =
                    json!({ "tools": tools(), "tool_choice": choice, "seed": seed, "parallel_tool_calls": false });
                let answer = server.chat("hello", fields).json();
                let calls =
                    answer["choices"][0]["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{answer}"));
                assert_eq!((calls.len(), &answer["choices"][0]["finish_reason"]), (1, &json!("tool_calls")));
                assert!(names.contains(&calls[0]["function"]["name"].as_str().unwrap()), "{answer}");
                let arguments: Value =
                    serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
                assert!((0..=9).contains(&arguments["days"].as_i64().unwrap()) && arguments["exact"].is_boolean());
            }
        }
    }
}

#[test]
fn answers_conform_to_schemas() {
    let server = start();
    let schema = json!({ "type": "object", "properties": { "colour": { "enum": ["red", "green"] }, "count": { "type": "integer",
        "minimum": 1, "maximum": 50 } }, "required": ["colour", "count"], "additionalProperties": false });
    for stream in [false, true] {
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "thing", "strict": true, "schema": schema } });
        let reply = server.chat("hello", json!({ "response_format": format, "stream": stream }));
        let text: String = match stream {
            true => {
                reply.events().1.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
            }
            false => reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
        };
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(["red", "green"].contains(&value["colour"].as_str().unwrap()), "{text}");
        assert!((1..=50).contains(&value["count"].as_i64().unwrap()), "{text}");
    }
    let answer =
        server.chat("hello", json!({ "response_format": { "type": "json_object" }, "max_tokens": 3000 })).json();
    let choice = &answer["choices"][0];
    if choice["finish_reason"] == "stop" {
        let text = choice["message"]["content"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{text}");
    }
    // The limit still ends what runs on.
    let answer = server.chat("hello", json!({ "response_format": { "type": "json_object" }, "max_tokens": 1 })).json();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

#[test]
fn schemas_that_cannot_be_used_are_named() {
    let server = start();
    for schema in
        [json!({ "type": "nonsense" }), json!({ "$ref": "#/nowhere" }), json!({ "type": "string", "pattern": "(" })]
    {
        let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
        // A stream is refused before it begins.
        let (status, code, _, message) =
            server.chat("hello", json!({ "response_format": format, "stream": true })).error();
        assert_eq!((status, code.as_str()), (400, "invalid_json_schema"), "{message}");
    }
    let fields = json!({ "tools": tools(), "tool_choice": "required", "response_format": { "type": "json_object" } });
    assert_eq!(server.chat("hello", fields).error().2, "response_format");
}
