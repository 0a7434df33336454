//! Checkpoints: reading what was published, normalising it, and the model directory that comes out.
//!
//! Names and configuration keys are translated to one spelling here and nowhere else.

mod arriving;
pub(crate) mod carried;
mod companions;
pub mod config;
mod convert;
mod directory;
mod examine;
#[cfg(test)]
pub(crate) mod fixture;
mod head;
mod ignored;
pub(crate) mod import;
mod json;
mod layers;
mod mapping;
mod model_dir;
pub mod names;
mod problems;
mod processor;
pub mod safetensors;
mod selection;
mod source;
mod tokenizer;
mod workplace;

pub use arriving::{Announced, Announcement, Arriving, Keep};
pub use carried::NAMES as CARRIED_FILES;
pub(crate) use companions::Companions;
pub use convert::{Conversion, ConvertReport, convert};
pub(crate) use directory::OutputDirectory;
pub use examine::{Closest, Examination, Weights, examine, is_packed};
pub use ignored::IgnoredKeys;
pub use import::gguf_files;
pub(crate) use json::{parse as parse_json, read_config as read_json};
pub use mapping::Mapping;
pub use model_dir::{CarriedFile, ModelDir, ModelJson, SourceFile, TensorInfo};
pub(crate) use model_dir::{MODEL_SAFETENSORS, matrix, stored_layout};
pub use problems::TensorProblems;
pub use source::{Outline, Source};
pub use workplace::Workplace;

#[cfg(fuzzing)]
pub use import::{is_gguf, read_gguf};
