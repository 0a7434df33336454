//! Assembles a plan from scheduled functions: slots, weight segments, buffer indices, checked grids.

use std::collections::BTreeMap;

use dwindle_bundle::{
    Access, Binding, Buffer, BufferKind, Call, Code, Extent, Function, Kernel, Plan, Port, PortType, Step,
};

use super::schedule::{Bound, Place, Schedule, ScheduledPort};
use super::shared::Shared;
use super::slots::{self, Temporary};
use super::{LowerError, Lowered};
use crate::graph::{DType, Dim, Graph};
use crate::target::{Target, TargetName};

/// Makes the plan.
pub(super) fn assemble(graphs: &[Graph], schedules: Vec<Schedule>, shared: Shared<'_>) -> Result<Lowered, LowerError> {
    let (target, options) = (shared.target, shared.options);
    let lives: Vec<Vec<Temporary>> = schedules.iter().map(|s| s.temporaries.clone()).collect();
    let slots = slots::assign(&lives);
    let writable = writable_weights(&schedules, &shared);
    let Shared { mut weights, named, kernels, .. } = shared;
    weights.place(&writable, target, options.shares);

    let mut buffers = Vec::new();
    for (segment, &bytes) in weights.segments.iter().enumerate() {
        let kind = BufferKind::Weights(options.weights_entry(segment));
        buffers.push(Buffer { name: format!("weights.{segment}"), bytes, kind });
    }
    let first_named = buffers.len();
    buffers.extend(named.into_iter().map(|b| Buffer { name: b.name, bytes: b.bytes, kind: b.kind }));
    let first_slot = buffers.len();
    for (slot, &bytes) in slots.bytes.iter().enumerate() {
        buffers.push(Buffer { name: format!("scratch.{slot}"), bytes, kind: BufferKind::Scratch });
    }

    let mut functions = BTreeMap::new();
    for (index, (graph, schedule)) in graphs.iter().zip(&schedules).enumerate() {
        let binding = |bound: &Bound| {
            let (buffer, offset, bytes) = match bound.place {
                Place::Temporary(t) => (first_slot + slots.assignment[index][t], 0, bound.bytes),
                Place::Named(n) => (first_named + n, 0, bound.bytes),
                Place::Weight(w) => (weights.tensors[w].segment, weights.tensors[w].offset, weights.tensors[w].bytes),
            };
            Binding { buffer: buffer as u32, offset, bytes }
        };
        let mut steps = Vec::with_capacity(schedule.steps.len());
        for step in &schedule.steps {
            let kernel = &kernels[step.kernel];
            check_grid(&kernel.name, kernel.grid, schedule.max_rows, options.context, target)?;
            let bindings: Vec<Binding> = step.bindings.iter().map(binding).collect();
            check_accesses(&kernel.name, &bindings, &kernel.bindings, &buffers)?;
            steps.push(Step { kernel: step.kernel as u32, bindings, grid: kernel.grid });
        }
        let ports = |ports: &[ScheduledPort]| ports.iter().map(|p| port(p, first_named)).collect::<Result<Vec<_>, _>>();
        let function = Function {
            max_rows: schedule.max_rows as u32,
            inputs: ports(&schedule.inputs)?,
            outputs: ports(&schedule.outputs)?,
            steps,
        };
        if functions.insert(graph.name.clone(), function).is_some() {
            let (first, second) = ("a function".to_owned(), "another".to_owned());
            return Err(LowerError::Conflict { name: graph.name.clone(), first, second });
        }
    }

    let plan_kernels = kernels.iter().map(|k| Kernel {
        name: k.name.clone(),
        code: k.native.as_ref().map_or_else(|| code(&k.name, target.name), |native| native.to_code()),
        workgroup: k.workgroup,
        bindings: k.bindings.clone(),
    });
    let max_rows = functions.values().map(|f| f.max_rows).max().unwrap_or(1);
    let plan = Plan { max_rows, buffers, kernels: plan_kernels.collect(), functions };
    Ok(Lowered { plan, weights, kernels, scratch_lower_bound: slots::lower_bound(&lives) })
}

