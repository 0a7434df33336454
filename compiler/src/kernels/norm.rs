//! RMS and layer norm of rows, or of each head of a row (`norm.wgsl`).

use dwindle_bundle::{Access, Extent};

use super::prelude::{Prelude, check_finite, check_nonzero, name_float, name_rows, rows_per};
use super::spec::NormSpec;
use super::{Emitted, Error};
use crate::graph::NormKind;

/// Lanes of a workgroup, which normalises one head of one row: as many as `norm.wgsl` reduces.
const LANES: usize = 64;

/// The kernel of a norm.
pub(super) fn emit(spec: &NormSpec) -> Result<Emitted, Error> {
    check_nonzero("norm", &[("heads", spec.heads), ("columns", spec.columns)])?;
    check_finite("norm", "eps", spec.eps)?;
    let layer = spec.kind == NormKind::Layer;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("LANES", LANES).constant("HEADS", spec.heads).constant("COLUMNS", spec.columns);
    prelude.float("EPS", spec.eps).flag("LAYER", layer);
    prelude.bind("x", Access::ReadWrite, "f32").bind("weight", Access::Read, "f32");
    if layer {
        prelude.bind("bias", Access::Read, "f32");
    }
    if spec.residual {
        prelude.bind("residual", Access::ReadWrite, "f32");
    }
    prelude.bind("y", Access::ReadWrite, "f32");
    prelude.push(format_args!(
        "fn shifted(column: u32, index: u32, value: f32) -> f32 {{ return value{}{}; }}",
        if layer { " + bias[column]" } else { "" },
        if spec.residual { " + residual[index]" } else { "" },
    ));
    let name = format!(
        "{}{}.n{}.eps{}{}{}",
        if layer { "layer_norm" } else { "rms_norm" },
        if spec.heads == 1 { String::new() } else { format!(".heads{}", spec.heads) },
        spec.columns,
        name_float(spec.eps),
        if spec.residual { ".residual" } else { "" },
        name_rows(spec.rows)
    );
    let grid = [rows_per(spec.rows, 1), Extent::Fixed(spec.heads as u32), Extent::Fixed(1)];
    Ok(prelude.finish(name, include_str!("norm.wgsl"), LANES as u32, grid))
}
