//! The compiler's IR: one function of a model as SSA over typed tensors.
//!
//! A [`Graph`] is a list of nodes in execution order; a node's operands are results of earlier nodes. Nothing has side
//! effects: a state (KV cache) is a value, and writing to it makes a new value, which the function returns.
//!
//! Rules, checked by [`verify`](verify::verify):
//! - every operand is defined before its use, and every value is defined once;
//! - the results' types are those that [`infer`](infer::infer) computes from operation and operand types;
//! - only the first dimension of a shape may be symbolic;
//! - a state is written at most along one chain, and a value of it is not used once a write has replaced it, so that
//!   states can be written in place;
//! - outputs named like a state have its type, and each state that is written is returned.

pub mod build;
pub mod eval;
pub mod infer;
pub mod ops;
pub mod parse;
pub mod print;
pub mod recipe;
pub mod types;
pub mod verify;

pub use build::Builder;
pub use ops::*;
pub use recipe::{Recipe, Stored, Tensors};
pub use types::{DType, Dim, Type};

/// Names a value of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation with its operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Values it reads, in the order that the operation documents.
    pub operands: Vec<ValueId>,
    /// Values it defines; mostly one.
    pub results: Vec<ValueId>,
}

/// A value: its type, and a label for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type and shape.
    pub ty: Type,
    /// What it is (`hidden.3`, `layers.3.attn.q`); survives passes where the value does, means nothing.
    pub label: Option<String>,
}

/// A function of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// `prefill`, `decode`, `score`, `encode_image`.
    pub name: String,
    /// All values; nodes refer to them by [`ValueId`]. Values that no node defines any more are harmless.
    pub values: Vec<Value>,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// What the function returns, by name: `logits`, `hidden.3`, and each state that it writes.
    pub outputs: Vec<(String, ValueId)>,
}

impl Graph {
    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value.index()].ty
    }

    /// Adds a value that a node is about to define.
    pub fn new_value(&mut self, ty: Type) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value { ty, label: None });
        id
    }

    /// For each value, the index of the node that defines it.
    pub fn definitions(&self) -> Vec<Option<usize>> {
        let mut defined = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for result in &node.results {
                defined[result.index()] = Some(index);
            }
        }
        defined
    }

    /// For each value, how often it is used by nodes and outputs.
    pub fn use_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.values.len()];
        let operands = self.nodes.iter().flat_map(|node| &node.operands);
        for value in operands.chain(self.outputs.iter().map(|(_, value)| value)) {
            counts[value.index()] += 1;
        }
        counts
    }
}
