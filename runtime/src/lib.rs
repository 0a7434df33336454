//! Runs bundles: sessions, sampling, tokenizers, templates, pictures and ensembles

pub mod image;
