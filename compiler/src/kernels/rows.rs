//! Kernels that move rows: into a state (`write_rows.wgsl`), out of a view (`copy_rows.wgsl`), image rows over
//! embeddings (`overlay_rows.wgsl`), and windows of a picture as rows (`patchify.wgsl`).

use dwindle_bundle::Access;

use super::prelude::{ELEMENT_LANES, Prelude, check_nonzero, check_state, name_rows, state_element, unit_grid};
use super::rope::write_pair_text;
use super::spec::{CopyRowsSpec, OverlayRowsSpec, PatchifySpec, WriteRowsSpec};
use super::{Emitted, Error};
use crate::graph::{CallScalar, Dim};
use dwindle_schemes::FloatType;

/// Rows into a state.
pub(super) fn emit_write(spec: &WriteRowsSpec) -> Result<Emitted, Error> {
    check_nonzero("write_rows", &[("columns", spec.columns), ("state_rows", spec.state_rows)])?;
    check_state("write_rows", spec.state, spec.columns)?;
    let mut prelude = Prelude::new(spec.rows);
    let scalar = match spec.start {
        CallScalar::Position => "position",
        CallScalar::Tile => "tile",
    };
    prelude.constant("COLUMNS", spec.columns).constant("STATE_ROWS", spec.state_rows);
    prelude.bind("x", Access::ReadWrite, "f32").bind("state", Access::ReadWrite, state_element(spec.state));
    prelude
        .push(format_args!("fn first_row() -> u32 {{ return call.{scalar} * {}u + {}u; }}", spec.stride, spec.offset));
    // A row of an odd number of f32 columns has a last element without a partner.
    let odd = !spec.columns.is_multiple_of(2);
    if odd {
        prelude.push("const UNIT: u32 = 1u;\nfn write(index: u32, source: u32) { state[index] = x[source]; }");
    } else {
        prelude.push(write_pair_text("state", spec.state));
        prelude.push(
            "const UNIT: u32 = 2u;\n\
             fn write(index: u32, source: u32) { write_state(index, vec2<f32>(x[source], x[source + 1u])); }",
        );
    }
    let name = format!(
        "write_rows.{}.{}x{}.{scalar}*{}+{}{}",
        spec.state,
        spec.state_rows,
        spec.columns,
        spec.stride,
        spec.offset,
        name_rows(spec.rows)
    )
    .replace('*', "by");
    let units = if odd { spec.columns } else { spec.columns / 2 };
    debug_assert!(!odd || spec.state == FloatType::F32);
    Ok(prelude.finish(name, include_str!("write_rows.wgsl"), ELEMENT_LANES, unit_grid(units, spec.rows)))
}

/// Rows of a view, or its last row.
pub(super) fn emit_copy(spec: &CopyRowsSpec) -> Result<Emitted, Error> {
    check_nonzero("copy_rows", &[("columns", spec.columns)])?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("COLUMNS", spec.columns).constant("STRIDE", spec.x.stride).constant("OFFSET", spec.x.offset);
    prelude.flag("LAST", spec.last);
    prelude.bind("x", Access::ReadWrite, "f32").bind("y", Access::ReadWrite, "f32");
    let name = format!(
        "{}.columns{}.stride{}+{}{}",
        if spec.last { "copy_last_row" } else { "copy_rows" },
        spec.columns,
        spec.x.stride,
        spec.x.offset,
        name_rows(spec.rows)
    );
    let rows = if spec.last { Dim::Fixed(1) } else { spec.rows };
    Ok(prelude.finish(name, include_str!("copy_rows.wgsl"), ELEMENT_LANES, unit_grid(spec.columns, rows)))
}

/// Image rows over embeddings.
pub(super) fn emit_overlay(spec: &OverlayRowsSpec) -> Result<Emitted, Error> {
    check_nonzero("overlay_rows", &[("columns", spec.columns), ("image_rows", spec.image_rows)])?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("COLUMNS", spec.columns).constant("IMAGE_ROWS", spec.image_rows);
    prelude.bind("x", Access::ReadWrite, "f32").bind("image_rows", Access::ReadWrite, "f32");
    prelude.bind("index", Access::ReadWrite, "vec4<i32>").bind("weight", Access::ReadWrite, "vec4<f32>");
    prelude.bind("y", Access::ReadWrite, "f32");
    let name = format!("overlay_rows.{}x{}{}", spec.image_rows, spec.columns, name_rows(spec.rows));
    let grid = unit_grid(spec.columns, spec.rows);
    Ok(prelude.finish(name, include_str!("overlay_rows.wgsl"), ELEMENT_LANES, grid))
}

/// Windows of a picture as rows.
pub(super) fn emit_patchify(spec: &PatchifySpec) -> Result<Emitted, Error> {
    let PatchifySpec { channels, height, width, patch } = *spec;
    check_nonzero("patchify", &[("channels", channels), ("patch", patch), ("height", height), ("width", width)])?;
    let (down, across) = (height / patch, width / patch);
    check_nonzero("patchify", &[("height / patch", down), ("width / patch", across)])?;
    let rows = Dim::Fixed(down * across);
    let mut prelude = Prelude::new(rows);
    prelude.constant("CHANNELS", channels).constant("HEIGHT", height).constant("WIDTH", width);
    prelude.constant("PATCH", patch).constant("ACROSS", across);
    prelude.bind("pixels", Access::ReadWrite, "f32").bind("y", Access::ReadWrite, "f32");
    let name = format!("patchify.{channels}x{height}x{width}.patch{patch}");
    let grid = unit_grid(channels * patch * patch, rows);
    Ok(prelude.finish(name, include_str!("patchify.wgsl"), ELEMENT_LANES, grid))
}
