//! Answers of each family, cut at every place.

use serde_json::json;

use super::*;

fn tools() -> Vec<Tool> {
    let tool = |name: &str| {
        json!({ "type": "function", "function": { "name": name, "description": "d",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } })
    };
    read(&[tool("weather"), tool("stop")]).unwrap()
}

/// The text and the calls of an answer, which must not depend on where it is cut.
fn parsed(syntax: Option<Syntax>, parallel: bool, answer: &str) -> (String, Vec<(String, String)>) {
    let mut results = Vec::new();
    for at in (0..=answer.len()).filter(|at| answer.is_char_boundary(*at)) {
        let mut parser = Parser::new(syntax, &tools(), parallel);
        let mut pieces = parser.push(&answer[..at]);
        pieces.extend(parser.push(&answer[at..]));
        pieces.extend(parser.finish());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text += &piece,
                Piece::Call { index, name } => {
                    assert_eq!(index, calls.len(), "{answer} cut at {at}");
                    calls.push((name, String::new()));
                }
                Piece::Arguments { index, text } => calls[index].1 += &text,
            }
        }
        assert_eq!(calls.len(), parser.calls(), "{answer} cut at {at}");
        results.push((text, calls));
    }
    for (at, result) in results.iter().enumerate() {
        assert_eq!(*result, results[0], "{answer} cut at the {at}th place");
    }
    results.swap_remove(0)
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn hermes() {
    let syntax = Some(Syntax::Hermes);
    let one = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>";
    assert_eq!(parsed(syntax, true, one), (String::new(), vec![call("weather", "{\"city\": \"Köln\"}")]));
    let (text, calls) = parsed(syntax, true, &format!("Let me see.\n\n{one}\n{one}"));
    assert_eq!((text.as_str(), calls.len()), ("Let me see.", 2));
    assert_eq!(parsed(syntax, false, &format!("{one}\n{one}")).1.len(), 1);
    // The keys in another order, and arguments as a text.
    let other = "<tool_call>{\"arguments\": \"{\\\"city\\\":\\\"Rom\\\"}\", \"name\": \"weather\"}</tool_call>";
    assert_eq!(parsed(syntax, true, other).1, [call("weather", "{\"city\":\"Rom\"}")]);
    // The mark that ends it is a stop text, or was never written.
    let open = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}";
    assert_eq!(parsed(syntax, false, open).1, [call("stop", "{}")]);
    for text in ["a < b and <tool_ but no call", "<tool_call>nothing</tool_call> more", "plain"] {
        assert_eq!(parsed(syntax, true, text), (text.to_owned(), vec![]));
    }
}

#[test]
fn llama() {
    let syntax = Some(Syntax::Llama);
    let one = "{\"name\": \"weather\", \"parameters\": {\"city\": \"Rom\"}}";
    for answer in [one.to_owned(), format!("<|python_tag|>{one}"), format!("\n{one}\n")] {
        assert_eq!(
            parsed(syntax, true, &answer),
            (String::new(), vec![call("weather", "{\"city\": \"Rom\"}")]),
            "{answer}"
        );
    }
    let two = format!("{one}; {}", "{\"name\": \"stop\", \"parameters\": {}}");
    assert_eq!(parsed(syntax, true, &two).1, [call("weather", "{\"city\": \"Rom\"}"), call("stop", "{}")]);
    assert_eq!(parsed(syntax, false, &two).1.len(), 1);
    for text in [
        "{\"title\": \"an answer in JSON\"}",
        "{\"name\": \"Rome\", \"arguments\": {}}",
        "Hello {\"name\": \"stop\"}",
        "{ no",
    ] {
        assert_eq!(parsed(syntax, true, text), (text.to_owned(), vec![]));
    }
}

