//! Calls that are no JSON: Python's `name(key=value)` and FunctionGemma's `call:name{key:value}`.

use serde_json::{Map, Value};

/// The deepest nesting of a value.
const MOST_DEPTH: usize = 32;

/// Reads calls in Python, one a line, perhaps within `print(…)`.
pub fn python(text: &str) -> Option<Vec<(String, Value)>> {
    let mut calls = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = match line.strip_prefix("print(").and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) if inner.contains('(') => inner,
            _ => line,
        };
        let mut reader = Reader { rest: line, python: true };
        let name = reader.name()?;
        reader.take('(')?;
        let mut arguments = Map::new();
        while reader.take(')').is_none() {
            let key = reader.name()?;
            reader.take('=')?;
            arguments.insert(key, reader.value(0)?);
            if reader.take(',').is_none() && !reader.rest.trim_start().starts_with(')') {
                return None;
            }
        }
        reader.rest.trim().is_empty().then_some(())?;
        calls.push((name, Value::Object(arguments)));
    }
    (!calls.is_empty()).then_some(calls)
}

/// Reads `call:name{key:<escape>text<escape>,number:5}`.
pub fn function_gemma(text: &str) -> Option<(String, Value)> {
    let mut reader = Reader { rest: text.trim().strip_prefix("call:")?, python: false };
    let name = reader.name()?;
    reader.rest = reader.rest.trim_start();
    let arguments = reader.value(0)?;
    (reader.rest.trim().is_empty() && arguments.is_object()).then_some((name, arguments))
}

const ESCAPE: &str = "<escape>";

struct Reader<'a> {
    rest: &'a str,
    /// Whether texts are quoted as in Python.
    python: bool,
}

impl Reader<'_> {
    fn take(&mut self, letter: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(letter)?;
        Some(())
    }

    fn name(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"_.-".contains(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then(|| name.to_owned())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let rest = self.rest.trim_start();
        if depth > MOST_DEPTH {
            return None;
        }
        if let Some(text) = rest.strip_prefix(ESCAPE) {
            let (text, rest) = text.split_once(ESCAPE)?;
            self.rest = rest;
            return Some(text.into());
        }
        match rest.chars().next()? {
            quote @ ('"' | '\'') => self.quoted(quote),
            '[' => {
                self.take('[')?;
                let mut list = Vec::new();
                while self.take(']').is_none() {
                    list.push(self.value(depth + 1)?);
                    if self.take(',').is_none() && !self.rest.trim_start().starts_with(']') {
                        return None;
                    }
                }
                Some(list.into())
            }
            '{' => {
                self.take('{')?;
                let mut map = Map::new();
                while self.take('}').is_none() {
                    let key = match self.rest.trim_start().chars().next()? {
                        '"' | '\'' | '<' => self.value(depth + 1)?.as_str()?.to_owned(),
                        _ => self.name()?,
                    };
                    self.take(':')?;
                    map.insert(key, self.value(depth + 1)?);
                    if self.take(',').is_none() && !self.rest.trim_start().starts_with('}') {
                        return None;
                    }
                }
                Some(map.into())
            }
            _ => {
                let end = rest.find(|c: char| ",)]}".contains(c) || c.is_whitespace()).unwrap_or(rest.len());
                let (word, rest) = rest.split_at(end);
                self.rest = rest;
                match word {
                    "True" | "true" => Some(true.into()),
                    "False" | "false" => Some(false.into()),
                    "None" | "null" => Some(Value::Null),
                    _ => match serde_json::from_str(word).ok().filter(Value::is_number) {
                        Some(number) => Some(number),
                        None if self.python || word.is_empty() => None,
                        None => Some(word.into()),
                    },
                }
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Option<Value> {
        let mut letters = self.rest.trim_start().char_indices();
        letters.next();
        let mut text = String::new();
        let start = self.rest.len() - self.rest.trim_start().len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    other => text.push(other),
                },
                _ if letter == quote => {
                    self.rest = &self.rest[start + at + 1..];
                    return Some(text.into());
                }
                _ => text.push(letter),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn python_calls() {
        let read = python;
        assert_eq!(
            read("print(weather(city=\"New \\\"York\\\"\", days=3, exact=True))\nstop()"),
            Some(vec![
                ("weather".to_owned(), json!({ "city": "New \"York\"", "days": 3, "exact": true })),
                ("stop".to_owned(), json!({}))
            ])
        );
        assert_eq!(
            read("f(a=[1, 'two', None], b={'x': -1.5})"),
            Some(vec![("f".to_owned(), json!({ "a": [1, "two", null], "b": { "x": -1.5 } }))])
        );
        for text in ["", "f(", "f(1)", "f(a=b)", "f(a=1", "f(a=1) + 2", "a = 5", "f(a='x)"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("f(a={})", "[".repeat(100_000))), None);
    }

    #[test]
    fn function_gemma_calls() {
        assert_eq!(
            function_gemma("call:weather{city:<escape>New, {York}<escape>,days:3,tags:[<escape>a<escape>]}"),
            Some(("weather".to_owned(), json!({ "city": "New, {York}", "days": 3, "tags": ["a"] })))
        );
        assert_eq!(function_gemma("call:stop{}"), Some(("stop".to_owned(), json!({}))));
        for text in ["weather{}", "call:weather", "call:f{a:<escape>x}", "call:f{a:1} more"] {
            assert_eq!(function_gemma(text), None, "{text}");
        }
    }
}
