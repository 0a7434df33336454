//! What real Jinja makes of several hundred templates, and templates that try to take everything.

mod hostile;

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value as Json;

use super::*;
use crate::template::jinja::value::{Dict, Kind, ListBuilder, Make};

/// A value of the fixture.
fn value(meter: &Rc<Meter>, json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => Value::Int(value),
            None => Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => meter.str(text).unwrap(),
        Json::Array(items) => {
            let mut list = ListBuilder::new(meter).unwrap();
            items.iter().for_each(|item| list.push(value(meter, item)).unwrap());
            list.finish(Kind::List).unwrap()
        }
        Json::Object(entries) => {
            let mut dict = Dict::new(meter).unwrap();
            for (key, item) in entries {
                dict.insert(meter, meter.str(key).unwrap(), value(meter, item)).unwrap();
            }
            dict.finish()
        }
    }
}

/// Renders with the names of a JSON object.
fn render(source: &str, names: &Json) -> Result<String, (u32, Fault)> {
    let now = UNIX_EPOCH + Duration::from_micros(1_721_822_706_000_123);
    Program::parse(source)?.render(now, |meter| {
        Ok(names.as_object().unwrap().iter().map(|(name, json)| (name.clone(), value(meter, json))).collect())
    })
}

fn fixture(name: &str) -> Json {
    let path = format!("{}/../tests/templates/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Compares with what Jinja gave: a text, or that it failed.
#[track_caller]
fn check_all(fixture: &Json, source: impl Fn(&Json) -> String) -> usize {
    let cases = fixture["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let source = source(case);
        let names = case.get("names").map_or(&fixture["names"], |chosen| match chosen {
            Json::String(name) => &fixture["conversations"][name],
            own => own,
        });
        let found = render(&source, names);
        let right = match (&found, case["output"].as_str()) {
            (Ok(found), Some(expected)) => found == expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !right {
            let name = case.get("template").or(case.get("source"));
            wrong.push(format!("{name:?}\n    is   {found:?}\n    not  {}", case["output"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    cases.len()
}

#[test]
fn small_templates_render_as_in_jinja() {
    let count = check_all(&fixture("small.json"), |case| case["source"].as_str().unwrap().to_owned());
    assert!(count >= 400, "{count} templates");
}

#[test]
fn chat_templates_render_as_in_jinja() {
    let count = check_all(&fixture("chat.json"), |case| {
        let name = case["template"].as_str().unwrap();
        let path = format!("{}/../tests/templates/chat/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    });
    assert!(count >= 160, "{count} conversations");
}
