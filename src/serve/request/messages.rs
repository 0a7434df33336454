//! The messages of a chat: roles, content as text or parts, calls and their results.

use dwindle_runtime::engine::{Role, ToolCall};
use serde_json::Value;

use super::fields::{Fields, wrong};
use crate::serve::draft::{Piece, Said};
use crate::serve::error::ApiError;
use crate::serve::pictures::{self, Source};

/// The most messages of a conversation.
const MOST_MESSAGES: usize = 4096;
/// The most pictures of a request.
pub const MOST_PICTURES: usize = 32;

/// A message whose pictures may have to be fetched.
#[derive(Debug)]
pub struct Unfetched {
    /// The message; its pictures are empty files.
    pub said: Said,
    /// Where the pictures of `said` come from, with their places in its content.
    pub pictures: Vec<(usize, Source)>,
}

/// Reads `messages`.
///
/// # Errors
/// A message that is wrong.
pub fn read(list: &[Value]) -> Result<Vec<Unfetched>, ApiError> {
    if list.is_empty() {
        return Err(ApiError::field("messages", "`messages` is empty; a chat needs at least one message"));
    }
    if list.len() > MOST_MESSAGES {
        return Err(ApiError::field("messages", format!("`messages` may hold {MOST_MESSAGES} messages at most")));
    }
    let read = |(index, value)| message(&Fields::of(value, &format!("messages[{index}]"))?);
    let messages = list.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    check_pictures(&messages)?;
    Ok(messages)
}

/// Bounds the number of pictures.
///
/// # Errors
/// There are too many.
pub fn check_pictures(messages: &[Unfetched]) -> Result<(), ApiError> {
    let pictures: usize = messages.iter().map(|message| message.pictures.len()).sum();
    match pictures > MOST_PICTURES {
        true => {
            Err(ApiError::field("messages", format!("{pictures} pictures are too many; send {MOST_PICTURES} at most")))
        }
        false => Ok(()),
    }
}

fn message(fields: &Fields<'_>) -> Result<Unfetched, ApiError> {
    let role = match fields.required_string("role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let message =
                format!("the role `{other}` is not supported; use system, developer, user, assistant or tool");
            return Err(ApiError::field(fields.path("role"), message).with_code("invalid_value"));
        }
    };
    fields.refuse("function_call", "use `tool_calls`")?;
    fields.refuse("audio", "no model of this server speaks")?;
    let tool_calls = match (role, fields.list("tool_calls")?) {
        (Role::Assistant, Some(calls)) => calls
            .iter()
            .enumerate()
            .map(|(index, call)| tool_call(&Fields::of(call, &fields.path(&format!("tool_calls[{index}]")))?))
            .collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let mut said = Said {
        role,
        content: Vec::new(),
        tool_calls,
        tool_call_id: fields.string("tool_call_id")?.map(str::to_owned),
        name: fields.string("name")?.map(str::to_owned),
    };
    if role == Role::Tool && said.tool_call_id.is_none() {
        fields.required_string("tool_call_id")?;
    }
    let mut pictures = Vec::new();
    match fields.get("content") {
        Some(Value::String(text)) => said.content.push(Piece::Text(text.clone())),
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                let part = Fields::of(part, &fields.path(&format!("content[{index}]")))?;
                content(&part, &mut said.content, &mut pictures)?;
            }
        }
        // Of a message that only calls functions.
        None if role == Role::Assistant => {}
        None => fields.required("content").map(|_| ())?,
        Some(other) => return Err(wrong(&fields.path("content"), "a string or an array of parts", other)),
    }
    if !pictures.is_empty() && matches!(role, Role::System | Role::Assistant) {
        let message = "pictures belong to messages of the role `user` or `tool`";
        return Err(ApiError::field(fields.path("content"), message));
    }
    Ok(Unfetched { said, pictures })
}

/// Reads a part of a message: text or a picture, by the names of both APIs.
///
/// # Errors
/// A part that is wrong.
pub fn content(
    part: &Fields<'_>,
    pieces: &mut Vec<Piece>,
    pictures: &mut Vec<(usize, Source)>,
) -> Result<(), ApiError> {
    match part.required_string("type")? {
        "text" | "input_text" | "output_text" => pieces.push(Piece::Text(part.required_string("text")?.to_owned())),
        "refusal" => pieces.push(Piece::Text(part.required_string("refusal")?.to_owned())),
        kind @ ("image_url" | "input_image") => {
            if kind == "input_image" {
                part.refuse("file_id", "there are no stored files; send a `data:` URL in `image_url`")?;
            }
            let value = part.required("image_url")?;
            let (url, path) = match value {
                Value::String(url) => (url.as_str(), part.path("image_url")),
                Value::Object(_) => {
                    let path = part.path("image_url");
                    let object = Fields::of(value, &path)?;
                    (object.required_string("url")?, object.path("url"))
                }
                other => return Err(wrong(&part.path("image_url"), "a string or an object with `url`", other)),
            };
            pictures.push((pieces.len(), pictures::read_url(url, &path)?));
            pieces.push(Piece::Picture(axum::body::Bytes::new()));
        }
        "input_audio" | "audio" => {
            return Err(ApiError::unsupported(
                part.path("type"),
                "audio is not supported: no model of this server hears",
            ));
        }
        "file" | "input_file" => {
            return Err(ApiError::unsupported(part.path("type"), "files are not supported; send text or pictures"));
        }
        other => {
            let message = format!("parts of the type `{other}` are not supported; use `text` or `image_url`");
            return Err(ApiError::field(part.path("type"), message).with_code("invalid_value"));
        }
    }
    Ok(())
}

fn tool_call(fields: &Fields<'_>) -> Result<ToolCall, ApiError> {
    if let Some(kind) = fields.string("type")?
        && kind != "function"
    {
        return Err(ApiError::unsupported(fields.path("type"), "calls of functions alone are supported"));
    }
    let Some(function) = fields.object("function")? else {
        return Err(fields.required("function").err().unwrap_or_else(|| ApiError::bad("no function")));
    };
    Ok(ToolCall {
        id: fields.string("id")?.unwrap_or_default().to_owned(),
        name: function.required_string("name")?.to_owned(),
        arguments: arguments(function.get("arguments"), &function.path("arguments"))?,
    })
}

/// Reads the arguments of a call: a JSON text, or the object itself, as some clients send.
///
/// # Errors
/// They are no JSON object.
pub fn arguments(value: Option<&Value>, path: &str) -> Result<Value, ApiError> {
    let parsed = match value {
        None => return Ok(Value::Object(serde_json::Map::new())),
        Some(Value::String(text)) if text.trim().is_empty() => return Ok(Value::Object(serde_json::Map::new())),
        Some(Value::String(text)) => serde_json::from_str(text).ok(),
        Some(other) => Some(other.clone()),
    };
    parsed
        .filter(Value::is_object)
        .ok_or_else(|| ApiError::field(path, format!("`{path}` must be a JSON object, as a string")))
}
