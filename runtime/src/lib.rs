//! Runs bundles: engines, sampling, tokenizers, templates, pictures and ensembles.

pub mod budget;
pub mod chat;
mod clock;
pub mod conversation;
pub mod device;
pub mod engine;
mod error;
pub mod executor;
pub mod image;
mod model;
pub mod sampler;
mod score;
mod sequence;
pub mod template;
pub mod tokenizer;

#[cfg(test)]
mod testing;

pub use chat::{Finish, Phase};
pub use conversation::{Conversation, ConversationOptions, SamplingChoice, Turn};
pub use engine::{Engine, EngineOptions};
pub use error::{Error, Lack};
pub use executor::{Executor, Lane};
pub use model::Model;
pub use sampler::{Sampler, Sampling};
pub use score::Scorer;
pub use sequence::{Row, Sequence, Workspace};
