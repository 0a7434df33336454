//! Rotary embedding alone (`rope.wgsl`), and with the KV cache written in the same step (`rope_write_kv.wgsl`).

use dwindle_bundle::Access;

use super::prelude::{
    ANGLE, ELEMENT_LANES, Prelude, check_finite, check_nonzero, check_state, name_float, name_rows, state_element,
    unit_grid,
};
use super::spec::{RopeSpec, RopeWriteKvSpec};
use super::{Emitted, Error};
use crate::graph::Rope;
use dwindle_schemes::FloatType;

/// The kernel of a rotation alone.
pub(super) fn emit_rope(spec: &RopeSpec) -> Result<Emitted, Error> {
    check(&spec.rope, spec.n_heads)?;
    let half = spec.rope.head_dim / 2;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("HEADS", spec.n_heads).constant("HALF", half).float("MAGNITUDE", spec.rope.magnitude);
    prelude.bind("x", Access::ReadWrite, "f32").bind("inverse_frequencies", Access::Read, "f32");
    prelude.bind("y", Access::ReadWrite, "f32").push(ANGLE);
    let name = format!(
        "rope.heads{}x{}.magnitude{}{}",
        spec.n_heads,
        2 * half,
        name_float(spec.rope.magnitude),
        name_rows(spec.rows)
    );
    let grid = unit_grid(spec.n_heads * half, spec.rows);
    Ok(prelude.finish(name, include_str!("rope.wgsl"), ELEMENT_LANES, grid))
}

/// The kernel of a rotation that writes k and v into the cache.
pub(super) fn emit_rope_write_kv(spec: &RopeWriteKvSpec) -> Result<Emitted, Error> {
    check(&spec.rope, spec.n_heads)?;
    check_nonzero("rope_write_kv", &[("n_kv_heads", spec.n_kv_heads)])?;
    let head_dim = spec.rope.head_dim;
    check_state("rope_write_kv", spec.state, head_dim)?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("HEADS", spec.n_heads).constant("KV_HEADS", spec.n_kv_heads).constant("HEAD_DIM", head_dim);
    prelude.float("MAGNITUDE", spec.rope.magnitude);
    let state = state_element(spec.state);
    prelude.bind("qkv", Access::ReadWrite, "f32").bind("inverse_frequencies", Access::Read, "f32");
    prelude.bind("q", Access::ReadWrite, "f32");
    prelude.bind("k", Access::ReadWrite, state).bind("v", Access::ReadWrite, state);
    prelude.push(ANGLE);
    for name in ["k", "v"] {
        prelude.push(write_pair_text(name, spec.state));
    }
    let name = format!(
        "rope_write_kv.{}.heads{}+{}x{head_dim}.magnitude{}{}",
        spec.state,
        spec.n_heads,
        spec.n_kv_heads,
        name_float(spec.rope.magnitude),
        name_rows(spec.rows)
    );
    let grid = unit_grid((spec.n_heads + 2 * spec.n_kv_heads) * head_dim / 2, spec.rows);
    Ok(prelude.finish(name, include_str!("rope_write_kv.wgsl"), ELEMENT_LANES, grid))
}

/// `write_<name>(index, pair)`: elements `index` and `index + 1` of a state, `index` even.
pub(super) fn write_pair_text(name: &str, float: FloatType) -> String {
    let body = match float {
        FloatType::F32 => format!("{name}[index] = pair.x;\n    {name}[index + 1u] = pair.y;"),
        _ => format!("{name}[index / 2u] = pack2x16float(pair);"),
    };
    format!("fn write_{name}(index: u32, pair: vec2<f32>) {{\n    {body}\n}}")
}

fn check(rope: &Rope, n_heads: usize) -> Result<(), Error> {
    check_nonzero("rope", &[("n_heads", n_heads), ("head_dim", rope.head_dim)])?;
    check_finite("rope", "magnitude", rope.magnitude)?;
    if rope.head_dim.is_multiple_of(2) {
        return Ok(());
    }
    let what = format!("head_dim {}", rope.head_dim);
    Err(Error::Unsupported { kernel: "rope", what, advice: "rotation pairs the halves of a head, so it is even" })
}
