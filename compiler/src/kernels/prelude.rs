//! What generated preludes share: constants, bindings, rows of a call, activations, and the making of [`Emitted`].

use std::fmt::Write;

use dwindle_bundle::{Access, Extent};
use dwindle_schemes::FloatType;

use super::{Emitted, Error};
use crate::graph::{Activation, Dim};

/// Text in the making, with the accesses of the bindings that it declares.
pub(super) struct Prelude {
    text: String,
    bindings: Vec<Access>,
}

impl Prelude {
    /// The uniform at binding 0, and `rows()`: how many rows this call has.
    pub(super) fn new(rows: Dim) -> Self {
        let rows = match rows {
            Dim::Fixed(n) => format!("{n}u"),
            Dim::Rows => "call.rows".to_owned(),
        };
        let text = format!(
            "struct Call {{ rows: u32, position: u32, tile: u32, reserved: u32 }}\n\
             @group(0) @binding(0) var<uniform> call: Call;\n\
             fn rows() -> u32 {{ return {rows}; }}\n"
        );
        Prelude { text, bindings: Vec::new() }
    }

    /// Declares the next binding.
    pub(super) fn bind(&mut self, name: &str, access: Access, element: &str) -> &mut Self {
        self.bindings.push(access);
        let mode = match access {
            Access::Read => "read",
            Access::ReadWrite => "read_write",
        };
        let index = self.bindings.len();
        self.push(format_args!("@group(0) @binding({index}) var<storage, {mode}> {name}: array<{element}>;"))
    }

    /// `const NAME: u32`.
    pub(super) fn constant(&mut self, name: &str, value: usize) -> &mut Self {
        self.push(format_args!("const {name}: u32 = {value}u;"))
    }

    /// `const NAME: f32`.
    pub(super) fn float(&mut self, name: &str, value: f32) -> &mut Self {
        self.push(format_args!("const {name}: f32 = {value:?}f;"))
    }

    /// `const NAME: bool`.
    pub(super) fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.push(format_args!("const {name}: bool = {value};"))
    }

    /// A line, or several.
    pub(super) fn push(&mut self, line: impl std::fmt::Display) -> &mut Self {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
        self
    }

    /// The kernel: this prelude, then `body`.
    pub(super) fn finish(self, name: String, body: &str, workgroup: u32, grid: [Extent; 3]) -> Emitted {
        let wgsl = format!("// {name}: generated constants and functions, then the body.\n{}\n{body}", self.text);
        Emitted { name, wgsl, native: None, workgroup: [workgroup, 1, 1], bindings: self.bindings, grid }
    }
}

/// The grid extent for `n` rows a workgroup.
pub(super) fn rows_per(rows: Dim, n: usize) -> Extent {
    match rows {
        Dim::Fixed(rows) => Extent::Fixed(rows.div_ceil(n) as u32),
        Dim::Rows => Extent::RowsPer(n as u32),
    }
}

/// Lanes of a workgroup of the kernels that treat each element by itself.
pub(super) const ELEMENT_LANES: u32 = 64;

/// The grid of a kernel with one invocation for each of `units` in a row, and one row of workgroups for each row.
pub(super) fn unit_grid(units: usize, rows: Dim) -> [Extent; 3] {
    [Extent::Fixed(units.div_ceil(ELEMENT_LANES as usize) as u32), rows_per(rows, 1), Extent::Fixed(1)]
}

/// A number in a name: `1e-6`, `30`, `0.125`.
pub(super) fn name_float(value: f32) -> String {
    let plain = format!("{value}");
    let scientific = format!("{value:e}");
    if scientific.len() < plain.len() { scientific } else { plain }
}

/// Rows in a name: nothing where they are the call's, else `.rows729`.
pub(super) fn name_rows(rows: Dim) -> String {
    match rows {
        Dim::Fixed(n) => format!(".rows{n}"),
        Dim::Rows => String::new(),
    }
}

