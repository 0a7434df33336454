//! Restricts a model's answer to JSON, to a JSON schema or to calls of functions, as a mask over its logits.

mod error;
mod grammar;
mod mask;
mod vocabulary;

pub use error::Error;
pub use grammar::{Call, Grammar, Repeat};
pub use mask::Constrainer;
pub use vocabulary::{Token, Vocabulary};
