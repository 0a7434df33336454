//! What an answer may be: the grammar's text for each kind of restriction.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::Error;

/// The most bytes of a schema.
const MOST_BYTES: usize = 256 << 10;
/// The deepest nesting of a schema.
const MOST_DEPTH: usize = 64;

/// What an answer may be.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// Any JSON object.
    JsonObject,
    /// A JSON text that conforms to a schema.
    JsonSchema(Value),
    /// Calls of functions.
    Calls {
        /// The functions that may be called.
        calls: Vec<Call>,
        /// How many calls.
        repeat: Repeat,
    },
}

/// How a call of one function is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What stands before the arguments.
    pub before: String,
    /// The schema of the arguments.
    pub arguments: Value,
    /// What stands behind the arguments.
    pub after: String,
}

/// How many calls an answer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Exactly one.
    Once,
    /// One or more, with this between them.
    SeparatedBy(String),
}

impl Grammar {
    /// The grammar in llguidance's dialect of Lark.
    pub(crate) fn lark(&self) -> Result<String, Error> {
        match self {
            Grammar::JsonObject => Ok(format!("start: %json {}\n", embedded(&json!({ "type": "object" }))?)),
            Grammar::JsonSchema(schema) => Ok(format!("start: %json {}\n", embedded(schema)?)),
            Grammar::Calls { calls, repeat } => {
                let mut text = match repeat {
                    Repeat::Once => "start: call\n".to_owned(),
                    Repeat::SeparatedBy(separator) => format!("start: call ({} call)*\n", literal(separator)),
                };
                let names: Vec<String> = (0..calls.len()).map(|index| format!("call_{index}")).collect();
                let _ = writeln!(text, "call: {}", names.join(" | "));
                for (name, call) in names.iter().zip(calls) {
                    let schema = embedded(&call.arguments)?;
                    let (before, after) = (literal(&call.before), literal(&call.after));
                    let _ =
                        writeln!(text, "{name}: {before} arguments_{name} {after}\narguments_{name}: %json {schema}");
                }
                Ok(text)
            }
        }
    }
}

/// A text as a literal of the grammar, which takes JSON's escapes.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// A schema with bounded white space: an answer of a small model would else be nothing but spaces.
fn embedded(schema: &Value) -> Result<String, Error> {
    if depth_exceeds(schema, MOST_DEPTH) {
        return Err(Error::Depth { limit: MOST_DEPTH });
    }
    let mut schema = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(true) => serde_json::Map::new(),
        other => {
            let why = format!("it is {}, not an object", kind(other));
            return Err(Error::Schema { why });
        }
    };
    let bytes = Value::Object(schema.clone()).to_string().len();
    if bytes > MOST_BYTES {
        return Err(Error::Size { bytes, limit: MOST_BYTES });
    }
    schema.insert(
        "x-guidance".to_owned(),
        json!({
            "whitespace_flexible": false,
            "item_separator": ",[ \\n]?[ ]{0,8}",
            "key_separator": ":[ ]?",
            "lenient": false,
        }),
    );
    Ok(Value::Object(schema).to_string())
}

fn depth_exceeds(value: &Value, limit: usize) -> bool {
    match value {
        Value::Array(items) => limit == 0 || items.iter().any(|item| depth_exceeds(item, limit - 1)),
        Value::Object(map) => limit == 0 || map.values().any(|item| depth_exceeds(item, limit - 1)),
        _ => false,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "`false`, which nothing conforms to",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
