//! Answers requests with a bundle's models: many conversations, one set of weights.

mod request;

pub use request::{Event, Message, Outcome, Part, Prompt, Request, Role, TokenInfo, TokenMask, ToolCall};
