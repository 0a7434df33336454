//! Functions that a model may call: their definitions, which of them a request wants called, and how.

mod arguments;
mod parser;
mod prompt;
mod scanner;
mod syntax;

use dwindle_constrain::{Call, Grammar, Repeat};
use serde_json::{Value, json};

pub use parser::{Parser, Piece};
pub use prompt::{instruct, without_calls};
pub use syntax::Syntax;

use super::engine::Info;
use super::error::ApiError;
use super::request::fields::Fields;

/// How a model writes calls; `None` where its template does not tell it of functions.
pub fn syntax_of(info: &Info) -> Option<Syntax> {
    let template = info.template.as_deref().filter(|_| info.knows_tools)?;
    // Calls in XML are not read; such models get the instruction instead.
    Syntax::detect(template)
}

/// The most functions of a request.
const MOST_TOOLS: usize = 128;
/// The longest name of a function, as in OpenAI's API.
const MOST_NAME: usize = 64;

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments.
    pub parameters: Value,
    /// The whole definition, as chats have it.
    pub definition: Value,
}

/// Which functions an answer calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// None.
    None,
    /// Those that the model wants.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

impl Choice {
    /// Whether the answer must be a call.
    pub fn must_call(&self) -> bool {
        matches!(self, Choice::Required | Choice::Named(_))
    }
}

/// Reads the `tools` of a chat.
///
/// # Errors
/// A definition that is wrong, or of something that is no function.
pub fn read(list: &[Value]) -> Result<Vec<Tool>, ApiError> {
    let mut tools = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let fields = Fields::of(value, &format!("tools[{index}]"))?;
        let kind = fields.string("type")?.unwrap_or("function");
        if kind != "function" {
            let message = format!("tools of the type `{kind}` are not supported; use `function`");
            return Err(ApiError::unsupported(fields.path("type"), message));
        }
        match fields.object("function")? {
            Some(function) => tools.push(tool(&function)?),
            None => return Err(fields.required("function").err().unwrap_or_else(|| ApiError::bad("no function"))),
        }
    }
    check(tools)
}

/// Reads one definition: `name`, `description`, `parameters`.
///
/// # Errors
/// A field that is wrong.
pub fn tool(function: &Fields<'_>) -> Result<Tool, ApiError> {
    let name = function.required_string("name")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > MOST_NAME || !name.chars().all(fits) {
        let message = format!("names of functions have 1 to {MOST_NAME} letters, digits, `_`, `-` or `.`");
        return Err(ApiError::field(function.path("name"), message));
    }
    let parameters = match function.get("parameters") {
        Some(parameters) => {
            Fields::of(parameters, &function.path("parameters"))?;
            parameters.clone()
        }
        None => json!({ "type": "object", "properties": {} }),
    };
    let description = function.string("description")?.unwrap_or_default();
    let definition = json!({
        "type": "function",
        "function": { "name": name, "description": description, "parameters": parameters },
    });
    Ok(Tool { name: name.to_owned(), parameters, definition })
}

/// Checks the number and the names of functions.
///
/// # Errors
/// There are too many, or two of one name.
pub fn check(tools: Vec<Tool>) -> Result<Vec<Tool>, ApiError> {
    if tools.len() > MOST_TOOLS {
        return Err(ApiError::field("tools", format!("`tools` may hold {MOST_TOOLS} functions at most")));
    }
    for (index, tool) in tools.iter().enumerate() {
        if tools[..index].iter().any(|other| other.name == tool.name) {
            return Err(ApiError::field("tools", format!("two functions are called `{}`", tool.name)));
        }
    }
    Ok(tools)
}

/// Reads `tool_choice` of either API.
///
/// # Errors
/// It names what is not there.
pub fn read_choice(fields: &Fields<'_>, tools: &[Tool]) -> Result<Choice, ApiError> {
    let choice = match fields.get("tool_choice") {
        None => Choice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "none" => Choice::None,
            "auto" => Choice::Auto,
            "required" | "any" => Choice::Required,
            other => {
                let message = format!("`tool_choice` is `{other}`; it must be none, auto, required or a function");
                return Err(ApiError::field("tool_choice", message));
            }
        },
        Some(value) => {
            let choice = Fields::of(value, "tool_choice")?;
            let kind = choice.required_string("type")?;
            if kind != "function" {
                let message = format!("a `tool_choice` of the type `{kind}` is not supported; use `function`");
                return Err(ApiError::unsupported("tool_choice.type", message));
            }
            match choice.object("function")? {
                Some(function) => Choice::Named(function.required_string("name")?.to_owned()),
                None => Choice::Named(choice.required_string("name")?.to_owned()),
            }
        }
    };
    match &choice {
        Choice::Required if tools.is_empty() => {
            Err(ApiError::field("tool_choice", "`tool_choice` is `required`, but there are no `tools`"))
        }
        Choice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            Err(ApiError::field("tool_choice", format!("`tool_choice` names `{name}`, which is not among the `tools`")))
        }
        _ => Ok(choice),
    }
}

/// The grammar of an answer that must be a call, and the syntax in which it is written; `None` where it need not be one.
pub fn grammar(syntax: Syntax, tools: &[Tool], choice: &Choice, parallel: bool) -> Option<(Grammar, Syntax)> {
    let is_wanted = |tool: &&Tool| match choice {
        Choice::Named(name) => tool.name == *name,
        _ => true,
    };
    if !choice.must_call() {
        return None;
    }
    // Arguments of the other syntaxes are no JSON; a template reads calls as data, so any syntax serves.
    let syntax = if syntax.is_json() { syntax } else { Syntax::Hermes };
    let (separator, written): (&str, Frame) = match syntax {
        Syntax::Llama | Syntax::Json => {
            ("; ", |name| (format!("{{\"name\": {}, \"parameters\": ", Value::from(name)), "}".to_owned()))
        }
        _ => ("\n", |name| {
            let before = format!("<tool_call>\n{{\"name\": {}, \"arguments\": ", Value::from(name));
            (before, "}\n</tool_call>".to_owned())
        }),
    };
    let call = |tool: &Tool| {
        let (before, after) = written(&tool.name);
        Call { before, arguments: object(&tool.parameters), after }
    };
    let calls = tools.iter().filter(is_wanted).map(call).collect();
    let repeat = if parallel { Repeat::SeparatedBy(separator.to_owned()) } else { Repeat::Once };
    Some((Grammar::Calls { calls, repeat }, syntax))
}

/// What stands before and behind the arguments of a function of this name.
type Frame = fn(&str) -> (String, String);

/// Arguments are objects, whatever a schema leaves open.
fn object(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(map) = &mut schema
        && ["type", "anyOf", "oneOf", "allOf", "$ref"].iter().all(|key| !map.contains_key(*key))
    {
        map.insert("type".to_owned(), "object".into());
    }
    schema
}

#[cfg(test)]
mod tests;
