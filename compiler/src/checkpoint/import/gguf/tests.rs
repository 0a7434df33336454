//! Golden checkpoints through GGUF files, broken files, and what metadata may say.

mod keys;
mod malformed;
mod model;
mod sidecars;
mod values;
mod vocabularies;
mod writer;
