//! Devices: what holds a plan's buffers and executes its steps.
//!
//! [`gpu::Gpu`] is an opened device, which several models may share; [`gpu::Program`] is one plan on it. The
//! executor needs four things of a program (`write`, `prepare`, `submit`, `fetch`), and checks ports and calls
//! itself: another device executes the same plan by offering the same four.

mod entries;
pub mod gpu;

pub use entries::Entries;
