//! Elementwise operations that no other kernel took (`elementwise.wgsl`).

use dwindle_bundle::Access;

use super::prelude::{
    ELEMENT_LANES, Prelude, activation_name, activation_text, check_finite, check_nonzero, name_float, name_rows,
    soft_cap_text, unit_grid,
};
use super::spec::{Elementwise, ElementwiseSpec};
use super::{Emitted, Error};

/// The kernel of an elementwise operation.
pub(super) fn emit(spec: &ElementwiseSpec) -> Result<Emitted, Error> {
    check_nonzero("elementwise", &[("columns", spec.columns)])?;
    let mut prelude = Prelude::new(spec.rows);
    prelude.constant("COLUMNS", spec.columns).bind("a", Access::ReadWrite, "f32");
    let (name, value) = match spec.function {
        Elementwise::Add { broadcast } => binary(&mut prelude, "add", "+", broadcast),
        Elementwise::Mul { broadcast } => binary(&mut prelude, "mul", "*", broadcast),
        Elementwise::AddScalar(value) => {
            check_finite("elementwise", "value", value)?;
            (format!("add_scalar{}", name_float(value)), format!("a[index] + {value:?}f"))
        }
        Elementwise::Scale(factor) => {
            check_finite("elementwise", "factor", factor)?;
            (format!("scale{}", name_float(factor)), format!("a[index] * {factor:?}f"))
        }
        Elementwise::Activate(activation) => {
            prelude.push(activation_text(activation));
            let name = activation_name(activation);
            (name.to_owned(), format!("{name}(a[index])"))
        }
        Elementwise::SoftCap(cap) => {
            check_finite("elementwise", "cap", cap)?;
            prelude.push(soft_cap_text(Some(cap)));
            (format!("soft_cap{}", name_float(cap)), "soft_cap(a[index])".to_owned())
        }
        Elementwise::Glu(activation) => {
            prelude.push(activation_text(activation));
            let name = activation_name(activation);
            (format!("{name}_glu"), format!("{name}(a[2u * index]) * a[2u * index + 1u]"))
        }
    };
    prelude.bind("y", Access::ReadWrite, "f32");
    prelude.push(format_args!("fn value(index: u32, column: u32) -> f32 {{ return {value}; }}"));
    let name = format!("{name}.n{}{}", spec.columns, name_rows(spec.rows));
    let grid = unit_grid(spec.columns, spec.rows);
    Ok(prelude.finish(name, include_str!("elementwise.wgsl"), ELEMENT_LANES, grid))
}

fn binary(prelude: &mut Prelude, name: &str, operator: &str, broadcast: bool) -> (String, String) {
    prelude.bind("b", Access::ReadWrite, "f32");
    let (suffix, index) = if broadcast { ("_row", "column") } else { ("", "index") };
    (format!("{name}{suffix}"), format!("a[index] {operator} b[{index}]"))
}
