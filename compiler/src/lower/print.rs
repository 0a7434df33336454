//! Texts of a lowered model, for `inspect` and for tests.

use std::fmt::Write;

use dwindle_bundle::{Binding, BufferKind, Extent, Plan, Port, PortType};

use super::Lowered;

/// The plan: buffers, then each function with one line a step.
pub fn print_plan(plan: &Plan) -> String {
    let mut text = String::new();
    print_into(plan, &mut text).expect("writing into a string succeeds");
    text
}

fn print_into(plan: &Plan, text: &mut String) -> std::fmt::Result {
    writeln!(text, "buffers")?;
    for buffer in &plan.buffers {
        let kind = match &buffer.kind {
            BufferKind::Weights(entry) => format!("weights from {entry}"),
            BufferKind::State => "state".to_owned(),
            BufferKind::Scratch => "scratch".to_owned(),
            BufferKind::Input => "input".to_owned(),
            BufferKind::Output => "output".to_owned(),
        };
        writeln!(text, "  {}: {} bytes, {kind}", buffer.name, buffer.bytes)?;
    }
    for (name, function) in &plan.functions {
        let (rows, steps) = (function.max_rows, function.steps.len());
        writeln!(text, "{name}: at most {rows} rows a call, {steps} steps")?;
        for port in &function.inputs {
            writeln!(text, "  input {}", print_port(plan, port))?;
        }
        for step in &function.steps {
            let kernel = &plan.kernels[step.kernel as usize];
            let bindings: Vec<String> = step.bindings.iter().map(|b| print_binding(plan, b)).collect();
            let [x, y, z] = step.grid.map(print_extent);
            writeln!(text, "  {} ({}) on {x} x {y} x {z}", kernel.name, bindings.join(", "))?;
        }
        for port in &function.outputs {
            writeln!(text, "  output {}", print_port(plan, port))?;
        }
    }
    Ok(())
}

fn print_port(plan: &Plan, port: &Port) -> String {
    let dtype = match port.dtype {
        PortType::F32 => "f32",
        PortType::U32 => "u32",
        PortType::I32 => "i32",
    };
    let rows = port.rows.map_or("rows".to_owned(), |n| n.to_string());
    format!("{}: {dtype}[{rows}, {}] in {}", port.name, port.columns, plan.buffers[port.buffer as usize].name)
}

/// `scratch.0`, or with the range where it does not begin with the buffer: `weights.0[256..+512]`.
fn print_binding(plan: &Plan, binding: &Binding) -> String {
    let buffer = &plan.buffers[binding.buffer as usize];
    match &buffer.kind {
        BufferKind::Weights(_) => format!("{}[{}..+{}]", buffer.name, binding.offset, binding.bytes),
        _ => buffer.name.clone(),
    }
}

fn print_extent(extent: Extent) -> String {
    match extent {
        Extent::Fixed(n) => n.to_string(),
        Extent::RowsPer(1) => "rows".to_owned(),
        Extent::RowsPer(n) => format!("rows/{n}"),
        Extent::LengthPer(n) => format!("length/{n}"),
    }
}

/// What the weight buffers hold: one line a tensor.
pub fn print_weights(lowered: &Lowered) -> String {
    let mut text = String::new();
    for (segment, bytes) in lowered.weights.segments.iter().enumerate() {
        text += &format!("weights.{segment}: {bytes} bytes\n");
        for tensor in lowered.weights.of_segment(segment) {
            let padding = match tensor.padded_columns == tensor.columns {
                true => String::new(),
                false => format!(" padded to {}", tensor.padded_columns),
            };
            text += &format!(
                "  {}..+{}: {}[{}, {}]{padding} {}\n",
                tensor.offset,
                tensor.bytes,
                tensor.dtype.name(),
                tensor.rows(),
                tensor.columns,
                tensor.source
            );
        }
    }
    text
}

/// Bytes on the device by purpose, and how near the scratch slots come to what is needed at least.
pub fn print_memory(lowered: &Lowered) -> String {
    let memory = lowered.plan.memory();
    format!(
        "weights {:>14}\nstates  {:>14}\nscratch {:>14}  (at least {})\nports   {:>14}\nnative  {:>14}\ntotal   {:>14}\n",
        memory.weights,
        memory.states,
        memory.scratch,
        lowered.scratch_lower_bound,
        memory.ports,
        memory.activations,
        memory.total()
    )
}
