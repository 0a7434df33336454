//! `POST /v1/responses`, without memory: the whole conversation comes with each request.

use dwindle_constrain::Grammar;
use dwindle_runtime::Sampling;
use dwindle_runtime::engine::{Role, ToolCall};
use serde_json::Value;

use super::chat::Chat;
use super::fields::{Fields, wrong};
use super::generation::{self, Generation, MOST_TOP_LOGPROBS};
use super::messages::{Unfetched, arguments, check_pictures, content};
use crate::serve::draft::{Piece, Said};
use crate::serve::error::ApiError;
use crate::serve::tools::{self, Tool};

/// A request, as a chat, and what the answer repeats of it.
#[derive(Debug)]
pub struct Responses {
    /// The chat.
    pub chat: Chat,
    /// Fields that the answer repeats.
    pub repeated: Repeated,
}

/// What an answer repeats of its request.
#[derive(Clone, Debug)]
pub struct Repeated {
    /// `instructions`.
    pub instructions: Option<String>,
    /// `tools`.
    pub tools: Value,
    /// `tool_choice`.
    pub tool_choice: Value,
    /// `text`.
    pub text: Value,
    /// `metadata`.
    pub metadata: Value,
    /// `max_output_tokens`.
    pub max_output_tokens: Option<usize>,
    /// `parallel_tool_calls`.
    pub parallel: bool,
    /// `truncation`.
    pub truncation: &'static str,
    /// `temperature` and `top_p`, as they are used.
    pub temperature: f32,
    /// The same.
    pub top_p: f32,
}

/// Reads a request.
///
/// # Errors
/// A field that is wrong.
pub fn read(body: &Value, defaults: &Sampling, vocab_size: u32) -> Result<Responses, ApiError> {
    let fields = Fields::root(body)?;
    fields.refuse("previous_response_id", "this server keeps no responses; send the whole conversation in `input`")?;
    fields.refuse("conversation", "this server keeps no conversations; send all of it in `input`")?;
    fields.refuse("background", "responses are not kept")?;
    fields.refuse("prompt", "there are no stored prompts")?;
    let instructions = fields.string("instructions")?;
    let mut messages = Vec::new();
    if let Some(instructions) = instructions {
        messages.push(plain(Said::text(Role::System, instructions)));
    }
    match fields.required("input")? {
        Value::String(text) => messages.push(plain(Said::text(Role::User, text.as_str()))),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                add(&Fields::of(item, &format!("input[{index}]"))?, &mut messages)?;
            }
        }
        other => return Err(wrong("input", "a string or a list of items", other)),
    }
    if messages.iter().all(|message| message.said.role == Role::System) {
        return Err(ApiError::field("input", "`input` holds no message to answer"));
    }
    check_pictures(&messages)?;
    let mut generation = Generation::read(&fields, defaults, &["max_output_tokens"], vocab_size)?;
    let includes = fields.list("include")?.unwrap_or_default();
    if includes.iter().any(|wanted| wanted == "message.output_text.logprobs") {
        generation.top_logprobs = Some(fields.integer("top_logprobs", 0, MOST_TOP_LOGPROBS)?.unwrap_or(0) as usize);
    }
    let given = fields.list("tools")?.unwrap_or_default();
    let tools = functions(given)?;
    let choice = tools::read_choice(&fields, &tools)?;
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let format: Option<Grammar> = match fields.object("text")? {
        Some(text) => generation::format(text.object("format")?)?,
        None => None,
    };
    if format.is_some() && choice.must_call() {
        return Err(ApiError::field("text.format", "a format and a required `tool_choice` exclude each other"));
    }
    let or = |name: &str, default: Value| fields.get(name).cloned().unwrap_or(default);
    let repeated = Repeated {
        instructions: instructions.map(str::to_owned),
        tools: Value::from(given.to_vec()),
        tool_choice: or("tool_choice", "auto".into()),
        text: or("text", serde_json::json!({ "format": { "type": "text" } })),
        metadata: or("metadata", serde_json::json!({})),
        max_output_tokens: generation.max_tokens,
        parallel,
        truncation: if generation.may_forget { "auto" } else { "disabled" },
        temperature: generation.sampling.temperature,
        top_p: generation.sampling.top_p,
    };
    let chat = Chat {
        model: fields.string("model")?.map(str::to_owned),
        messages,
        generation,
        tools,
        choice,
        parallel,
        format,
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage: true,
    };
    Ok(Responses { chat, repeated })
}

