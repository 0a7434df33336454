//! Matrix products: `y = epilogue(prologue(x) wᵀ)`, by tiles (`matmul.wgsl`) or for one row (`matvec.wgsl`).

use dwindle_bundle::{Access, Extent};

use super::prelude::{
    Prelude, activation_name, activation_text, check_finite, check_nonzero, name_float, name_rows, rows_per,
    soft_cap_text,
};
use super::spec::MatMulSpec;
use super::weights::{Weights, x_text};
use super::{Emitted, Error};
use crate::graph::{Dim, Epilogue};

/// Lanes of a workgroup of either kernel.
const LANES: usize = 64;
/// Rows of w that a workgroup of the vector kernel multiplies.
const OUTPUTS: usize = 8;
/// Rows of x that a workgroup of the matrix kernel multiplies: as many accumulators as `matmul.wgsl` spells out.
const TILE_ROWS: usize = 16;
/// Rows of w that each lane of the matrix kernel multiplies.
const LANE_COLUMNS: usize = 4;
/// Bytes of workgroup memory that x's tile may take.
const TILE_BYTES: usize = 8192;
/// Workgroups in x, before a grid goes on in y.
const GRID_X: usize = 32768;

/// The kernel of a matrix product.
pub(super) fn emit(spec: &MatMulSpec) -> Result<Emitted, Error> {
    check(spec)?;
    let weights = Weights::new("matmul", spec.format, spec.k)?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("N", spec.n).constant("K", spec.k);
    let x = if weights.x_aligned() { "vec4<f32>" } else { "f32" };
    prelude.bind("x", Access::ReadWrite, x);
    weights.bind(&mut prelude);
    if spec.rms_norm.is_some() {
        prelude.bind("norm_weight", Access::Read, x);
    }
    if spec.bias {
        prelude.bind("bias", Access::Read, "f32");
    }
    if spec.residual {
        prelude.bind("residual", Access::ReadWrite, "f32");
    }
    prelude.bind("y", Access::ReadWrite, "f32");
    prelude.push(x_text(&weights, spec.rms_norm.is_some()));
    prelude.flag("NORM", spec.rms_norm.is_some()).float("EPS", spec.rms_norm.unwrap_or_default());
    epilogue(&mut prelude, spec);
    match spec.rows {
        Dim::Fixed(1) => Ok(vector(prelude, spec, &weights)),
        _ => Ok(matrix(prelude, spec, &weights)),
    }
}

fn check(spec: &MatMulSpec) -> Result<(), Error> {
    check_nonzero("matmul", &[("n", spec.n), ("k", spec.k), ("out_columns", spec.out_columns)])?;
    check_finite("matmul", "eps", spec.rms_norm.unwrap_or_default())?;
    check_finite("matmul", "soft_cap", spec.soft_cap.unwrap_or_default())?;
    let gated = matches!(spec.activation, Some(Epilogue::Gated(_)));
    if gated && !spec.n.is_multiple_of(2) {
        return Err(Error::Unsupported {
            kernel: "matmul",
            what: format!("a gated activation of {} rows", spec.n),
            advice: "gate and up rows alternate, so there is an even number of them",
        });
    }
    let columns = if gated { spec.n / 2 } else { spec.n };
    if spec.out_offset + columns > spec.out_columns {
        return Err(Error::Unsupported {
            kernel: "matmul",
            what: format!("columns {} .. {} of {}", spec.out_offset, spec.out_offset + columns, spec.out_columns),
            advice: "a part writes within its row",
        });
    }
    Ok(())
}

/// `output(t, row, …)`: what is done with the sum of a row of w, or of a pair of rows.
fn epilogue(prelude: &mut Prelude, spec: &MatMulSpec) {
    prelude.push(soft_cap_text(spec.soft_cap));
    let biased = |sum: &str, row: &str| if spec.bias { format!("{sum} + bias[{row}]") } else { sum.to_owned() };
    let (parameters, column, value) = match spec.activation {
        None => ("sum: f32", "row", biased("sum", "row")),
        Some(Epilogue::Plain(activation)) => {
            prelude.push(activation_text(activation));
            ("sum: f32", "row", format!("{}({})", activation_name(activation), biased("sum", "row")))
        }
        Some(Epilogue::Gated(activation)) => {
            prelude.push(activation_text(activation));
            let (gate, up) = (biased("gate", "row"), biased("up", "row + 1u"));
            ("gate: f32, up: f32", "row / 2u", format!("{}({gate}) * ({up})", activation_name(activation)))
        }
    };
    let residual = if spec.residual { " + residual[index]" } else { "" };
    let (columns, offset) = (spec.out_columns, spec.out_offset);
    prelude.push(format_args!(
        "fn output(t: u32, row: u32, {parameters}) {{\n    \
         let index = t * {columns}u + {offset}u + {column};\n    \
         y[index] = soft_cap({value}){residual};\n}}"
    ));
}

fn gated(spec: &MatMulSpec) -> bool {
    matches!(spec.activation, Some(Epilogue::Gated(_)))
}

