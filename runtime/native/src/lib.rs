//! Kernels for processors, and what they stand on.
//!
//! - [`lanes`]: sixteen lanes of arithmetic, one file for each instruction set;
//! - [`kernels`]: what steps compute, written once over lanes;
//! - [`pool`]: threads that stay, with barriers that spin and then yield;
//! - [`memory`]: buffers, and weights where they lie in a bundle's mapping;
//! - [`topology`]: how many threads are worth having.
//!
//! A crate of its own because it is compiled once for each instruction set: nothing else in the runtime waits for that.

pub mod kernels;
pub mod lanes;
pub mod memory;
pub mod pool;
pub mod topology;

pub use lanes::isa::{InstructionSet, Unavailable};
