//! Reads requests of OpenAI's APIs: unknown fields are ignored, known ones are checked, unsupported ones are named.

pub mod chat;
pub mod completions;
pub mod fields;
pub mod generation;
pub mod messages;
pub mod responses;
