//! Runs bundles: sessions, sampling, tokenizers, templates, pictures and ensembles.

pub mod device;
mod error;
pub mod executor;
pub mod image;
pub mod sampler;
pub mod session;
pub mod template;
pub mod tokenizer;

#[cfg(test)]
mod testing;

pub use error::{Error, Lack};
pub use executor::Executor;
pub use sampler::{Sampler, Sampling};
pub use session::{Row, Session};
