//! What a client is told of a failure: OpenAI's error object with the right status.

use dwindle_runtime::chat;
use serde_json::{Value, json};

/// A request that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// HTTP's status.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// OpenAI's `code`.
    pub code: Option<&'static str>,
    /// Seconds after which another try may succeed.
    pub retry_after: Option<u32>,
    /// Figures for the page.
    pub details: Option<Box<Value>>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    /// An error with nothing but a status and a message.
    pub fn new(status: u16, message: impl Into<String>) -> ApiError {
        let kind = if status >= 500 { SERVER } else { INVALID };
        ApiError { status, kind, message: message.into(), param: None, code: None, retry_after: None, details: None }
    }

    /// A request that cannot be met as it is.
    pub fn bad(message: impl Into<String>) -> ApiError {
        ApiError::new(400, message)
    }

    /// A field that cannot be met as it is.
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError { param: Some(param.into()), ..ApiError::bad(message) }
    }

    /// A field of the API that this server does not implement.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::field(param, message).with_code("unsupported_parameter")
    }

    /// The same with a code.
    pub fn with_code(self, code: &'static str) -> ApiError {
        ApiError { code: Some(code), ..self }
    }

    /// The same with a time after which to try again.
    pub fn with_retry(self, seconds: u32) -> ApiError {
        ApiError { retry_after: Some(seconds), ..self }
    }

    /// The queue is full.
    pub fn busy(waiting: usize) -> ApiError {
        let message = format!("the server is busy: {waiting} requests wait already; try again in a moment");
        ApiError::new(503, message).with_code("queue_full").with_retry(5)
    }

    /// The model is still being loaded.
    pub fn loading() -> ApiError {
        ApiError::new(503, "the model is still being loaded; try again in a moment").with_code("loading").with_retry(2)
    }

    /// The server ends.
    pub fn ending() -> ApiError {
        ApiError::new(503, "the server is shutting down").with_code("shutting_down")
    }

    /// OpenAI's object.
    pub fn body(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        });
        if let Some(details) = &self.details {
            error["dwindle"] = (**details).clone();
        }
        json!({ "error": error })
    }

    fn too_long(tokens: usize, context: u32) -> ApiError {
        let message = format!(
            "This model's maximum context length is {context} tokens. However, your messages resulted in {tokens} tokens. \
             Shorten them, or compile the model with a longer `--context`."
        );
        ApiError {
            details: Some(Box::new(json!({ "prompt_tokens": tokens, "context": context }))),
            ..ApiError::field("messages", message).with_code("context_length_exceeded")
        }
    }
}

impl From<dwindle_runtime::Error> for ApiError {
    fn from(error: dwindle_runtime::Error) -> Self {
        use dwindle_runtime::Error;
        let message = error.to_string();
        match &error {
            Error::Chat(chat::Error::TooLong { tokens, context }) => ApiError::too_long(*tokens, *context),
            Error::ContextFull { have, need, context } => ApiError::too_long(*have as usize + need, *context),
            Error::Chat(chat::Error::Blind { .. }) => {
                ApiError::field("messages", message).with_code("pictures_not_supported")
            }
            Error::Chat(_) | Error::Template(_) => ApiError::field("messages", message),
            Error::Image(_) => ApiError::field("messages", message).with_code("invalid_image"),
            Error::Sampling { option, .. } => ApiError::field(*option, message),
            Error::Mask { .. } => ApiError::field("response_format", message),
            Error::Token { .. } | Error::NoTokens => ApiError::field("prompt", message),
            Error::Tokenizer(dwindle_runtime::tokenizer::Error::TooLong { .. }) => ApiError::bad(message),
            Error::OutOfMemory { .. } | Error::Memory { .. } => ApiError::new(503, message).with_code("out_of_memory"),
            _ => ApiError::new(500, message),
        }
    }
}

impl From<dwindle_constrain::Error> for ApiError {
    fn from(error: dwindle_constrain::Error) -> Self {
        ApiError::bad(error.to_string()).with_code("invalid_json_schema")
    }
}
