//! Runs bundles: sessions, sampling, tokenizers, templates, pictures and ensembles.

pub mod budget;
pub mod chat;
mod clock;
pub mod conversation;
pub mod device;
pub mod engine;
mod error;
pub mod executor;
pub mod image;
pub mod sampler;
mod score;
pub mod session;
pub mod template;
pub mod tokenizer;

#[cfg(test)]
mod testing;

pub use chat::{Answer, Chat, Finish, Phase};
pub use conversation::{Conversation, ConversationOptions, SamplingChoice, Turn};
pub use error::{Error, Lack};
pub use executor::Executor;
pub use sampler::{Sampler, Sampling};
pub use score::Scorer;
pub use session::{Row, Session};
