//! The built server with the demo models: the same answers as `run`, prefixes that are found again, and an orderly end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::workbench::{Dwindle, root};

const PICTURE: &str = "demo/images/01-square-96.png";
const QUESTION: &str = "What do you see?";

/// A running server; it ends with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(dwindle: &Dwindle, options: &[&str]) -> Server {
        let mut command = dwindle.command(&["serve", "--port", "0", "--device", "cpu", "--json"]);
        command.args(options);
        command.env("DWINDLE_DATA", dwindle.path("data"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let url = told["url"].as_str().unwrap().to_owned();
        let server = Server { child, url };
        let since = Instant::now();
        while server.get("/health").0 != 200 {
            assert!(since.elapsed() < Duration::from_secs(300), "it does not load");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder().http_status_as_error(false).build().new_agent()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut response = Self::agent().get(format!("{}{path}", self.url)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let request = Self::agent().post(format!("{}{path}", self.url)).content_type("application/json");
        let mut response = request.send(body.to_string()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    #[track_caller]
    fn chat(&self, body: &Value) -> Value {
        let (status, text) = self.post("/v1/chat/completions", body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The text of a streamed answer.
    fn streamed(&self, body: &Value) -> String {
        let mut body = body.clone();
        body["stream"] = true.into();
        let (status, text) = self.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{text}");
        let chunks = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        let chunks = chunks.map(|data| serde_json::from_str::<Value>(data).unwrap());
        chunks.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn picture() -> String {
    // Base64 as RFC 4648 has it.
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = std::fs::read(root().join(PICTURE)).unwrap();
    let mut text = "data:image/png;base64,".to_owned();
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let letter = char::from(LETTERS[(number >> (18 - 6 * place) & 63) as usize]);
            text.push(if place > chunk.len() { '=' } else { letter });
        }
    }
    text
}

/// What `dwindle run` answers.
fn run(dwindle: &Dwindle, options: &[&str]) -> Value {
    let fixed = ["run", "--device", "cpu", "--prompt", QUESTION, "--temperature", "0", "--json"];
    let output = dwindle.output(&[&fixed[..], options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_server_says_what_run_says() {
    let dwindle = Dwindle::new();
    let server = Server::start(&dwindle, &[]);
    let path = root().join(PICTURE);
    let said = run(&dwindle, &["--image", path.to_str().unwrap()]);
    let content =
        json!([{ "type": "image_url", "image_url": { "url": picture() } }, { "type": "text", "text": QUESTION }]);
    let body = json!({ "messages": [{ "role": "user", "content": content }], "temperature": 0 });
    let first = server.chat(&body);
    assert_eq!(first["choices"][0]["message"]["content"], said["answer"]);
    assert_eq!(first["dwindle"]["descriptions"], said["descriptions"]);
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(server.streamed(&body), said["answer"].as_str().unwrap());
    // Everything but the last position is there already, and the picture is not described again.
    let again = server.chat(&body);
    let prompt = again["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(again["usage"]["prompt_tokens_details"]["cached_tokens"], prompt - 1);
    assert_eq!(again["timings"]["describe_ms"], 0.0);
    assert_eq!(again["choices"], first["choices"]);

    // The next turn reads what is new alone; another conversation in between does not push it out.
    let messages = body["messages"].as_array().unwrap().clone();
    let title = json!({ "messages": [{ "role": "user", "content": "My name is Ana." }], "temperature": 0 });
    server.chat(&title);
    let answer = json!({ "role": "assistant", "content": said["answer"] });
    let next = json!({ "role": "user", "content": "What color is it?" });
    let turns = json!({ "messages": [messages[0], answer, next], "temperature": 0 });
    let third = server.chat(&turns);
    let cached = third["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let answered = first["usage"]["completion_tokens"].as_u64().unwrap();
    assert!(cached >= prompt + answered - 1, "{third}");
    assert_eq!(server.streamed(&turns), third["choices"][0]["message"]["content"].as_str().unwrap());

    // Text alone, and a text that is continued.
    let said = run(&dwindle, &[]);
    let body = json!({ "messages": [{ "role": "user", "content": QUESTION }], "temperature": 0 });
    assert_eq!(server.chat(&body)["choices"][0]["message"]["content"], said["answer"]);
    let said = run(&dwindle, &["--raw", "--max-tokens", "12"]);
    let (status, text) =
        server.post("/v1/completions", &json!({ "prompt": QUESTION, "temperature": 0, "max_tokens": 12 }));
    assert_eq!(status, 200, "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["choices"][0]["text"], said["answer"]);
    let info: Value = serde_json::from_str(&server.get("/dwindle/info").1).unwrap();
    assert_eq!((&info["model"], &info["sees"], &info["ensemble"]), (&json!("demo"), &json!(true), &json!(true)));
    assert!(server.get("/").1.contains("<!doctype html>"));
}

#[test]
fn answers_of_a_real_model_conform_to_schemas() {
    let dwindle = Dwindle::new();
    let schema = json!({ "type": "object", "properties": { "colour": { "enum": ["red", "blue"] },
        "count": { "type": "integer", "minimum": 1, "maximum": 9 } }, "required": ["colour", "count"],
        "additionalProperties": false });
    let check = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(["red", "blue"].contains(&value["colour"].as_str().unwrap()), "{text}");
        assert!((1..=9).contains(&value["count"].as_i64().unwrap()), "{text}");
    };
    std::fs::write(dwindle.path("schema.json"), schema.to_string()).unwrap();
    check(run(&dwindle, &["--json-schema", "schema.json"])["answer"].as_str().unwrap());
    std::fs::write(dwindle.path("wrong.json"), "{\"type\": 5}").unwrap();
    let output = dwindle.output(&["run", "--device", "cpu", "-p", "x", "--json-schema", "wrong.json"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && told.contains("wrong.json holds no JSON schema"), "{told}");
    let server = Server::start(&dwindle, &[]);
    let mut body = json!({ "messages": [{ "role": "user", "content": QUESTION }], "temperature": 0,
        "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } });
    let whole = server.chat(&body)["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    check(&whole);
    assert_eq!(server.streamed(&body), whole);
    body.as_object_mut().unwrap().remove("response_format");
    body["tools"] = json!([{ "type": "function", "function": { "name": "paint", "parameters": schema } }]);
    body["tool_choice"] = "required".into();
    body["parallel_tool_calls"] = false.into();
    let answer = server.chat(&body);
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(call["name"], "paint", "{answer}");
    check(call["arguments"].as_str().unwrap());
}

#[cfg(unix)]
#[test]
fn signals_end_streams_and_the_server() {
    for (signal, code) in [("INT", Some(130)), ("TERM", None)] {
        let dwindle = Dwindle::new();
        let mut server = Server::start(&dwindle, &[]);
        let schema = json!({ "type": "object", "properties": { "n": { "type": "array", "items": { "type": "integer" },
            "minItems": 400 } }, "required": ["n"], "additionalProperties": false });
        let body = json!({ "messages": [{ "role": "user", "content": QUESTION }], "stream": true,
            "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } });
        let request = Server::agent().post(format!("{}/v1/chat/completions", server.url));
        let mut response = request.send(body.to_string()).unwrap();
        let mut reader = BufReader::new(response.body_mut().as_reader());
        let mut text = String::new();
        while !text.contains("\"content\":\"") {
            assert!(reader.read_line(&mut text).unwrap() > 0, "{text}");
        }
        let since = Instant::now();
        let id = server.child.id().to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
        reader.read_to_string(&mut text).unwrap();
        assert!(text.trim_end().ends_with('}') && text.contains("shutting_down"), "{text}");
        let status = server.child.wait().unwrap();
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
        assert_eq!(status.code(), code, "{status:?}");
        #[cfg(unix)]
        if code.is_none() {
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(status.signal(), Some(15));
        }
    }
}

#[test]
fn what_would_open_the_server_to_others_is_refused() {
    let dwindle = Dwindle::new();
    for (options, words) in [
        (&["--bind", "0.0.0.0"][..], "--api-key"),
        (&["--bind", "::"], "--lan"),
        (&["--bind", "0.0.0.0", "--api-key", "short"], "at least 8"),
        (&["--bind", "0.0.0.0", "--lan"], "leave out --bind"),
        (&["--allow-origin", "*"], "--api-key"),
        (&["--allow-origin", "localhost"], "http://localhost:3000"),
        (&["no-such-model.dwindle"], "no-such-model"),
        (&["--revoke", "nobody"], "--devices"),
    ] {
        let output = dwindle
            .command(&["serve", "--port", "0"])
            .args(options)
            .env("DWINDLE_DATA", dwindle.path("data"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{options:?}: {told}");
        assert!(told.contains(words), "{options:?}: {told}");
    }
}