/// The word for an activation, in names and as the name of its WGSL function.
pub(super) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::QuickGelu => "quick_gelu",
        Activation::Silu => "silu",
    }
}

/// The WGSL function of an activation. Arguments of `exp` are bounded, because infinities are not portable in WGSL.
pub(super) fn activation_text(activation: Activation) -> String {
    // Φ by Abramowitz & Stegun 7.1.26, whose error is at most 1.5e-7. `1 + tanh(u) = 2 σ(2u)`.
    let body = match activation {
        Activation::Gelu => {
            "let z = abs(x) * 0.70710678118654752;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let tail = 0.5 * series * exp(-min(z * z, 80.0));
    return x * select(tail, 1.0 - tail, x >= 0.0);"
        }
        Activation::GeluTanh => "return x * sigmoid(1.5957691216057308 * x * (1.0 + 0.044715 * x * x));",
        Activation::QuickGelu => "return x * sigmoid(1.702 * x);",
        Activation::Silu => "return x * sigmoid(x);",
    };
    format!("{SIGMOID}fn {}(x: f32) -> f32 {{\n    {body}\n}}", activation_name(activation))
}

const SIGMOID: &str = "fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(min(-x, 80.0))); }\n";

/// `soft_cap(x) = cap tanh(x / cap)`, or the identity. The argument is bounded: some drivers' tanh overflows.
pub(super) fn soft_cap_text(cap: Option<f32>) -> String {
    let value = match cap {
        Some(cap) => format!("{cap:?}f * tanh(clamp(x / {cap:?}f, -15.0, 15.0))"),
        None => "x".to_owned(),
    };
    format!("fn soft_cap(x: f32) -> f32 {{ return {value}; }}")
}

/// Refuses states that kernels cannot address by whole words.
pub(super) fn check_state(kernel: &'static str, float: FloatType, columns: usize) -> Result<(), Error> {
    match float {
        FloatType::F32 => Ok(()),
        FloatType::F16 if columns.is_multiple_of(2) => Ok(()),
        FloatType::F16 => Err(Error::Unsupported {
            kernel,
            what: format!("f16 states of {columns} columns"),
            advice: "rows must fill whole 32-bit words; choose a scheme whose kv is f32",
        }),
        FloatType::Bf16 => Err(Error::Unsupported {
            kernel,
            what: "bf16 states".to_owned(),
            advice: "choose a scheme whose kv is f16 or f32",
        }),
    }
}

/// Refuses numbers that WGSL cannot spell.
pub(super) fn check_finite(kernel: &'static str, what: &str, value: f32) -> Result<(), Error> {
    if value.is_finite() {
        return Ok(());
    }
    let advice = "only finite numbers can be baked into a kernel";
    Err(Error::Unsupported { kernel, what: format!("{what} = {value}"), advice })
}

/// Refuses shapes with nothing in them.
pub(super) fn check_nonzero(kernel: &'static str, shape: &[(&str, usize)]) -> Result<(), Error> {
    match shape.iter().find(|(_, size)| *size == 0) {
        None => Ok(()),
        Some((what, _)) => Err(Error::Unsupported {
            kernel,
            what: format!("{what} = 0"),
            advice: "every dimension has at least one element",
        }),
    }
}

/// WGSL type of the elements that a state is bound as.
pub(super) fn state_element(float: FloatType) -> &'static str {
    if float == FloatType::F32 { "f32" } else { "u32" }
}

/// `angle_of(position, inverse_frequency)` within [-π, π], because devices guarantee sin and cos only there. 2π is
/// subtracted in three parts, of which the first two have few bits, so their products with the turns are exact.
pub(super) const ANGLE: &str = "fn angle_of(position: u32, inverse_frequency: f32) -> f32 {
    let angle = f32(position) * inverse_frequency;
    let turns = round(angle * 0.15915494309189535);
    return ((angle - turns * 6.28125) - turns * 0.00193500518798828125) - turns * 3.0199159819e-7;
}";
