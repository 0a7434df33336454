//! Checkpoints to bundles: reading, graph, passes, lowering and packing.

pub mod graph;
pub mod kernels;
pub mod passes;
pub mod target;
