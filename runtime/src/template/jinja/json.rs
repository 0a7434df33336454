//! The filter `tojson`, as transformers defines it: Python's `json.dumps`, nothing escaped for HTML.

use super::arguments::{Given, some, text, truth_or};
use super::fault::{Fault, Result};
use super::print;
use super::render::Renderer;
use super::value::{Make, Text, TextBuilder, Value};

/// How JSON is written.
struct Style {
    ascii: bool,
    /// What a level of indentation is; without it, all is one line.
    indent: Option<Text>,
    between: Text,
    colon: Text,
    sort: bool,
}

impl Renderer {
    /// `value|tojson(ensure_ascii, indent, separators, sort_keys)`.
    pub(super) fn to_json(&self, value: &Value, given: Given) -> Result<Value> {
        let [ascii, indent, separators, sort] =
            given.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
        let indent = match some(indent) {
            None => None,
            Some(Value::Str(text)) => Some(text),
            Some(width) => {
                let Some(width) = width.as_int() else {
                    return Fault::failed(format!("tojson(): indent cannot be {}", width.type_name()));
                };
                let mut spaces = TextBuilder::new(&self.meter)?;
                spaces.repeat(" ", usize::try_from(width).unwrap_or(0))?;
                Some(spaces.into_text())
            }
        };
        let (between, colon) = match some(separators) {
            Some(pair) => match self.iterate(&pair)?.items.as_slice() {
                [between, colon] => (text(between.clone(), "separators")?, text(colon.clone(), "separators")?),
                _ => return Fault::failed("tojson(): separators must be a pair"),
            },
            None => (self.meter.text(if indent.is_some() { "," } else { ", " })?, self.meter.text(": ")?),
        };
        let style = Style { ascii: truth_or(ascii, false), indent, between, colon, sort: truth_or(sort, false) };
        let mut out = TextBuilder::new(&self.meter)?;
        self.write_json(value, &style, 0, &mut out)?;
        Ok(out.finish())
    }

    fn write_json(&self, value: &Value, style: &Style, level: usize, out: &mut TextBuilder) -> Result<()> {
        self.meter.step()?;
        match value {
            Value::None => out.push("null"),
            Value::Bool(value) => out.push(if *value { "true" } else { "false" }),
            Value::Int(value) => out.push(&value.to_string()),
            Value::Float(value) => out.push(&number(*value)),
            Value::Str(text) => string(text, style.ascii, out),
            Value::List(list) => {
                let items = list.items.iter().map(|item| (None, item));
                self.write_container(['[', ']'], items, style, level, out)
            }
            Value::Dict(dict) => {
                let mut entries: Vec<(&Value, &Value)> = dict.entries.values().map(|(k, v)| (k, v)).collect();
                if style.sort {
                    entries = super::sort::sort(entries, |a, b| self.order(a.0, b.0, "<"))?;
                }
                self.write_container(['{', '}'], entries.into_iter().map(|(k, v)| (Some(k), v)), style, level, out)
            }
            other => Fault::failed(format!("Object of type {} is not JSON serializable", other.type_name())),
        }
    }

    fn write_container<'a>(
        &self,
        [open, close]: [char; 2],
        items: impl Iterator<Item = (Option<&'a Value>, &'a Value)>,
        style: &Style,
        level: usize,
        out: &mut TextBuilder,
    ) -> Result<()> {
        let _level = self.meter.enter()?;
        let new_line = |level: usize, out: &mut TextBuilder| match &style.indent {
            Some(indent) => {
                out.push("\n")?;
                out.repeat(indent, level)
            }
            None => Ok(()),
        };
        out.push_char(open)?;
        let mut any = false;
        for (key, item) in items {
            if any {
                out.push(&style.between)?;
            }
            any = true;
            new_line(level + 1, out)?;
            if let Some(key) = key {
                self.write_key(key, style, out)?;
                out.push(&style.colon)?;
            }
            self.write_json(item, style, level + 1, out)?;
        }
        if any {
            new_line(level, out)?;
        }
        out.push_char(close)
    }

    fn write_key(&self, key: &Value, style: &Style, out: &mut TextBuilder) -> Result<()> {
        match key {
            Value::Str(text) => string(text, style.ascii, out),
            Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                out.push("\"")?;
                self.write_json(key, style, 0, out)?;
                out.push("\"")
            }
            other => Fault::failed(format!("keys must be str, int, float, bool or None, not {}", other.type_name())),
        }
    }
}

fn number(value: f64) -> String {
    match print::float(value).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        other => other.to_owned(),
    }
}

fn string(text: &str, ascii: bool, out: &mut TextBuilder) -> Result<()> {
    out.push("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => out.push("\\\"")?,
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            '\x08' => out.push("\\b")?,
            '\x0c' => out.push("\\f")?,
            '\0'..='\x1f' => out.push(&format!("\\u{:04x}", u32::from(letter)))?,
            letter if ascii && letter > '~' => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push(&format!("\\u{unit:04x}"))?;
                }
            }
            letter => out.push_char(letter)?,
        }
    }
    out.push("\"")
}
