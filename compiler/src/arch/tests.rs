//! Families against transformers: every value between the layers, logits, greedy tokens.

mod center_crop;
mod config;
mod graphs;
mod image;
mod quantized;
mod text;

/// What reordered f32 sums may change: transformers' own change the golden logits by about 2e-6, and values grow with depth.
const TOLERANCE: f32 = 1e-4;
