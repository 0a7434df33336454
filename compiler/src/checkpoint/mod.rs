//! Checkpoints: reading what was published, normalising it, and the model directory that comes out.
//!
//! Names and configuration keys are translated to one spelling here and nowhere else.

mod carried;
pub mod config;
mod json;
mod layers;
mod mapping;
mod model_dir;
pub mod names;
mod problems;
pub mod safetensors;

pub use mapping::Mapping;
pub use model_dir::{CarriedFile, ModelDir, ModelJson, SourceFile};
pub(crate) use model_dir::{MODEL_JSON, MODEL_SAFETENSORS, matrix, stored};
pub use problems::TensorProblems;
