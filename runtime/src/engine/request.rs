//! What one generation is asked for, and what comes of it.

use std::sync::Arc;

use crate::chat::{Finish, Phase};
use crate::image::Picture;
use crate::template::Role;
use crate::{Error, Sampling};

/// What a model reads before it answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation that ends with what is to be answered, rendered by the model's chat template.
    Messages {
        /// The whole conversation, oldest message first.
        messages: Vec<Message>,
        /// Definitions of functions that the model may call, as OpenAI's API has them in `tools`: JSON.
        tools: Vec<serde_json::Value>,
    },
    /// A text to continue as it is; special tokens in it are control tokens.
    Text(String),
    /// The same with pictures, at the placeholders in the text where the answering model sees.
    Pictured {
        /// The text.
        text: String,
        /// As many as there are placeholders.
        pictures: Vec<Arc<Picture>>,
    },
    /// The same as tokens.
    Tokens(Vec<u32>),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// Texts and pictures in their order.
    pub content: Vec<Part>,
    /// Of an assistant's message: the calls that it made.
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's message: the call that it answers.
    pub tool_call_id: Option<String>,
    /// The name of who speaks, or of the function that answers.
    pub name: Option<String>,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// A picture; the same content is recognized by its hash, wherever it comes from.
    Picture(Arc<Picture>),
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its identifier within the conversation.
    pub id: String,
    /// The function.
    pub name: String,
    /// A JSON object.
    pub arguments: serde_json::Value,
}

/// One generation: everything about it belongs to the call, nothing to a conversation.
pub struct Request {
    /// What the model reads.
    pub prompt: Prompt,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens of the answer; `None`: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer, and are not part of it.
    pub stop: Vec<String>,
    /// How many of the likeliest tokens are told for each token, besides its own log probability; `None`: neither.
    pub top_logprobs: Option<usize>,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Which tokens may come next.
    pub mask: Option<Box<dyn TokenMask>>,
    /// Whether turns are forgotten, oldest first, where the context cannot hold the conversation; else that is
    /// [`crate::chat::Error::TooLong`].
    pub may_forget: bool,
}

/// Restricts the tokens of an answer, for example to those of a JSON schema.
pub trait TokenMask: Send {
    /// Sets the logits `[vocab_size]` of tokens that must not come next to negative infinity.
    ///
    /// # Errors
    /// [`Error::Mask`] where no token is possible.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), Error>;

    /// Takes the token that was drawn; `true` where the text is complete and the answer must end.
    ///
    /// # Errors
    /// [`Error::Mask`] where it was none of the possible ones.
    fn accept(&mut self, token: u32) -> Result<bool, Error>;
}

/// What happens while an answer is made, in the order in which it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// The describing model of an ensemble begins with a picture, counted from 0.
    Describing {
        /// Which one.
        picture: usize,
        /// Of how many.
        pictures: usize,
    },
    /// It has described it.
    Described {
        /// Which one.
        picture: usize,
        /// Of how many.
        pictures: usize,
        /// What it says.
        text: &'a str,
        /// Whether it was remembered.
        cached: bool,
    },
    /// The answering model begins to encode a picture.
    Encoding {
        /// Which one.
        picture: usize,
        /// Of how many.
        pictures: usize,
    },
    /// So many positions of the prompt are read.
    Prefill {
        /// Positions read, the cached ones included.
        done: usize,
        /// Positions in all.
        total: usize,
        /// Positions that were cached.
        cached: usize,
    },
    /// More of the answer.
    Text {
        /// Whole characters; may be empty where only `tokens` are new.
        text: &'a str,
        /// Its tokens, where log probabilities were asked for.
        tokens: &'a [TokenInfo],
    },
}

/// A token of an answer and how likely it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenInfo {
    /// The token.
    pub token: u32,
    /// Its bytes; a character may be spread over several tokens.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability, before temperature and truncation.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first: token, bytes, log probability.
    pub top: Vec<(u32, Vec<u8>, f32)>,
}

/// What came of a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The whole answer, as it was streamed.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Which of [`Request::stop`] ended it.
    pub stopped_by: Option<String>,
    /// Positions of the prompt, pictures included.
    pub prompt_tokens: usize,
    /// Positions of it that were cached.
    pub cached_tokens: usize,
    /// What the describing model said, one text a picture of the prompt.
    pub descriptions: Vec<String>,
    /// Turns that were forgotten now, because the context is full; those of earlier requests stay forgotten.
    pub forgotten: usize,
    /// Positions of the continued conversation that were cached and had to be computed again or were thrown away, because something
    /// before them changed. 0 as long as conversations only grow.
    pub recomputed: usize,
    /// Pictures that had to be read again: some models see a picture in less detail beside others.
    pub reshown: usize,
    /// Encoding of pictures; the tokens are image rows.
    pub encode: Phase,
    /// The describing model's work.
    pub describe: Phase,
    /// Reading of the prompt, as far as it was not cached.
    pub prefill: Phase,
    /// Writing of the answer.
    pub decode: Phase,
}
