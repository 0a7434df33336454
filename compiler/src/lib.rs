//! Checkpoints to bundles: reading, graph, passes, lowering and packing.

pub mod arch;
pub mod checkpoint;
pub mod compile;
mod error;
pub mod fit;
pub mod graph;
pub mod kernels;
pub mod lower;
pub mod note;
pub mod passes;
pub mod progress;
pub mod quantize;
pub mod room;
pub mod size;
pub mod synth;
pub mod target;
mod transcribe;
pub mod work;

pub use error::{Error, Result};

// Test files that the workspace's tests include, too, call this crate by its name.
#[cfg(test)]
extern crate self as dwindle_compiler;
