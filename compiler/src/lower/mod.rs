//! Graphs to plans: kernels, buffers, steps and the layout of weights.
//!
//! [`lower`] takes the optimized graphs of one model's functions and decides everything the runtime needs:
//! 1. *schedule* each function: nodes become steps with a [`KernelSpec`](crate::kernels::spec::KernelSpec), values get locations; a result takes an
//!    operand's place where that dies and the kernel allows it;
//! 2. *slots*: intermediate values share scratch buffers by their lifetimes, over all functions;
//! 3. *weights*: constants that steps bind are collected once, split by rows where a binding could not span them, and
//!    assigned to segments;
//! 4. *assemble*: buffers get indices, grids and sizes are checked against the target's limits.
//!
//! No tensor's data is needed for any of this; [`pack`] evaluates recipes later, while the bundle is written.

mod assemble;
mod attend;
mod error;
mod needs;
pub mod pack;
mod print;
mod product;
mod schedule;
mod select;
mod shared;
pub mod slots;
pub mod weights;

#[cfg(test)]
mod tests;

use dwindle_bundle::Plan;
use dwindle_schemes::FloatType;

pub use attend::SPLIT;
pub use error::LowerError;
pub use needs::needs;
pub use print::{print_memory, print_plan, print_weights};
pub use shared::{Emit, EmitError};
pub use weights::Weights;

use crate::graph::{Dim, Graph};
use crate::kernels::Emitted;
use crate::target::Target;

/// Bytes that an output with a row for each token may take; functions with such outputs allow fewer rows a call.
pub const MAX_OUTPUT_BYTES: usize = 16 << 20;

/// What lowering decides by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LowerOptions {
    /// Begins the names of the model's entries in the bundle: `models/gemma`.
    pub entries: String,
    /// Positions of the KV cache, for grids that span the sequence.
    pub context: usize,
    /// The most rows of a call.
    pub max_rows: usize,
    /// Type of the states `kv.*`.
    pub kv: FloatType,
    /// What all targets store alike gets segments of its own, in an order of its own, which bundles for several targets share.
    pub shares: bool,
}

impl LowerOptions {
    /// Name of the entry that holds a segment of the weights.
    pub fn weights_entry(&self, segment: usize) -> String {
        format!("{}/weights.{segment}", self.entries)
    }
}

/// A lowered model.
#[derive(Clone, Debug, PartialEq)]
pub struct Lowered {
    /// What the runtime executes.
    pub plan: Plan,
    /// What its weight buffers hold.
    pub weights: Weights,
    /// Texts of its kernels, in the plan's order.
    pub kernels: Vec<Emitted>,
    /// Scratch bytes that no assignment of slots could save.
    pub scratch_lower_bound: u64,
}

/// Lowers the functions of one model.
///
/// # Errors
/// An operation, in a form that no kernel computes; a limit of the target, with what is needed and offered.
pub fn lower(
    functions: &[Graph],
    options: &LowerOptions,
    target: &Target,
    emit: &mut Emit<'_>,
) -> Result<Lowered, LowerError> {
    let mut shared = shared::Shared::new(target, options, emit);
    let mut schedules = Vec::with_capacity(functions.len());
    for graph in functions {
        schedules.push(schedule::schedule(graph, &mut shared, max_rows(graph, options.max_rows))?);
    }
    assemble::assemble(functions, schedules, shared)
}

/// The most rows of a call of one function.
fn max_rows(graph: &Graph, most: usize) -> usize {
    let symbolic = |value: &crate::graph::Value| value.ty.rows() == Dim::Rows;
    if !graph.values.iter().any(symbolic) {
        return 1;
    }
    let row_bytes = |(_, value): &(String, crate::graph::ValueId)| {
        let ty = graph.ty(*value);
        (ty.rows() == Dim::Rows).then(|| ty.columns().saturating_mul(4))
    };
    let widest = graph.outputs.iter().filter_map(row_bytes).max().unwrap_or(0).max(1);
    (MAX_OUTPUT_BYTES / widest).clamp(1, most.max(1))
}
