//! Kernels: hand-written WGSL bodies behind a generated prelude.

pub mod spec;

use dwindle_bundle::{Access, Extent};

/// A kernel's text and how it is bound and launched.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Telling and unique for its spec: `matvec.q4g32f16.n2048.k2048.bias`.
    pub name: String,
    /// Prelude and body.
    pub wgsl: String,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Accesses of bindings 1, 2, …
    pub bindings: Vec<Access>,
    /// Workgroups.
    pub grid: [Extent; 3],
}
