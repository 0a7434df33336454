//! The safetensors format: a header of JSON, then the bytes of all tensors.
//!
//! | bytes | |
//! |---|---|
//! | 8 | N: length of the header, u64 little endian |
//! | N | `{"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …, "__metadata__": {…}}` |
//! | rest | the tensors, without gaps; offsets count from here |
//!
//! The format is described at <https://huggingface.co/docs/safetensors>.

mod element;
mod header;
mod reader;
mod sniff;
mod writer;

#[cfg(test)]
mod tests;

pub use element::Element;
pub use header::{Entry, Header};
pub use reader::{SafeTensors, TensorView};
pub use writer::{Layout, TensorWriter};
