//! Quantization of model directories: streaming, in parallel, with bounded memory.

mod card;

pub use card::{Card, TensorCard};
