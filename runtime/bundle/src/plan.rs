//! The plan: what the runtime executes for one model. Buffers, kernels, and functions made of steps.
//!
//! A plan is complete: every size, binding and constant is decided at compile time. Only three numbers vary from
//! call to call ([`Call`]), and grid sizes may depend on them ([`Extent`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::native::NativeKernel;

/// The numbers that vary from call to call; kernels see them as one uniform of four `u32`, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Rows (tokens) of this call; 1 for `decode`.
    pub rows: u32,
    /// Position of the first row in the sequence, which is also the number of positions already cached.
    pub position: u32,
    /// Index of the image tile for `encode_image`.
    pub tile: u32,
}

/// Everything the runtime needs to execute one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The most rows that a call of any function may have: the greatest [`Function::max_rows`].
    pub max_rows: u32,
    /// All buffers; steps refer to them by index.
    pub buffers: Vec<Buffer>,
    /// All kernels; steps refer to them by index.
    pub kernels: Vec<Kernel>,
    /// Functions by name: `prefill`, `decode`, `score`, `encode_image`.
    pub functions: BTreeMap<String, Function>,
}

/// One allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Unique name: `weights.0`, `kv.3.k`, `scratch.1`, `tokens`, `logits`.
    pub name: String,
    /// Size in bytes, a multiple of 4.
    pub bytes: u64,
    /// What it is for, which decides how it is filled.
    pub kind: BufferKind,
}

/// What a buffer is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BufferKind {
    /// Holds the bundle entry of this name; never written by a kernel.
    Weights(String),
    /// Survives from call to call: KV caches, image rows. Zeroed when created.
    State,
    /// Holds intermediate values of one call; shared by all functions.
    Scratch,
    /// Written by the runtime before a call.
    Input,
    /// Read back by the runtime after a call.
    Output,
}

/// A kernel and how it is bound. Binding 0 of each kernel is the uniform [`Call`] (16 bytes), then `bindings`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Unique, telling: `matvec.q4g32f16.n2048.k2048.bias`.
    pub name: String,
    /// The code, by the language it is written in.
    pub code: Code,
    /// Invocations of a workgroup.
    pub workgroup: [u32; 3],
    /// Whether each storage binding is written, in binding order from 1.
    pub bindings: Vec<Access>,
}

/// A kernel's code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// WGSL text and its translations; each names an entry of the bundle. The entry point is `main`.
    Wgsl {
        /// Entry with the text.
        text: String,
        /// Entry with the same module as SPIR-V words, little endian.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spirv: Option<String>,
        /// Entry with the same module in the Metal shading language.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        msl: Option<String>,
    },
    /// A native kernel of the runtime's `cpu` device, by name, with its constants.
    Native {
        /// Name in the device's table.
        name: String,
        /// Constants: shapes, formats, epilogues.
        constants: BTreeMap<String, serde_json::Value>,
    },
}

impl Code {
    /// The native kernel, if it is one that this version knows.
    pub(crate) fn native(&self) -> Option<NativeKernel> {
        match self {
            Code::Native { name, constants } => NativeKernel::from_code(name, constants).ok(),
            Code::Wgsl { .. } => None,
        }
    }
}

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Only read, and never written by any kernel of the plan: weights.
    Read,
    /// Read or written. Scratch and states are always bound so, because one buffer may be read and written in
    /// neighbouring steps and a GPU API tracks usage by whole buffers. Weights that stand where other plans have
    /// an intermediate value (a position embedding as residual) are bound so too, without being written, from a
    /// buffer that the same step does not bind as [`Access::Read`].
    ReadWrite,
}

/// A function: what is written before it, the steps, what may be read after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The most rows that one call may have; 1 where no shape of the function depends on the call's rows. May be less
    /// than the plan's, so that an output with a row for each token stays small.
    pub max_rows: u32,
    /// What the caller writes, by name.
    pub inputs: Vec<Port>,
    /// What the caller may read back, by name.
    pub outputs: Vec<Port>,
    /// Executed in order; a step sees all writes of the steps before it.
    pub steps: Vec<Step>,
}

/// A named tensor at the border of a function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// `tokens`, `pixels`, `image_index`, `image_weight`, `logits`, `hidden.3`, …
    pub name: String,
    /// Index of the buffer that holds it, from its beginning.
    pub buffer: u32,
    /// Type of the elements.
    pub dtype: PortType,
    /// Rows, or `None` where it is the call's `rows`.
    pub rows: Option<u32>,
    /// Elements of a row.
    pub columns: u32,
}

/// Element type of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortType {
    /// 32-bit floats.
    F32,
    /// Unsigned 32-bit integers.
    U32,
    /// Signed 32-bit integers.
    I32,
}

/// One dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Index of the kernel.
    pub kernel: u32,
    /// What is bound at 1, 2, …; as many as the kernel's `bindings`.
    pub bindings: Vec<Binding>,
    /// Workgroups in x, y, z.
    pub grid: [Extent; 3],
}

/// A range of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Index of the buffer.
    pub buffer: u32,
    /// First byte; a multiple of the target's binding alignment.
    pub offset: u64,
    /// Bytes, a multiple of 4; `offset + bytes` lies within the buffer.
    pub bytes: u64,
}

/// A number of workgroups, perhaps depending on the [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Always this many.
    Fixed(u32),
    /// `ceil(rows / n)`.
    RowsPer(u32),
    /// `ceil((position + rows) / n)`: over the cached sequence, this call's rows included.
    LengthPer(u32),
}

impl Extent {
    /// The number of workgroups for `call`.
    pub fn at(self, call: Call) -> u32 {
        match self {
            Extent::Fixed(n) => n,
            Extent::RowsPer(n) => call.rows.div_ceil(n),
            // As the executor does, callers refuse calls whose last position has no number.
            Extent::LengthPer(n) => call.position.saturating_add(call.rows).div_ceil(n),
        }
    }
}

impl Plan {
    /// Names of the bundle's entries that the plan refers to: weights, and kernels' texts.
    pub fn entries(&self) -> impl Iterator<Item = &String> {
        let weights = self.buffers.iter().filter_map(|buffer| match &buffer.kind {
            BufferKind::Weights(entry) => Some(entry),
            _ => None,
        });
        let texts = self.kernels.iter().flat_map(|kernel| match &kernel.code {
            Code::Wgsl { text, spirv, msl } => [Some(text), spirv.as_ref(), msl.as_ref()],
            Code::Native { .. } => [None; 3],
        });
        weights.chain(texts.flatten())
    }
}
