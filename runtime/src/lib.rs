//! Runs bundles: sessions, sampling, tokenizers, templates, pictures and ensembles.

pub mod image;
pub mod template;
pub mod tokenizer;
