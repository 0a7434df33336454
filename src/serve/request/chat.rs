//! `POST /v1/chat/completions`.

use dwindle_constrain::Grammar;
use dwindle_runtime::Sampling;
use serde_json::Value;

use super::fields::Fields;
use super::generation::{self, Generation, MOST_TOP_LOGPROBS};
use super::messages::{self, Unfetched};
use crate::serve::error::ApiError;
use crate::serve::tools::{self, Choice, Tool};

/// A chat request.
#[derive(Debug)]
pub struct Chat {
    /// The model that was named.
    pub model: Option<String>,
    /// The conversation.
    pub messages: Vec<Unfetched>,
    /// How the answer is made.
    pub generation: Generation,
    /// Functions that the model may call.
    pub tools: Vec<Tool>,
    /// Which of them.
    pub choice: Choice,
    /// Whether one answer may call several.
    pub parallel: bool,
    /// What the answer must be.
    pub format: Option<Grammar>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a streamed answer tells its usage.
    pub include_usage: bool,
}

/// Reads a request.
///
/// # Errors
/// A field that is wrong.
pub fn read(body: &Value, defaults: &Sampling, vocab_size: u32) -> Result<Chat, ApiError> {
    let fields = Fields::root(body)?;
    if fields.integer("n", 1, 128)?.is_some_and(|n| n > 1) {
        return Err(ApiError::unsupported("n", "`n` above 1 is not supported; send the request several times"));
    }
    fields.refuse("audio", "no model of this server speaks")?;
    if let Some(modalities) = fields.list("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(ApiError::unsupported("modalities", "`modalities` may hold \"text\" alone"));
    }
    fields.refuse("functions", "use `tools`")?;
    fields.refuse("function_call", "use `tool_choice`")?;
    fields.refuse("web_search_options", "this server does not search the web")?;
    let list = match fields.list("messages")? {
        Some(list) => list,
        None => return Err(fields.required("messages").err().unwrap_or_else(|| ApiError::bad("no messages"))),
    };
    let mut generation = Generation::read(&fields, defaults, &["max_tokens", "max_completion_tokens"], vocab_size)?;
    let top = fields.integer("top_logprobs", 0, MOST_TOP_LOGPROBS)?;
    match fields.boolean("logprobs")?.unwrap_or(false) {
        true => generation.top_logprobs = Some(top.unwrap_or(0) as usize),
        false if top.is_some_and(|top| top > 0) => {
            return Err(ApiError::field("top_logprobs", "`top_logprobs` needs `logprobs: true`"));
        }
        false => {}
    }
    let tools = tools::read(fields.list("tools")?.unwrap_or_default())?;
    let choice = tools::read_choice(&fields, &tools)?;
    let format = generation::format(fields.object("response_format")?)?;
    if format.is_some() && choice.must_call() {
        return Err(ApiError::field(
            "response_format",
            "`response_format` and a required `tool_choice` exclude each other",
        ));
    }
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let options = fields.object("stream_options")?;
    if options.is_some() && !stream {
        return Err(ApiError::field("stream_options", "`stream_options` needs `stream: true`"));
    }
    let include_usage = match options {
        Some(options) => options.boolean("include_usage")?.unwrap_or(false),
        None => false,
    };
    Ok(Chat {
        model: fields.string("model")?.map(str::to_owned),
        messages: messages::read(list)?,
        generation,
        tools,
        choice,
        parallel: fields.boolean("parallel_tool_calls")?.unwrap_or(true),
        format,
        stream,
        include_usage,
    })
}
