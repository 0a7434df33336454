//! Runs bundles: sessions, sampling, tokenizers, templates, pictures and ensembles.

pub mod device;
mod error;
pub mod executor;
pub mod image;

#[cfg(test)]
mod testing;

pub use error::{Error, Lack};
pub use executor::Executor;
