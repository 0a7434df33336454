//! Checks that a plan refers only to what is there, before anything is allocated for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::Entry;
use crate::plan::{Access, Binding, BufferKind, Code, Extent, Function, Kernel, Plan, Port};
use crate::work::validate_work;

/// No buffer of a real plan comes near this; sums of two such sizes cannot overflow.
const MAX_BUFFER_BYTES: u64 = 1 << 40;

/// Invocations of a workgroup that no device exceeds.
const MAX_WORKGROUP: u32 = 4096;

impl Plan {
    /// Says what is wrong with the plan, if anything is: what [`Bundle::open`](crate::Bundle::open) checks of each. `context` are the
    /// positions that a call may reach.
    ///
    /// # Errors
    /// Where and what.
    pub fn check(&self, entries: &BTreeMap<String, Entry>, context: u32) -> Result<(), String> {
        validate_plan(self, entries)?;
        validate_work(self, context)
    }
}

fn validate_plan(plan: &Plan, entries: &BTreeMap<String, Entry>) -> Result<(), String> {
    if plan.max_rows == 0 {
        return Err("max_rows is 0".to_owned());
    }
    for (name, function) in &plan.functions {
        if function.max_rows == 0 || function.max_rows > plan.max_rows {
            let (rows, most) = (function.max_rows, plan.max_rows);
            return Err(format!("function `{name}` has calls of at most {rows} rows, the plan of {most}"));
        }
    }
    let mut names = BTreeSet::new();
    for buffer in &plan.buffers {
        let place = |why: &str| Err(format!("buffer `{}` {why}", buffer.name));
        if !names.insert(&buffer.name) {
            return place("is there twice");
        }
        if buffer.bytes == 0 || !buffer.bytes.is_multiple_of(4) || buffer.bytes > MAX_BUFFER_BYTES {
            return place(&format!("has {} bytes", buffer.bytes));
        }
        if let BufferKind::Weights(entry) = &buffer.kind {
            match entries.get(entry) {
                None => return place(&format!("holds `{entry}`, which is not there")),
                Some(found) if found.bytes != buffer.bytes => {
                    return place(&format!("has {} bytes, its entry {}", buffer.bytes, found.bytes));
                }
                Some(_) => {}
            }
        }
    }
    for kernel in &plan.kernels {
        validate_kernel(kernel, entries).map_err(|why| format!("kernel `{}` {why}", kernel.name))?;
    }
    for (name, function) in &plan.functions {
        validate_function(plan, function).map_err(|why| format!("function `{name}`: {why}"))?;
    }
    Ok(())
}

fn validate_kernel(kernel: &Kernel, entries: &BTreeMap<String, Entry>) -> Result<(), String> {
    let invocations = kernel.workgroup.iter().try_fold(1u32, |product, &n| product.checked_mul(n));
    if !matches!(invocations, Some(1..=MAX_WORKGROUP)) {
        return Err(format!("has workgroups of {:?}", kernel.workgroup));
    }
    if let Code::Wgsl { text, spirv, msl } = &kernel.code {
        let mut needed = [Some(text), spirv.as_ref(), msl.as_ref()].into_iter().flatten();
        if let Some(missing) = needed.find(|&entry| !entries.contains_key(entry)) {
            return Err(format!("needs `{missing}`, which is not there"));
        }
    }
    Ok(())
}

fn validate_function(plan: &Plan, function: &Function) -> Result<(), String> {
    let ports = function.inputs.iter().map(|p| (p, BufferKind::Input));
    for (port, kind) in ports.chain(function.outputs.iter().map(|p| (p, BufferKind::Output))) {
        validate_port(plan, port, &kind, function.max_rows).map_err(|why| format!("port `{}` {why}", port.name))?;
    }
    for (index, step) in function.steps.iter().enumerate() {
        let place = |why: String| format!("step {index} {why}");
        let kernel = plan.kernels.get(step.kernel as usize).ok_or_else(|| place("has no kernel".to_owned()))?;
        if kernel.bindings.len() != step.bindings.len() {
            let (needs, has) = (kernel.bindings.len(), step.bindings.len());
            return Err(place(format!("binds {has} ranges, `{}` needs {needs}", kernel.name)));
        }
        for (binding, access) in step.bindings.iter().zip(&kernel.bindings) {
            validate_binding(plan, binding, *access).map_err(|why| place(format!("(`{}`) {why}", kernel.name)))?;
        }
        if let Some(mixed) = bound_both_ways(&step.bindings, &kernel.bindings) {
            let name = plan.buffers.get(mixed as usize).map_or("", |b| &b.name);
            return Err(place(format!("(`{}`) binds `{name}` as Read and as ReadWrite", kernel.name)));
        }
        if step.grid.iter().any(|e| matches!(e, Extent::Fixed(0) | Extent::RowsPer(0) | Extent::LengthPer(0))) {
            return Err(place(format!("has grid {:?}", step.grid)));
        }
    }
    Ok(())
}

/// A buffer of which one step binds both a range that is read only and one that may be written.
fn bound_both_ways(bindings: &[Binding], accesses: &[Access]) -> Option<u32> {
    let bound_as = |access| bindings.iter().zip(accesses).filter(move |(_, a)| **a == access).map(|(b, _)| b.buffer);
    bound_as(Access::ReadWrite).find(|buffer| bound_as(Access::Read).any(|read| read == *buffer))
}

fn validate_port(plan: &Plan, port: &Port, kind: &BufferKind, max_rows: u32) -> Result<(), String> {
    let buffer = plan.buffers.get(port.buffer as usize).ok_or("has no buffer")?;
    if buffer.kind != *kind {
        return Err(format!("lies in buffer `{}` of another kind", buffer.name));
    }
    let rows = port.rows.unwrap_or(max_rows);
    let bytes = u64::from(rows).checked_mul(u64::from(port.columns)).and_then(|values| values.checked_mul(4));
    if rows == 0 || port.columns == 0 || bytes.is_none_or(|bytes| bytes > buffer.bytes) {
        return Err(format!("has {rows} rows of {} in {} bytes", port.columns, buffer.bytes));
    }
    Ok(())
}

fn validate_binding(plan: &Plan, binding: &Binding, access: Access) -> Result<(), String> {
    let buffer = plan.buffers.get(binding.buffer as usize).ok_or("binds no buffer")?;
    let end = binding.offset.checked_add(binding.bytes);
    if binding.bytes == 0
        || !binding.bytes.is_multiple_of(4)
        || !binding.offset.is_multiple_of(4)
        || end.is_none_or(|end| end > buffer.bytes)
    {
        return Err(format!("binds {} bytes at {} of `{}`", binding.bytes, binding.offset, buffer.name));
    }
    let weights = matches!(buffer.kind, BufferKind::Weights(_));
    if access == Access::Read && !weights {
        return Err(format!("binds `{}` as {access:?}", buffer.name));
    }
    Ok(())
}
