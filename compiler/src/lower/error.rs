//! What can go wrong between an optimized graph and a plan, and while its weights are packed.

use crate::graph::Node;

/// An error of lowering or packing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A node that no kernel computes in this form.
    #[error("function `{function}`, node {node}: {op} cannot be lowered: {why}")]
    Unsupported {
        /// Function of the model.
        function: String,
        /// Position in the graph.
        node: usize,
        /// Name of the operation.
        op: String,
        /// What is not supported, and what would be.
        why: String,
    },
    /// A state whose rows do not fill whole words.
    #[error(
        "state `{name}` has {columns} columns, and {float} rows must fill whole 32-bit words: use a scheme with f32 states"
    )]
    OddState {
        /// Name of the state.
        name: String,
        /// Columns of a row.
        columns: usize,
        /// Type of its elements.
        float: dwindle_schemes::FloatType,
    },
    /// Something is too large for the target.
    #[error("{what} needs {limit} {needed}, the target offers {offered}{hint}")]
    Limit {
        /// What needs it.
        what: String,
        /// The limit, by WebGPU's name.
        limit: &'static str,
        /// Needed.
        needed: u64,
        /// Offered.
        offered: u64,
        /// What to do, beginning with `: `; may be empty.
        hint: &'static str,
    },
    /// Two things of one name.
    #[error("`{name}` is {first} in one place and {second} in another")]
    Conflict {
        /// The name.
        name: String,
        /// What it is first.
        first: String,
        /// What it is then.
        second: String,
    },
    /// A kernel that could not be emitted, or is not valid.
    #[error("kernel for node {node} of function `{function}`: {source}")]
    Kernel {
        /// Function of the model.
        function: String,
        /// Position in the graph.
        node: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A tensor of a recipe is missing, or not of the type that the graph gave it.
    #[error("tensor `{name}`: {why}")]
    Tensor {
        /// Name in the model directory.
        name: String,
        /// What is wrong.
        why: String,
    },
}

impl LowerError {
    /// [`LowerError::Unsupported`] for a node.
    pub(super) fn unsupported(function: &str, index: usize, node: &Node, why: impl Into<String>) -> Self {
        let op = format!("{:?}", node.op);
        let end = op.find(|c: char| !c.is_alphanumeric()).unwrap_or(op.len());
        LowerError::Unsupported {
            function: function.to_owned(),
            node: index,
            op: op[..end].to_owned(),
            why: why.into(),
        }
    }
}
