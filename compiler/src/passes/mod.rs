//! Passes: graph to graph, meaning preserved, towards one node a dispatch.
//!
//! [`optimize`] runs the one ordered list [`PASSES`] and verifies the graph after each. A pass that does not apply leaves
//! the graph as it was; lowering accepts plain and fused nodes alike, so a refusal costs speed and never meaning.
//! How to write one: `README.md` beside this file.

pub mod rewriter;
pub mod stored_product;

mod fold_constants;
mod fuse_dequantize;
mod fuse_epilogues;
mod fuse_norm_prologue;
mod fuse_norm_residual;
mod fuse_rope_kv;
mod last_row;
mod merge_gate_up;
mod merge_siblings;
mod remove_dead;
#[cfg(test)]
mod tests;

use crate::graph::Graph;
use crate::graph::verify::{VerifyError, verify};

/// A step of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Its file's name.
    pub name: &'static str,
    /// Why it runs at this place in the list.
    pub why: &'static str,
    /// Rewrites a graph that verifies into one that verifies and means the same.
    pub run: fn(&mut Graph),
}

/// All passes, in the order they run.
pub const PASSES: &[Pass] = &[
    Pass {
        name: "remove_dead",
        why: "first: a dead node would count as a use and block fusions; later passes leave nothing dead behind",
        run: remove_dead::run,
    },
    Pass {
        name: "last_row",
        why: "before fusions: chains are still plain row-wise nodes, and what gets one row here may fuse its norm later",
        run: last_row::run,
    },
    Pass {
        name: "merge_gate_up",
        why: "before merge_siblings, which would take gate and up for siblings like q and k",
        run: merge_gate_up::run,
    },
    Pass {
        name: "merge_siblings",
        why: "before fuse_dequantize and fuse_epilogues: it moves dequantizations and biases that are still nodes",
        run: merge_siblings::run,
    },
    Pass {
        name: "fold_constants",
        why: "after the merges, which leave rows to be merged; before fusions that look for constant operands",
        run: fold_constants::run,
    },
    Pass {
        name: "fuse_dequantize",
        why: "after the merges, which recognise stored weights by it",
        run: fuse_dequantize::run,
    },
    Pass {
        name: "fuse_epilogues",
        why: "after the merges, which want plain products; its biases are constants by now",
        run: fuse_epilogues::run,
    },
    Pass {
        name: "fuse_norm_residual",
        why: "after fuse_epilogues: a residual that a product can take costs no norm operand",
        run: fuse_norm_residual::run,
    },
    Pass { name: "fuse_rope_kv", why: "after merge_siblings, whose slices it recognises", run: fuse_rope_kv::run },
    Pass {
        name: "fuse_norm_prologue",
        why: "last: all readers of a norm are fused products by now, and norms with a residual are out of the way",
        run: fuse_norm_prologue::run,
    },
];

/// A graph that does not verify.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph was wrong to begin with.
    #[error("before the passes: {0}")]
    Before(#[source] VerifyError),
    /// A pass made it wrong: an error of the compiler, not of its input.
    #[error("after pass `{pass}`: {cause}; this is a bug of that pass")]
    After {
        /// The pass.
        pass: &'static str,
        /// The broken rule.
        #[source]
        cause: VerifyError,
    },
}

/// Runs all [`PASSES`].
///
/// # Errors
/// Where the graph does not verify, before them or after one of them.
pub fn optimize(graph: &mut Graph) -> Result<(), Error> {
    optimize_traced(graph, |_, _| {})
}

/// Runs all [`PASSES`] and shows the graph after each one: `dwindle inspect --stage optimized` prints it.
///
/// # Errors
/// Where the graph does not verify, before them or after one of them.
pub fn optimize_traced(graph: &mut Graph, mut after: impl FnMut(&Pass, &Graph)) -> Result<(), Error> {
    verify(graph).map_err(Error::Before)?;
    for pass in PASSES {
        (pass.run)(graph);
        verify(graph).map_err(|cause| Error::After { pass: pass.name, cause })?;
        after(pass, graph);
    }
    Ok(())
}