fn vector(mut prelude: Prelude, spec: &MatMulSpec, weights: &Weights) -> Emitted {
    prelude.constant("LANES", LANES).constant("OUTPUTS", OUTPUTS).constant("GRID_X", GRID_X);
    prelude.push(x_block_text(spec, weights)).push(weights.dot_block_text());
    prelude.push(if gated(spec) {
        "fn output_lane(first: u32, lane: u32) {
    let row = first + 2u * lane;
    if (lane < OUTPUTS / 2u && row < N) { output(0u, row, total(2u * lane), total(2u * lane + 1u)); }
}"
    } else {
        "fn output_lane(first: u32, lane: u32) {
    if (lane < OUTPUTS && first + lane < N) { output(0u, first + lane, total(lane)); }
}"
    });
    let workgroups = spec.n.div_ceil(OUTPUTS);
    let grid = [workgroups.min(GRID_X), workgroups.div_ceil(GRID_X), 1].map(|n| Extent::Fixed(n as u32));
    prelude.finish(name("matvec", spec), include_str!("matvec.wgsl"), LANES as u32, grid)
}

/// `XBlock` and `x_block(block)`: a block of the normalised x, without the factor that all of x shares.
fn x_block_text(spec: &MatMulSpec, weights: &Weights) -> String {
    let (mut fields, mut body) = (String::new(), String::new());
    for i in 0..weights.vectors() {
        fields += &format!("v{i}: vec4<f32>, ");
        body += &format!("    let raw{i} = x4(0u, block * BLOCK + {}u);\n", 4 * i);
        let normed = match spec.rms_norm {
            None => format!("raw{i}"),
            Some(_) => {
                body += &format!("    out.squares += dot(raw{i}, raw{i});\n");
                body += &format!("    let normed{i} = raw{i} * norm4(block * BLOCK + {}u);\n", 4 * i);
                format!("normed{i}")
            }
        };
        match weights.factors(i) {
            None => body += &format!("    out.v{i} = {normed};\n"),
            Some(factors) => {
                body += &format!("    out.total += dot({normed}, vec4<f32>(1.0));\n");
                body += &format!("    out.v{i} = {normed} * {factors};\n");
            }
        }
    }
    format!(
        "struct XBlock {{ {fields}total: f32, squares: f32 }}\n\
         fn x_block(block: u32) -> XBlock {{\n    var out: XBlock;\n{body}    return out;\n}}"
    )
}

fn matrix(mut prelude: Prelude, spec: &MatMulSpec, weights: &Weights) -> Emitted {
    let block_bytes = weights.vectors() * 16 * TILE_ROWS;
    let tile_blocks = (TILE_BYTES / block_bytes).clamp(1, weights.row_blocks());
    prelude.constant("LANES", LANES).constant("TILE_ROWS", TILE_ROWS).constant("TILE_BLOCKS", tile_blocks);
    prelude.push(weights.multiply_block_text());
    prelude.push(format_args!(
        "fn norm_or_one(column: u32) -> vec4<f32> {{ return {}; }}",
        if spec.rms_norm.is_some() { "norm4(column)" } else { "vec4<f32>(1.0)" }
    ));
    prelude.push(if gated(spec) {
        "fn output4(t: u32, row: u32, sums: vec4<f32>) {
    if (row < N) { output(t, row, sums.x, sums.y); }
    if (row + 2u < N) { output(t, row + 2u, sums.z, sums.w); }
}"
    } else {
        "fn output4(t: u32, row: u32, sums: vec4<f32>) {
    if (row < N) { output(t, row, sums.x); }
    if (row + 1u < N) { output(t, row + 1u, sums.y); }
    if (row + 2u < N) { output(t, row + 2u, sums.z); }
    if (row + 3u < N) { output(t, row + 3u, sums.w); }
}"
    });
    let columns = spec.n.div_ceil(LANES * LANE_COLUMNS);
    let grid = [rows_per(spec.rows, TILE_ROWS), Extent::Fixed(columns as u32), Extent::Fixed(1)];
    prelude.finish(name("matmul", spec), include_str!("matmul.wgsl"), LANES as u32, grid)
}

fn name(kind: &str, spec: &MatMulSpec) -> String {
    let mut name = format!("{kind}.{}.n{}.k{}", spec.format, spec.n, spec.k);
    if spec.rows != Dim::Fixed(1) {
        name += &name_rows(spec.rows);
    }
    if let Some(eps) = spec.rms_norm {
        name += &format!(".rms{}", name_float(eps));
    }
    if spec.bias {
        name += ".bias";
    }
    match spec.activation {
        None => {}
        Some(Epilogue::Plain(activation)) => name += &format!(".{}", activation_name(activation)),
        Some(Epilogue::Gated(activation)) => name += &format!(".{}_gated", activation_name(activation)),
    }
    if let Some(cap) = spec.soft_cap {
        name += &format!(".cap{}", name_float(cap));
    }
    if spec.residual {
        name += ".residual";
    }
    let columns = if gated(spec) { spec.n / 2 } else { spec.n };
    if (spec.out_columns, spec.out_offset) != (columns, 0) {
        name += &format!(".at{}of{}", spec.out_offset, spec.out_columns);
    }
    name
}
