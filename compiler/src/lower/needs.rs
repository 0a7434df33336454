//! What plans need of a device, computed from the plans themselves.

use std::collections::BTreeMap;

use dwindle_bundle::{Call, Plan};

use super::Lowered;
use crate::kernels::validate;

/// The least limits that a device has to offer for all of these models, by WebGPU's names.
///
/// `context` is the number of positions of each model's cache.
pub fn needs(models: &[(&Lowered, u32)]) -> BTreeMap<String, u64> {
    let mut needs = BTreeMap::new();
    let mut at_least = |name: &str, value: u64| {
        let known = needs.entry(name.to_owned()).or_insert(0);
        *known = value.max(*known);
    };
    // A processor needs nothing but memory, and says itself if there is too little.
    let on_gpu = |lowered: &Lowered| lowered.kernels.iter().all(|kernel| kernel.native.is_none());
    for (lowered, context) in models.iter().filter(|(lowered, _)| on_gpu(lowered)) {
        let plan = &lowered.plan;
        for buffer in &plan.buffers {
            at_least("max_buffer_size", buffer.bytes);
        }
        for kernel in &plan.kernels {
            at_least("max_storage_buffers_per_shader_stage", kernel.bindings.len() as u64);
            at_least("max_compute_invocations_per_workgroup", kernel.workgroup.iter().map(|&n| u64::from(n)).product());
            for (axis, &size) in ["x", "y", "z"].iter().zip(&kernel.workgroup) {
                at_least(&format!("max_compute_workgroup_size_{axis}"), u64::from(size));
            }
        }
        for emitted in &lowered.kernels {
            at_least("max_compute_workgroup_storage_size", workgroup_bytes(&emitted.wgsl));
        }
        steps(plan, *context, &mut at_least);
    }
    needs
}

fn steps(plan: &Plan, context: u32, at_least: &mut impl FnMut(&str, u64)) {
    for function in plan.functions.values() {
        let rows = function.max_rows;
        let call = Call { rows, position: context.saturating_sub(rows), tile: 0 };
        for step in &function.steps {
            for binding in &step.bindings {
                at_least("max_storage_buffer_binding_size", binding.bytes);
            }
            for extent in step.grid {
                at_least("max_compute_workgroups_per_dimension", u64::from(extent.at(call)));
            }
        }
    }
}

/// Workgroup memory of a kernel; 0 for text that is no WGSL, which validation refuses.
fn workgroup_bytes(wgsl: &str) -> u64 {
    naga::front::wgsl::parse_str(wgsl).map_or(0, |module| validate::workgroup_bytes(&module))
}
