//! Rows of the token embedding (`embed.wgsl`).

use dwindle_bundle::Access;

use super::prelude::{ELEMENT_LANES, Prelude, check_finite, check_nonzero, name_float, name_rows, unit_grid};
use super::spec::EmbedSpec;
use super::weights::Weights;
use super::{Emitted, Error};

/// The kernel of an embedding, or of a part of its table.
pub(super) fn emit(spec: &EmbedSpec) -> Result<Emitted, Error> {
    check_nonzero("embed", &[("n", spec.n), ("columns", spec.columns)])?;
    check_finite("embed", "scale", spec.scale)?;
    let weights = Weights::new("embed", spec.format, spec.columns)?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("FIRST_ROW", spec.first_row).constant("N", spec.n).constant("COLUMNS", spec.columns);
    prelude.float("SCALE", spec.scale);
    prelude.bind("tokens", Access::ReadWrite, "u32");
    weights.bind_values(&mut prelude);
    prelude.bind("y", Access::ReadWrite, "f32").push(weights.value_text());
    let EmbedSpec { format, n, columns, first_row, .. } = spec;
    let name = format!(
        "embed.{format}.n{n}.columns{columns}.from{first_row}.scale{}{}",
        name_float(spec.scale),
        name_rows(spec.rows)
    );
    Ok(prelude.finish(name, include_str!("embed.wgsl"), ELEMENT_LANES, unit_grid(*columns, spec.rows)))
}
