//! Kernels: hand-written WGSL bodies behind a generated prelude.
//!
//! [`emit`] turns a [`KernelSpec`] into text: a prelude (constants, bindings, `struct Call`, functions that decode the
//! stored format, the epilogue) and the body from `<kernel>.wgsl` beside this file. [`validate`](validate::validate)
//! checks a text against WGSL and a target's limits, [`translate`] makes SPIR-V and MSL of it.
//! `README.md` says how to add a kernel.

mod attention;
mod elementwise;
mod embed;
mod error;
mod matmul;
mod native;
mod norm;
mod prelude;
mod rope;
mod rows;
pub mod spec;
pub mod translate;
pub mod validate;
mod weights;

#[cfg(test)]
mod tests;

use dwindle_bundle::{Access, Extent};

pub use error::Error;
pub use spec::KernelSpec;

use crate::target::{Target, TargetName};

/// A kernel's text and how it is bound and launched.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// Telling and unique for its text: `matvec.q4g32f16.n2048.k2048.bias`.
    pub name: String,
    /// Prelude and body; empty for a native kernel.
    pub wgsl: String,
    /// The runtime's own kernel that computes this, on targets that have no texts.
    pub native: Option<dwindle_bundle::native::NativeKernel>,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Accesses of bindings 1, 2, …
    pub bindings: Vec<Access>,
    /// Workgroups.
    pub grid: [Extent; 3],
}

/// The kernel that computes `spec` on `target`.
///
/// The text is not validated here: equal specs give equal texts, and [`validate::validate`] need see each one only once.
///
/// # Errors
/// [`Error::Unsupported`] where no kernel computes the spec, [`Error::Limit`] where its grid or bindings exceed the target.
pub fn emit(spec: &KernelSpec, target: &Target) -> Result<Emitted, Error> {
    if target.name == TargetName::Cpu {
        return native::emit(spec);
    }
    let emitted = match spec {
        KernelSpec::MatMul(spec) => matmul::emit(spec),
        KernelSpec::Embed(spec) => embed::emit(spec),
        KernelSpec::Norm(spec) => norm::emit(spec),
        KernelSpec::RopeWriteKv(spec) => rope::emit_rope_write_kv(spec),
        KernelSpec::Attention(spec) => attention::emit(spec),
        KernelSpec::AttentionMerge(spec) => attention::emit_merge(spec),
        KernelSpec::OverlayRows(spec) => rows::emit_overlay(spec),
        KernelSpec::WriteRows(spec) => rows::emit_write(spec),
        KernelSpec::Patchify(spec) => rows::emit_patchify(spec),
        KernelSpec::Elementwise(spec) => elementwise::emit(spec),
        KernelSpec::Rope(spec) => rope::emit_rope(spec),
        KernelSpec::CopyRows(spec) => rows::emit_copy(spec),
    }?;
    validate::check_launch(&emitted, target)?;
    Ok(emitted)
}
