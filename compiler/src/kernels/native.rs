//! Kernels of the `cpu` target: a spec becomes the name and the constants of a kernel that the runtime has.
//!
//! Nothing is generated: [`dwindle_bundle::native`] says which kernels there are and how their operands lie in memory.

use dwindle_bundle::native::{self, Columns, Float, Function, Layout, Matrix, NativeKernel, Rows, Scalar, Storage};
use dwindle_bundle::{Access, Code, Extent};
use dwindle_schemes::{FloatType, Format};

use super::prelude::check_state;
use super::spec::{Elementwise, KernelSpec, View};
use super::{Emitted, Error};
use crate::graph::{Activation, CallScalar, Dim, Epilogue, NormKind};

/// The native kernel of a spec.
///
/// # Errors
/// [`Error::Unsupported`] for formats that no native kernel reads, and for numbers beyond 32 bits.
pub(super) fn emit(spec: &KernelSpec) -> Result<Emitted, Error> {
    use Access::{Read as R, ReadWrite as W};
    let optional = |there: bool, access: Access| if there { vec![access] } else { vec![] };
    let (kernel, bindings) = match spec {
        KernelSpec::MatMul(s) => {
            let (activation, gated) = match s.activation {
                None => (None, false),
                Some(Epilogue::Plain(f)) => (Some(f), false),
                Some(Epilogue::Gated(f)) => (Some(f), true),
            };
            let kernel = native::MatMul {
                matrix: matrix(s.format, s.n, s.k)?,
                rows: rows(s.rows)?,
                rms_norm: s.rms_norm,
                bias: s.bias,
                activation: activation.map(activation_of),
                gated,
                soft_cap: s.soft_cap,
                residual: s.residual,
                out_columns: size(s.out_columns)?,
                out_offset: size(s.out_offset)?,
            };
            let vectors = vec![R; usize::from(s.rms_norm.is_some()) + usize::from(s.bias)];
            (
                NativeKernel::MatMul(kernel),
                [vec![W], stored(s.format), vectors, optional(s.residual, W), vec![W]].concat(),
            )
        }
        KernelSpec::Embed(s) => {
            let (matrix, first_row) = (matrix(s.format, s.n, s.columns)?, size(s.first_row)?);
            let kernel = native::Embed { matrix, rows: rows(s.rows)?, first_row, scale: s.scale };
            (NativeKernel::Embed(kernel), [vec![W], stored(s.format), vec![W]].concat())
        }
        KernelSpec::Norm(s) => {
            let layer = s.kind == NormKind::Layer;
            let (rows, heads, columns) = (rows(s.rows)?, size(s.heads)?, size(s.columns)?);
            let kernel = native::Norm { layer, rows, heads, columns, eps: s.eps, residual: s.residual };
            let bindings = [vec![W, R], optional(layer, R), optional(s.residual, W), vec![W]].concat();
            (NativeKernel::Norm(kernel), bindings)
        }
        KernelSpec::RopeWriteKv(s) => {
            let kernel = native::RopeWriteKv {
                rows: rows(s.rows)?,
                n_heads: size(s.n_heads)?,
                n_kv_heads: size(s.n_kv_heads)?,
                head_dim: size(s.rope.head_dim)?,
                magnitude: s.rope.magnitude,
                state: state("rope_write_kv", s.state)?,
            };
            (NativeKernel::RopeWriteKv(kernel), vec![W, R, W, W, W])
        }
        KernelSpec::Attention(s) if s.split.is_none() => {
            let a = &s.attention;
            let kernel = native::Attention {
                rows: rows(s.rows)?,
                n_heads: size(a.n_heads)?,
                n_kv_heads: size(a.n_kv_heads)?,
                head_dim: size(a.head_dim)?,
                scale: a.scale,
                soft_cap: a.soft_cap,
                window: a.window.map(size).transpose()?,
                causal: a.causal,
                kv_rows: size(s.kv_rows)?,
                q: columns(s.q)?,
                k: columns(s.k)?,
                v: columns(s.v)?,
                kv: state("attention", s.kv_type)?,
            };
            (NativeKernel::Attention(kernel), vec![W; 4])
        }
        KernelSpec::Attention(_) | KernelSpec::AttentionMerge(_) => {
            return Err(Error::Unsupported {
                kernel: "attention",
                what: "a split over the sequence".to_owned(),
                advice: "native attention goes through the sequence in one step",
            });
        }
        KernelSpec::OverlayRows(s) => {
            let (columns, image_rows) = (size(s.columns)?, size(s.image_rows)?);
            (NativeKernel::OverlayRows(native::OverlayRows { rows: rows(s.rows)?, columns, image_rows }), vec![W; 5])
        }
        KernelSpec::WriteRows(s) => {
            let kernel = native::WriteRows {
                rows: rows(s.rows)?,
                columns: size(s.columns)?,
                state_rows: size(s.state_rows)?,
                start: match s.start {
                    CallScalar::Position => Scalar::Position,
                    CallScalar::Tile => Scalar::Tile,
                },
                stride: size(s.stride)?,
                offset: size(s.offset)?,
                state: state("write_rows", s.state)?,
            };
            (NativeKernel::WriteRows(kernel), vec![W; 2])
        }
        KernelSpec::Patchify(s) => {
            let [channels, height, width, patch] = [size(s.channels)?, size(s.height)?, size(s.width)?, size(s.patch)?];
            (NativeKernel::Patchify(native::Patchify { channels, height, width, patch }), vec![W; 2])
        }
        KernelSpec::Elementwise(s) => {
            let function = match s.function {
                Elementwise::Add { broadcast } => Function::Add(broadcast),
                Elementwise::Mul { broadcast } => Function::Mul(broadcast),
                Elementwise::AddScalar(value) => Function::AddScalar(value),
                Elementwise::Scale(factor) => Function::Scale(factor),
                Elementwise::Activate(f) => Function::Activate(activation_of(f)),
                Elementwise::SoftCap(cap) => Function::SoftCap(cap),
                Elementwise::Glu(f) => Function::Glu(activation_of(f)),
            };
            let binary = matches!(function, Function::Add(_) | Function::Mul(_));
            let kernel = native::Elementwise { function, rows: rows(s.rows)?, columns: size(s.columns)? };
            (NativeKernel::Elementwise(kernel), vec![W; if binary { 3 } else { 2 }])
        }
        KernelSpec::Rope(s) => {
            let (n_heads, head_dim) = (size(s.n_heads)?, size(s.rope.head_dim)?);
            let kernel = native::Rope { rows: rows(s.rows)?, n_heads, head_dim, magnitude: s.rope.magnitude };
            (NativeKernel::Rope(kernel), vec![W, R, W])
        }
        KernelSpec::CopyRows(s) => {
            let (x, columns) = (columns(s.x)?, size(s.columns)?);
            (NativeKernel::CopyRows(native::CopyRows { rows: rows(s.rows)?, x, columns, last: s.last }), vec![W; 2])
        }
    };
    let one = [Extent::Fixed(1); 3];
    let name = name(&kernel);
    Ok(Emitted { name, wgsl: String::new(), native: Some(kernel), workgroup: [1; 3], bindings, grid: one })
}

