//! `POST /v1/completions`: a text or tokens to continue as they are.

use dwindle_constrain::Grammar;
use dwindle_runtime::Sampling;
use serde_json::Value;

use super::fields::{Fields, wrong};
use super::generation::{self, Generation};
use crate::serve::draft::Asked;
use crate::serve::error::ApiError;

/// OpenAI's default for this endpoint.
const DEFAULT_MAX_TOKENS: usize = 16;

/// A completion request.
#[derive(Debug)]
pub struct Completion {
    /// The model that was named.
    pub model: Option<String>,
    /// What is continued.
    pub asked: Asked,
    /// How.
    pub generation: Generation,
    /// What the continuation must be.
    pub format: Option<Grammar>,
    /// Whether it is streamed.
    pub stream: bool,
    /// Whether a streamed one tells its usage.
    pub include_usage: bool,
}

/// Reads a request.
///
/// # Errors
/// A field that is wrong.
pub fn read(body: &Value, defaults: &Sampling, vocab_size: u32) -> Result<Completion, ApiError> {
    let fields = Fields::root(body)?;
    for name in ["n", "best_of"] {
        if fields.integer(name, 1, 128)?.is_some_and(|n| n > 1) {
            let message = format!("`{name}` above 1 is not supported; send the request several times");
            return Err(ApiError::unsupported(name, message));
        }
    }
    fields.refuse("echo", "the prompt is not repeated")?;
    fields.refuse("suffix", "texts are continued at their end alone")?;
    let mut generation = Generation::read(&fields, defaults, &["max_tokens"], vocab_size)?;
    generation.max_tokens = generation.max_tokens.or(Some(DEFAULT_MAX_TOKENS));
    generation.top_logprobs = fields.integer("logprobs", 0, 20)?.map(|top| top as usize);
    let options = fields.object("stream_options")?;
    let include_usage = match options {
        Some(options) => options.boolean("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Completion {
        model: fields.string("model")?.map(str::to_owned),
        asked: prompt(fields.required("prompt")?)?,
        generation,
        format: generation::format(fields.object("response_format")?)?,
        stream: fields.boolean("stream")?.unwrap_or(false),
        include_usage,
    })
}

fn prompt(value: &Value) -> Result<Asked, ApiError> {
    match value {
        Value::String(text) => Ok(Asked::Text(text.clone())),
        Value::Array(list) if list.is_empty() => Err(ApiError::field("prompt", "`prompt` is empty")),
        Value::Array(list) if list.iter().all(Value::is_number) => {
            let token = |item: &Value| {
                item.as_u64().and_then(|token| u32::try_from(token).ok()).ok_or_else(|| wrong("prompt", "tokens", item))
            };
            Ok(Asked::Tokens(list.iter().map(token).collect::<Result<_, _>>()?))
        }
        Value::Array(list) if list.len() == 1 && !list[0].is_null() => prompt(&list[0]),
        Value::Array(_) => {
            Err(ApiError::unsupported("prompt", "several prompts in one request are not supported; send one each"))
        }
        other => Err(wrong("prompt", "a string or a list of tokens", other)),
    }
}
