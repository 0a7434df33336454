//! Checks a kernel's text: as WGSL, and against the limits of a target.

use dwindle_bundle::Extent;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module};

use super::{Emitted, Error};
use crate::target::Target;

/// A parsed and validated kernel, ready to be translated.
#[derive(Debug)]
pub struct Validated {
    pub(super) name: String,
    pub(super) module: Module,
    pub(super) info: ModuleInfo,
}

/// Parses and validates a kernel's text, with no capability beyond WebGPU's core, and checks it against the target.
///
/// # Errors
/// [`Error::Text`] with the place in the text, [`Error::Limit`] naming the limit, what is needed and what is offered.
pub fn validate(emitted: &Emitted, target: &Target) -> Result<Validated, Error> {
    let failed = |stage, message| Error::Text { kernel: emitted.name.clone(), stage, message };
    let module = naga::front::wgsl::parse_str(&emitted.wgsl)
        .map_err(|error| failed("parsing", error.emit_to_string(&emitted.wgsl)))?;
    // f16 in packed words (`unpack2x16float`) is core WGSL; naga names it as a capability.
    let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
        .validate(&module)
        .map_err(|error| failed("validation", error.emit_to_string(&emitted.wgsl)))?;
    check_launch(emitted, target)?;
    let [entry] = &*module.entry_points else {
        return Err(failed("validation", format!("{} entry points instead of one", module.entry_points.len())));
    };
    if entry.name != "main" || entry.workgroup_size != emitted.workgroup {
        let message = format!("entry point {} of size {:?}", entry.name, entry.workgroup_size);
        return Err(failed("validation", message));
    }
    check_limit(emitted, target, "bytes of workgroup memory", workgroup_bytes(&module), {
        target.max_compute_workgroup_storage_size.into()
    })?;
    Ok(Validated { name: emitted.name.clone(), module, info })
}

/// Bytes of all workgroup variables, each rounded up to 16 as WebGPU counts them.
pub(crate) fn workgroup_bytes(module: &Module) -> u64 {
    let workgroup = module.global_variables.iter().filter(|(_, variable)| variable.space == AddressSpace::WorkGroup);
    workgroup
        .map(|(_, variable)| u64::from(module.types[variable.ty].inner.size(module.to_ctx())).next_multiple_of(16))
        .sum()
}

/// Checks what is known without parsing: bindings, workgroup and the fixed part of the grid.
pub(super) fn check_launch(emitted: &Emitted, target: &Target) -> Result<(), Error> {
    let [x, y, z] = emitted.workgroup;
    let limits = [
        ("storage bindings", emitted.bindings.len() as u64, target.max_storage_buffers_per_shader_stage),
        ("invocations of a workgroup in x", x.into(), target.max_compute_workgroup_size_x),
        ("invocations of a workgroup", u64::from(x) * u64::from(y) * u64::from(z), {
            target.max_compute_invocations_per_workgroup
        }),
    ];
    for (limit, needed, offered) in limits {
        check_limit(emitted, target, limit, needed, offered.into())?;
    }
    for extent in emitted.grid {
        if let Extent::Fixed(needed) = extent {
            let offered = target.max_compute_workgroups_per_dimension;
            check_limit(emitted, target, "workgroups in one direction", needed.into(), offered.into())?;
        }
    }
    Ok(())
}

fn check_limit(
    emitted: &Emitted,
    target: &Target,
    limit: &'static str,
    needed: u64,
    offered: u64,
) -> Result<(), Error> {
    if needed <= offered {
        return Ok(());
    }
    Err(Error::Limit { kernel: emitted.name.clone(), limit, needed, offered, target: target.name })
}