#[test]
fn lists_of_calls() {
    let list = "[{\"name\": \"stop\", \"arguments\": {}}, {\"name\": \"weather\", \"arguments\": {\"city\": \"x\"}}]";
    assert_eq!(parsed(Some(Syntax::Json), true, list).1, [call("stop", "{}"), call("weather", "{\"city\":\"x\"}")]);
}

#[test]
fn gemma() {
    let answer = "Sure.\n<start_function_call>call:weather{city:<escape>Rom<escape>}<end_function_call>";
    assert_eq!(
        parsed(Some(Syntax::FunctionGemma), true, answer),
        ("Sure.".to_owned(), vec![call("weather", "{\"city\":\"Rom\"}")])
    );
    let answer = "```tool_code\nprint(weather(city=\"Rom\"))\n```";
    assert_eq!(parsed(Some(Syntax::ToolCode), true, answer).1, [call("weather", "{\"city\":\"Rom\"}")]);
    let code = "```tool_code\nx = 5\n```";
    assert_eq!(parsed(Some(Syntax::ToolCode), true, code), (code.to_owned(), vec![]));
}

#[test]
fn without_tools_everything_is_text() {
    let text = "<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>";
    assert_eq!(parsed(None, true, text), (text.to_owned(), vec![]));
}

#[test]
fn choices_name_what_is_there() {
    let tools = tools();
    let choice = |value: Value| {
        let body = json!({ "tool_choice": value });
        let fields = Fields::root(&body).unwrap();
        read_choice(&fields, &tools).map_err(|error| error.message)
    };
    assert_eq!(choice(json!(null)), Ok(Choice::Auto));
    assert_eq!(choice(json!("required")), Ok(Choice::Required));
    assert_eq!(
        choice(json!({ "type": "function", "function": { "name": "stop" } })),
        Ok(Choice::Named("stop".to_owned()))
    );
    assert_eq!(choice(json!({ "type": "function", "name": "stop" })), Ok(Choice::Named("stop".to_owned())));
    assert!(choice(json!({ "type": "function", "function": { "name": "go" } })).unwrap_err().contains("not among"));
    assert!(choice(json!("sometimes")).unwrap_err().contains("must be"));
    assert!(read(&[json!({ "type": "web_search" })]).unwrap_err().message.contains("web_search"));
    assert!(read(&[json!({ "function": { "name": "two words" } })]).is_err());
    let stop = json!({ "function": { "name": "stop" } });
    assert!(read(&[stop.clone(), stop]).unwrap_err().message.contains("two functions"));
}

#[test]
fn models_without_tools_read_them_as_text() {
    use crate::serve::draft::{Piece as Content, Said};
    use dwindle_runtime::engine::{Role, ToolCall};
    let called = Said {
        content: Vec::new(),
        tool_calls: vec![ToolCall { id: "1".into(), name: "weather".into(), arguments: json!({ "city": "Rom" }) }],
        ..Said::text(Role::Assistant, "")
    };
    let result = |text: &str| Said { tool_call_id: Some("1".into()), ..Said::text(Role::Tool, text) };
    let mut messages = without_calls(vec![
        Said::text(Role::User, "How is it?"),
        called,
        result("sunny"),
        result("warm"),
        Said::text(Role::User, "And?"),
        Said::text(Role::Assistant, "Fine."),
        Said::text(Role::User, "Thanks."),
    ]);
    instruct(&mut messages, &tools());
    let text = |said: &Said| -> String {
        said.content.iter().map(|piece| if let Content::Text(text) = piece { text.as_str() } else { "" }).collect()
    };
    let roles: Vec<Role> = messages.iter().map(|said| said.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::User, Role::Assistant, Role::User]);
    assert!(text(&messages[0]).contains("\"name\":\"weather\""));
    assert!(text(&messages[2]).contains("<tool_call>\n{\"name\":\"weather\",\"arguments\":{\"city\":\"Rom\"}}"));
    assert!(
        text(&messages[3]).contains("sunny")
            && text(&messages[3]).contains("warm")
            && text(&messages[3]).ends_with("And?")
    );
}
