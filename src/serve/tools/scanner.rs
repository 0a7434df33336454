//! Reads one call in JSON as it is written: its name as soon as it is there, then the arguments piece by piece.

use serde_json::Value;

/// What was found in a piece of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The name of the function.
    Name(String),
    /// More of its arguments.
    Arguments(String),
}

/// Reads `{"name": …, "arguments": {…}}`; other orders of the keys are understood when it is complete.
#[derive(Debug, Default)]
pub struct Scanner {
    text: String,
    /// Where the arguments begin, and how far they were given.
    given: Option<usize>,
    /// Of the arguments, from where they were given.
    depth: usize,
    in_string: bool,
    escaped: bool,
    complete: bool,
}

const NAMES: [&str; 2] = ["\"name\"", "\"function\""];
const ARGUMENTS: [&str; 2] = ["\"arguments\"", "\"parameters\""];

impl Scanner {
    /// Takes more text.
    pub fn push(&mut self, text: &str) -> Vec<Found> {
        self.text += text;
        let mut found = Vec::new();
        if self.given.is_none() {
            let Some((name, at)) = beginning(&self.text) else { return found };
            found.push(Found::Name(name));
            self.given = Some(at);
        }
        if let Some(from) = self.given {
            let more = self.arguments(from);
            if !more.is_empty() {
                self.given = Some(from + more.len());
                found.push(Found::Arguments(more));
            }
        }
        found
    }

    /// What of the arguments is new.
    fn arguments(&mut self, from: usize) -> String {
        let mut end = from;
        for (at, letter) in self.text[from..].char_indices() {
            if self.complete {
                break;
            }
            end = from + at + letter.len_utf8();
            match letter {
                _ if self.escaped => self.escaped = false,
                '\\' if self.in_string => self.escaped = true,
                '"' => self.in_string = !self.in_string,
                '{' | '[' if !self.in_string => self.depth += 1,
                '}' | ']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    self.complete = self.depth == 0;
                }
                _ => {}
            }
        }
        self.text[from..end].to_owned()
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The name, and where an object of arguments begins, in a call that begins with its name.
fn beginning(text: &str) -> Option<(String, usize)> {
    let skip = |rest: &str| text.len() - rest.trim_start().len();
    let rest = text.trim_start().strip_prefix('{')?;
    let rest = &text[skip(rest)..];
    let rest = NAMES.iter().find_map(|key| rest.strip_prefix(key))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let mut names = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let name = names.next()?.ok()?;
    let rest = rest[names.byte_offset()..].trim_start().strip_prefix(',')?.trim_start();
    let rest = ARGUMENTS.iter().find_map(|key| rest.strip_prefix(key))?;
    let rest = rest.trim_start().strip_prefix(':')?;
    let at = skip(rest);
    text[at..].starts_with('{').then_some((name, at))
}

/// The name and arguments of a complete call in any order of its keys; nested in `function`, too.
pub fn whole(value: &Value) -> Option<(String, Value)> {
    let object = value.as_object()?;
    if let Some(inner) = object.get("function").filter(|inner| inner.is_object()) {
        return whole(inner);
    }
    let name = object.get("name").or_else(|| object.get("function"))?.as_str()?;
    let arguments = match object.get("arguments").or_else(|| object.get("parameters")) {
        // Written as a text within the text.
        Some(Value::String(text)) => serde_json::from_str(text).ok().filter(Value::is_object)?,
        Some(value @ Value::Object(_)) => value.clone(),
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(_) => return None,
    };
    Some((name.to_owned(), arguments))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cut_anywhere() {
        let text = r#" {"name": "look \"up\"", "arguments": {"city": "a}\"b", "deep": [{"x": 1}]}} "#;
        for at in (1..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let mut scanner = Scanner::default();
            let found: Vec<Found> = [&text[..at], &text[at..]].iter().flat_map(|part| scanner.push(part)).collect();
            assert_eq!(found[0], Found::Name("look \"up\"".to_owned()), "cut at {at}");
            let arguments: String = found[1..]
                .iter()
                .map(|found| match found {
                    Found::Arguments(text) => text.as_str(),
                    Found::Name(_) => panic!("two names"),
                })
                .collect();
            assert_eq!(arguments, r#"{"city": "a}\"b", "deep": [{"x": 1}]}"#, "cut at {at}");
        }
    }

    #[test]
    fn other_orders_and_forms() {
        let read = |text: &str| whole(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"arguments": {"a": 1}, "name": "f"}"#), Some(("f".to_owned(), json!({ "a": 1 }))));
        assert_eq!(read(r#"{"name": "f", "arguments": "{\"a\": 1}"}"#), Some(("f".to_owned(), json!({ "a": 1 }))));
        assert_eq!(read(r#"{"type": "function", "function": {"name": "f"}}"#), Some(("f".to_owned(), json!({}))));
        assert_eq!(read(r#"{"name": "f", "arguments": [1]}"#), None);
        assert_eq!(read(r#"{"title": "f"}"#), None);
        let mut scanner = Scanner::default();
        assert_eq!(scanner.push(r#"{"arguments": {"a": 1}, "name": "f"}"#), []);
    }
}
