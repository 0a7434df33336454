//! The stages of a compilation as text.

use std::fmt;
use std::str::FromStr;

use super::{CompileOptions, Prepared};
use crate::checkpoint::ModelDir;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::Emitted;
use crate::lower;

/// A stage between a model directory and a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Functions as the family defines them.
    Graph,
    /// Functions after all passes.
    Optimized,
    /// Buffers and steps.
    Plan,
    /// Texts of the kernels.
    Kernels,
    /// Bytes on the device.
    Memory,
    /// What the weight buffers hold.
    Weights,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Graph, Stage::Optimized, Stage::Plan, Stage::Kernels, Stage::Memory, Stage::Weights];

    /// The name in the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Graph => "graph",
            Stage::Optimized => "optimized",
            Stage::Plan => "plan",
            Stage::Kernels => "kernels",
            Stage::Memory => "memory",
            Stage::Weights => "weights",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no stage.
#[derive(Debug, thiserror::Error)]
#[error("unknown stage `{0}`: expected graph, optimized, plan, kernels, memory or weights")]
pub struct UnknownStage(String);

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|stage| stage.name() == text).ok_or_else(|| UnknownStage(text.to_owned()))
    }
}

/// A stage of a model's compilation, as text.
///
/// # Errors
/// As [`compile`](super::compile), up to this stage.
pub fn inspect(model: &ModelDir, stage: Stage, options: &CompileOptions) -> Result<String> {
    let model = Prepared::open(model, options)?;
    let print = |graphs: Vec<Graph>| graphs.iter().map(Graph::to_string).collect::<Vec<_>>().join("\n");
    Ok(match stage {
        Stage::Graph => print(model.graphs()),
        Stage::Optimized => print(model.optimized()?),
        Stage::Plan => lower::print_plan(&model.lower(options)?.plan),
        Stage::Memory => lower::print_memory(&model.lower(options)?),
        Stage::Weights => lower::print_weights(&model.lower(options)?),
        Stage::Kernels => {
            let kernels = model.lower(options)?.kernels;
            kernels.iter().map(text).collect::<Vec<_>>().join("\n")
        }
    })
}

/// A kernel's text, or name and constants of a native one.
fn text(kernel: &Emitted) -> String {
    match &kernel.native {
        None => format!("// {}\n{}", kernel.name, kernel.wgsl),
        Some(native) => format!("// {}\n{native:#?}\n", kernel.name),
    }
}