/// `matmul.rows16.bits4.group32.f16.n2048.k2048.bias…`: the kernel and all its constants but those that say no.
fn name(kernel: &NativeKernel) -> String {
    fn append(name: &mut String, key: &str, value: &serde_json::Value) {
        match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => {}
            serde_json::Value::Bool(true) => *name += &format!(".{key}"),
            serde_json::Value::String(text) => *name += &format!(".{text}"),
            serde_json::Value::Object(object) => object.iter().for_each(|(key, value)| append(name, key, value)),
            serde_json::Value::Array(values) => values.iter().for_each(|value| append(name, key, value)),
            serde_json::Value::Number(number) => *name += &format!(".{key}{number}"),
        }
    }
    let Code::Native { mut name, constants } = kernel.to_code() else { unreachable!("native kernels are native code") };
    for (key, value) in &constants {
        append(&mut name, key, value);
    }
    name
}

fn size(n: usize) -> Result<u32, Error> {
    u32::try_from(n).map_err(|_| Error::Unsupported {
        kernel: "native",
        what: format!("a size of {n}"),
        advice: "sizes have 32 bits",
    })
}

fn rows(rows: Dim) -> Result<Rows, Error> {
    match rows {
        Dim::Rows => Ok(None),
        Dim::Fixed(n) => size(n).map(Some),
    }
}

fn columns(view: View) -> Result<Columns, Error> {
    Ok(Columns { stride: size(view.stride)?, offset: size(view.offset)? })
}

fn activation_of(activation: Activation) -> native::Activation {
    match activation {
        Activation::Gelu => native::Activation::Gelu,
        Activation::GeluTanh => native::Activation::GeluTanh,
        Activation::QuickGelu => native::Activation::QuickGelu,
        Activation::Silu => native::Activation::Silu,
    }
}

fn state(kernel: &'static str, float: FloatType) -> Result<Float, Error> {
    // Columns do not matter here: native states need no whole words.
    check_state(kernel, float, 0)?;
    Ok(if float == FloatType::F32 { Float::F32 } else { Float::F16 })
}

fn stored(format: Format) -> Vec<Access> {
    vec![Access::Read; if matches!(format, Format::Grouped(_)) { 2 } else { 1 }]
}

fn matrix(format: Format, n: usize, k: usize) -> Result<Matrix, Error> {
    let unsupported = || Error::Unsupported {
        kernel: "native matrix product",
        what: format!("matrices stored as {format}"),
        advice: "quantize with a built-in scheme",
    };
    let float = |float: FloatType| match float {
        FloatType::F16 => Ok(Float::F16),
        FloatType::F32 => Ok(Float::F32),
        FloatType::Bf16 => Err(unsupported()),
    };
    let storage = match format {
        Format::Plain(plain) => Storage::Plain(float(plain)?),
        Format::Grouped(g) => {
            let zero = match g.zero {
                dwindle_schemes::Zero::Centered => native::Zero::Centered,
                dwindle_schemes::Zero::Fixed(code) => native::Zero::Fixed(code),
                dwindle_schemes::Zero::Stored => native::Zero::Stored,
                dwindle_schemes::Zero::Minimum => native::Zero::Minimum,
            };
            Storage::Grouped { bits: g.bits, group: size(g.group)?, scale: float(g.scale)?, zero }
        }
    };
    let (n, k) = (size(n)?, size(k)?);
    match storage.bytes(n, k) {
        Some(_) => Ok(Matrix { layout: Layout::Rows16, storage, n, k }),
        None => Err(unsupported()),
    }
}
