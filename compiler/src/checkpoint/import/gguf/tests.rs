//! Golden checkpoints through GGUF files, broken files, and what metadata may say.

mod blocks;
mod keys;
mod malformed;
mod model;
mod parts;
mod sidecars;
mod values;
mod vocabularies;
mod writer;