/// The functions among the tools. Tools that OpenAI's own servers execute are left out, because a model need not call
/// what it is offered; programs send them unasked.
fn functions(list: &[Value]) -> Result<Vec<Tool>, ApiError> {
    let mut tools = Vec::new();
    for (index, value) in list.iter().enumerate() {
        let fields = Fields::of(value, &format!("tools[{index}]"))?;
        match fields.required_string("type")? {
            "function" => tools.push(tools::tool(&fields)?),
            other => tracing::debug!("a tool of the type {other} is not offered to the model"),
        }
    }
    tools::check(tools)
}

fn plain(said: Said) -> Unfetched {
    Unfetched { said, pictures: Vec::new() }
}

/// Adds an item to the conversation.
fn add(item: &Fields<'_>, messages: &mut Vec<Unfetched>) -> Result<(), ApiError> {
    match item.string("type")?.unwrap_or("message") {
        "message" => messages.push(message(item)?),
        "function_call" => {
            let call = ToolCall {
                id: item.required_string("call_id")?.to_owned(),
                name: item.required_string("name")?.to_owned(),
                arguments: arguments(item.get("arguments"), &item.path("arguments"))?,
            };
            // What a model says and calls in one turn are items of their own.
            match messages.last_mut() {
                Some(last) if last.said.role == Role::Assistant => last.said.tool_calls.push(call),
                _ => {
                    let said = Said { content: Vec::new(), tool_calls: vec![call], ..Said::text(Role::Assistant, "") };
                    messages.push(plain(said));
                }
            }
        }
        "function_call_output" => {
            let mut said = Said { content: Vec::new(), ..Said::text(Role::Tool, "") };
            said.tool_call_id = Some(item.required_string("call_id")?.to_owned());
            let pictures = parts(item, "output", &mut said)?;
            messages.push(Unfetched { said, pictures });
        }
        // What a model thought is not shown to it again.
        "reasoning" => {}
        "item_reference" => {
            let message = "this server keeps no items; send them whole";
            return Err(ApiError::unsupported(item.path("type"), message));
        }
        other => {
            let message = format!("items of the type `{other}` are not supported");
            return Err(ApiError::unsupported(item.path("type"), message));
        }
    }
    Ok(())
}

fn message(item: &Fields<'_>) -> Result<Unfetched, ApiError> {
    let role = match item.required_string("role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => {
            let message = format!("the role `{other}` is not supported; use system, developer, user or assistant");
            return Err(ApiError::field(item.path("role"), message).with_code("invalid_value"));
        }
    };
    let mut said = Said { content: Vec::new(), ..Said::text(role, "") };
    let pictures = parts(item, "content", &mut said)?;
    if !pictures.is_empty() && role != Role::User {
        return Err(ApiError::field(item.path("content"), "pictures belong to messages of the role `user`"));
    }
    Ok(Unfetched { said, pictures })
}

fn parts(
    item: &Fields<'_>,
    name: &str,
    said: &mut Said,
) -> Result<Vec<(usize, crate::serve::pictures::Source)>, ApiError> {
    let mut pictures = Vec::new();
    match item.required(name)? {
        Value::String(text) => said.content.push(Piece::Text(text.clone())),
        Value::Array(list) => {
            for (index, part) in list.iter().enumerate() {
                let part = Fields::of(part, &item.path(&format!("{name}[{index}]")))?;
                content(&part, &mut said.content, &mut pictures)?;
            }
        }
        other => return Err(wrong(&item.path(name), "a string or a list of parts", other)),
    }
    Ok(pictures)
}
