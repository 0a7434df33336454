//! Translates validated kernels: SPIR-V for Vulkan 1.1, MSL 2.3 for Metal.
//!
//! Neither has injected bounds or loop checks: kernels bound their own accesses, and plans are validated. Binding n of
//! group 0 stays binding n of set 0 in SPIR-V, and is buffer n in MSL.

use std::collections::BTreeMap;

use naga::back::{msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{AddressSpace, ShaderStage, StorageAccess};

use super::Error;
use super::validate::Validated;

const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};

/// Buffer slot of the lengths of runtime-sized arrays. MSL from naga always declares them; these kernels never ask for a
/// length, so nothing need be bound there.
const SIZES_SLOT: u8 = 30;

/// SPIR-V 1.3 words.
///
/// # Errors
/// [`Error::Text`] where naga cannot express the kernel.
pub fn spirv(kernel: &Validated) -> Result<Vec<u32>, Error> {
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: true,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..spv::Options::default()
    };
    let entry = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
    spv::write_vec(&kernel.module, &kernel.info, &options, Some(&entry))
        .map_err(|error| failed(kernel, "SPIR-V", error))
}

/// Text in the Metal shading language 2.3; the entry point is called `main_`, because `main` is reserved there.
///
/// # Errors
/// [`Error::Text`] where naga cannot express the kernel.
pub fn msl(kernel: &Validated) -> Result<String, Error> {
    let mut resources = BTreeMap::new();
    for (_, variable) in kernel.module.global_variables.iter() {
        let Some(binding) = variable.binding else { continue };
        let mutable = match variable.space {
            AddressSpace::Storage { access } => access.contains(StorageAccess::STORE),
            _ => false,
        };
        let slot = u8::try_from(binding.binding).map_err(|error| failed(kernel, "MSL", error))?;
        resources.insert(binding, msl::BindTarget { buffer: Some(slot), mutable, ..msl::BindTarget::default() });
    }
    let entry =
        msl::EntryPointResources { resources, sizes_buffer: Some(SIZES_SLOT), ..msl::EntryPointResources::default() };
    let options = msl::Options {
        lang_version: (2, 3),
        per_entry_point_map: BTreeMap::from([("main".to_owned(), entry)]),
        fake_missing_bindings: false,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, "main".to_owned())),
        ..msl::PipelineOptions::default()
    };
    let (text, info) = msl::write_string(&kernel.module, &kernel.info, &options, &pipeline)
        .map_err(|error| failed(kernel, "MSL", error))?;
    // An entry point that cannot be written is left out of the text.
    match info.entry_point_names.into_iter().find_map(Result::err) {
        Some(error) => Err(failed(kernel, "MSL", error)),
        None => Ok(text),
    }
}

fn failed(kernel: &Validated, stage: &'static str, error: impl std::fmt::Display) -> Error {
    Error::Text { kernel: kernel.name.clone(), stage, message: error.to_string() }
}