/// Entries of a kernel: the text, and its translation for the target.
fn code(name: &str, target: TargetName) -> Code {
    let entry = |extension: &str| format!("kernels/{name}.{extension}");
    Code::Wgsl {
        text: entry("wgsl"),
        spirv: (target == TargetName::Vulkan).then(|| entry("spv")),
        msl: (target == TargetName::Metal).then(|| entry("metal")),
    }
}

/// For each packed tensor, whether some kernel binds it as an intermediate value, which may be written.
fn writable_weights(schedules: &[Schedule], shared: &Shared<'_>) -> Vec<bool> {
    let mut writable = vec![false; shared.weights.tensors.len()];
    for step in schedules.iter().flat_map(|s| &s.steps) {
        for (bound, access) in step.bindings.iter().zip(shared.accesses(step.kernel)) {
            if let (Place::Weight(tensor), Access::ReadWrite) = (bound.place, access) {
                writable[tensor] = true;
            }
        }
    }
    writable
}

/// A port of the plan.
fn port(port: &ScheduledPort, first_named: usize) -> Result<Port, LowerError> {
    let number = |n: usize| {
        u32::try_from(n).map_err(|_| LowerError::Limit {
            what: format!("port `{}`", port.name),
            limit: "elements in a dimension",
            needed: n as u64,
            offered: u64::from(u32::MAX),
            hint: "",
        })
    };
    let columns = port.ty.shape.iter().skip(1).fold(1_usize, |product, dim| match dim {
        Dim::Fixed(n) => product.saturating_mul(*n),
        Dim::Rows => product,
    });
    Ok(Port {
        name: port.name.clone(),
        buffer: (first_named + port.buffer) as u32,
        dtype: match port.ty.dtype {
            DType::U32 => PortType::U32,
            DType::I32 => PortType::I32,
            DType::F32 | DType::F16 | DType::Bf16 => PortType::F32,
        },
        rows: match port.ty.rows() {
            Dim::Fixed(n) => Some(number(n)?),
            Dim::Rows => None,
        },
        columns: number(columns)?,
    })
}

/// Refuses grids that a device need not be able to launch, at the most rows and positions.
fn check_grid(
    kernel: &str,
    grid: [Extent; 3],
    max_rows: usize,
    context: usize,
    target: &Target,
) -> Result<(), LowerError> {
    // The last call ends at the end of the cache.
    let rows = max_rows as u32;
    let call = Call { rows, position: (context as u32).saturating_sub(rows), tile: 0 };
    for extent in grid {
        let needed = extent.at(call);
        if needed > target.max_compute_workgroups_per_dimension {
            return Err(LowerError::Limit {
                what: format!("kernel `{kernel}`"),
                limit: "max_compute_workgroups_per_dimension",
                needed: u64::from(needed),
                offered: u64::from(target.max_compute_workgroups_per_dimension),
                hint: ": compile for a shorter context",
            });
        }
    }
    Ok(())
}

/// Kernels declare read-only what is never written: such a binding takes weights alone, and no buffer is bound both ways in
/// one step.
fn check_accesses(
    kernel: &str,
    bindings: &[Binding],
    accesses: &[Access],
    buffers: &[Buffer],
) -> Result<(), LowerError> {
    for (binding, access) in bindings.iter().zip(accesses) {
        let buffer = &buffers[binding.buffer as usize];
        let other_way = |(b, a): (&Binding, &Access)| b.buffer == binding.buffer && a != access;
        let is_weights = matches!(buffer.kind, BufferKind::Weights(_));
        let wrong = (*access == Access::Read && !is_weights) || bindings.iter().zip(accesses).any(other_way);
        if wrong {
            let (first, second) =
                (format!("bound as {access:?} by kernel `{kernel}`"), "written or bound otherwise".to_owned());
            return Err(LowerError::Conflict { name: buffer.name.clone(), first, second });
        }
    }
    Ok(())
}
