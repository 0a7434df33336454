//! A request as it waits: pictures are files still, and are decoded when its turn comes, so that waiting costs little memory.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use dwindle_runtime::Sampling;
use dwindle_runtime::engine::{Message, Part, Prompt, Request, Role, TokenMask, ToolCall};
use dwindle_runtime::image::Picture;
use serde_json::Value;

use super::error::ApiError;
use super::http::body::Share;

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text.
    Text(String),
    /// A picture's file.
    Picture(Bytes),
}

/// A message whose pictures are not decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Who says it.
    pub role: Role,
    /// Texts and pictures in their order.
    pub content: Vec<Piece>,
    /// Of an assistant's message: its calls.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's message: the call that it answers.
    pub tool_call_id: Option<String>,
    /// The name of who speaks, or of the function that answers.
    pub name: Option<String>,
}

impl Said {
    /// A message of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Said {
        Said { role, content: vec![Piece::Text(text.into())], tool_calls: Vec::new(), tool_call_id: None, name: None }
    }
}

/// What is to be answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A conversation.
    Messages {
        /// Oldest first.
        messages: Vec<Said>,
        /// Definitions of functions for the template.
        tools: Vec<Value>,
    },
    /// A text to continue.
    Text(String),
    /// The same as tokens.
    Tokens(Vec<u32>),
}

/// A request as it waits.
pub struct Draft {
    /// What is to be answered.
    pub asked: Asked,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens of the answer.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How many likeliest tokens are told.
    pub top_logprobs: Option<usize>,
    /// Added to the logits of tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Which tokens may come next.
    pub mask: Option<Box<dyn TokenMask>>,
    /// Whether the oldest turns may be forgotten.
    pub may_forget: bool,
    /// Memory that counts as long as the pictures' files wait.
    #[expect(dead_code, reason = "it is given back when the draft is dropped")]
    pub share: Share,
}

impl Draft {
    /// The request for the engine, with its pictures decoded; the same file is decoded once.
    ///
    /// # Errors
    /// A picture that cannot be read.
    pub fn into_request(self) -> Result<Request, ApiError> {
        let prompt = match self.asked {
            Asked::Text(text) => Prompt::Text(text),
            Asked::Tokens(tokens) => Prompt::Tokens(tokens),
            Asked::Messages { messages, tools } => {
                let mut decoded = HashMap::new();
                let messages = messages.into_iter().map(|said| message(said, &mut decoded));
                Prompt::Messages { messages: messages.collect::<Result<_, _>>()?, tools }
            }
        };
        Ok(Request {
            prompt,
            sampling: self.sampling,
            max_tokens: self.max_tokens,
            stop: self.stop,
            top_logprobs: self.top_logprobs,
            logit_bias: self.logit_bias,
            mask: self.mask,
            may_forget: self.may_forget,
        })
    }
}

fn message(said: Said, decoded: &mut HashMap<blake3::Hash, Arc<Picture>>) -> Result<Message, ApiError> {
    let mut content = Vec::with_capacity(said.content.len());
    for piece in said.content {
        content.push(match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Picture(file) => {
                let hash = blake3::hash(&file);
                let picture = match decoded.get(&hash) {
                    Some(picture) => Arc::clone(picture),
                    None => {
                        let picture = Picture::decode(&file).map_err(dwindle_runtime::Error::Image)?;
                        Arc::clone(decoded.entry(hash).or_insert(Arc::new(picture)))
                    }
                };
                Part::Picture(picture)
            }
        });
    }
    let Said { role, tool_calls, tool_call_id, name, .. } = said;
    Ok(Message { role, content, tool_calls, tool_call_id, name })
}
