//! Runs one kernel on the device, and one operation in the evaluator.

use std::collections::BTreeMap;

use dwindle_bundle::{
    Access, Binding, Buffer, BufferKind, Call, Code, Extent, Function, Kernel, Plan, Port, PortType, Step,
};
use dwindle_compiler::graph::eval::{Data, Evaluator, Tensor};
use dwindle_compiler::graph::recipe::{self, Tensors};
use dwindle_compiler::graph::{Builder, CallScalar, Op, Type};
use dwindle_compiler::kernels::{Emitted, KernelSpec, emit, validate};
use dwindle_compiler::target::{Target, TargetName};
use dwindle_quant::pack_codes;
use dwindle_runtime::device::gpu::{Gpu, Options};
use dwindle_runtime::{Executor, Lane};
use dwindle_schemes::{FloatType, Format, Grouped, Zero};
use half::f16;

/// Copies words, so that a test can read a buffer that is no output.
const COPY: &str = "
@group(0) @binding(0) var<uniform> call: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> target_words: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let index = id.y * groups.x * 64u + id.x;
    if (index < arrayLength(&target_words)) { target_words[index] = source[index]; }
}";

/// A device for kernels.
pub struct Bench(Gpu);

impl Bench {
    /// The device that the runtime chooses.
    pub fn open() -> Self {
        let target = dwindle_bundle::Target { name: "vulkan".to_owned(), needs: BTreeMap::new(), features: Vec::new() };
        Bench(Gpu::open(&Options::default(), &target).unwrap())
    }

    /// The kernel of `spec`, valid, with what is bound to it, ready for calls of up to `max_rows` rows.
    pub fn kernel(&self, spec: &KernelSpec, bound: &[Vec<u32>], max_rows: u32) -> Bound {
        let target = Target::new(TargetName::Vulkan);
        let emitted = emit(spec, &target).unwrap_or_else(|error| panic!("{spec:?}: {error}"));
        validate::validate(&emitted, &target).unwrap_or_else(|error| panic!("{error}"));
        Bound::new(&self.0, emitted, bound, max_rows)
    }
}

/// A kernel and its bindings: read-only ones are weights, the others inputs, each copied into an output by a second step.
pub struct Bound {
    pub name: String,
    executor: Executor,
    bound: Vec<Vec<u32>>,
}

impl Bound {
    fn new(gpu: &Gpu, emitted: Emitted, bound: &[Vec<u32>], max_rows: u32) -> Self {
        assert_eq!(bound.len(), emitted.bindings.len(), "{}", emitted.name);
        let mut entries = BTreeMap::from([
            ("copy".to_owned(), COPY.as_bytes().to_vec()),
            ("kernel".to_owned(), emitted.wgsl.into_bytes()),
        ]);
        let kernel = |name: &str, text: &str, workgroup, bindings| Kernel {
            name: name.to_owned(),
            code: Code::Wgsl { text: text.to_owned(), spirv: None, msl: None },
            workgroup,
            bindings,
        };
        let copy = kernel("copy", "copy", [64, 1, 1], vec![Access::ReadWrite; 2]);
        let mut plan = Plan {
            max_rows,
            kernels: vec![kernel(&emitted.name, "kernel", emitted.workgroup, emitted.bindings.clone()), copy],
            ..Plan::default()
        };
        let mut function = Function { max_rows, ..Function::default() };
        let mut step = Step { kernel: 0, bindings: Vec::new(), grid: emitted.grid };
        let mut copies = Vec::new();
        for (index, (words, access)) in bound.iter().zip(&emitted.bindings).enumerate() {
            let binding = |buffer| Binding { buffer, offset: 0, bytes: 4 * words.len() as u64 };
            let port = |name: &str, buffer| Port {
                name: name.to_owned(),
                buffer,
                dtype: PortType::U32,
                rows: Some(1),
                columns: words.len() as u32,
            };
            let mut add = |name: &str, kind| {
                plan.buffers.push(Buffer { name: name.to_owned(), bytes: 4 * words.len() as u64, kind });
                plan.buffers.len() as u32 - 1
            };
            let name = format!("binding{}", index + 1);
            if *access == Access::Read {
                entries.insert(name.clone(), bytemuck::cast_slice(words).to_vec());
                step.bindings.push(binding(add(&name, BufferKind::Weights(name.clone()))));
                continue;
            }
            let input = add(&name, BufferKind::Input);
            let after = format!("{name}.after");
            let output = add(&after, BufferKind::Output);
            step.bindings.push(binding(input));
            function.inputs.push(port(&name, input));
            function.outputs.push(port(&after, output));
            let groups = (words.len() as u32).div_ceil(64);
            let grid = [groups.min(1024), groups.div_ceil(1024), 1].map(Extent::Fixed);
            copies.push(Step { kernel: 1, bindings: vec![binding(input), binding(output)], grid });
        }
        function.steps = std::iter::once(step).chain(copies).collect();
        plan.functions.insert("test".to_owned(), function);
        let executor = Executor::new(gpu, &plan, &entries).unwrap_or_else(|error| panic!("{}: {error}", emitted.name));
        Bound { name: emitted.name, executor, bound: bound.to_vec() }
    }

    /// Calls the kernel with the bindings as they were given, and gives the words of binding `index` (from 1) after it.
    pub fn call(&mut self, call: Call, index: usize) -> Vec<u32> {
        let (mut states, mut workspace) = (self.executor.states().unwrap(), self.executor.workspace().unwrap());
        let inputs = self.executor.plan().functions["test"].inputs.clone();
        for port in inputs {
            let words = &self.bound[port.buffer_index()];
            self.executor.write_input("test", &port.name, words, &*workspace).unwrap();
        }
        let mut lane = Lane { states: &mut *states, workspace: &mut *workspace };
        self.executor.run("test", call, &mut lane).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        self.executor.read_output("test", &format!("binding{index}.after"), 1, &mut *workspace).unwrap()
    }
}

/// Which of the bound things a port is.
trait PortIndex {
    fn buffer_index(&self) -> usize;
}

impl PortIndex for Port {
    fn buffer_index(&self) -> usize {
        self.name["binding".len()..].parse::<usize>().unwrap() - 1
    }
}

/// Operands are inputs, so no model directory is needed.
struct NoTensors;

impl Tensors for NoTensors {
    fn stored(&self, _name: &str) -> Option<recipe::Stored<'_>> {
        None
    }
}

/// All results of `op` over these operands, and `scalar` after them if asked.
pub fn evaluate(op: Op, operands: &[Tensor], scalar: Option<CallScalar>, call: Call) -> Vec<Vec<f32>> {
    let mut builder = Builder::new("test");
    let names: Vec<String> = (0..operands.len()).map(|i| format!("operand{i}")).collect();
    let mut values: Vec<_> = names
        .iter()
        .zip(operands)
        .map(|(name, tensor)| builder.input(name, Type::fixed(tensor.dtype(), tensor.shape())))
        .collect();
    values.extend(scalar.map(|scalar| builder.call(scalar)));
    let results = builder.node(op, &values);
    let outputs: Vec<_> = results.iter().enumerate().map(|(i, &value)| (format!("result{i}"), value)).collect();
    let graph = builder.finish(outputs);
    let inputs = names.iter().map(String::as_str).zip(operands.iter().cloned()).collect();
    let outputs = Evaluator::new(&NoTensors).run(&graph, call, &inputs).unwrap();
    (0..results.len()).map(|i| outputs.floats(&format!("result{i}")).unwrap().to_vec()).collect()
}

/// Words of floats, as the device holds them.
pub fn float_words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Words of f16 pairs, or of f32.
pub fn state_words(float: FloatType, values: &[f32]) -> Vec<u32> {
    match float {
        FloatType::F32 => float_words(values),
        _ => {
            values.chunks(2).map(|pair| pack(f16::from_f32(pair[0]), pair.get(1).map(|&v| f16::from_f32(v)))).collect()
        }
    }
}

/// What [`state_words`] packed.
pub fn state_values(float: FloatType, words: &[u32]) -> Vec<f32> {
    match float {
        FloatType::F32 => words.iter().map(|&word| f32::from_bits(word)).collect(),
        _ => words
            .iter()
            .flat_map(|word| [*word as u16, (word >> 16) as u16])
            .map(|b| f16::from_bits(b).to_f32())
            .collect(),
    }
}

fn pack(low: f16, high: Option<f16>) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.unwrap_or_default().to_bits()) << 16
}

/// A stored matrix: the evaluator's operands, and the words that the device is given.
pub struct Stored {
    pub operands: Vec<Tensor>,
    pub words: Vec<Vec<u32>>,
}

/// A matrix `[n, k]` of pseudo-random values (or codes and scales) in `format`.
pub fn stored(format: Format, n: usize, k: usize, numbers: &mut Numbers) -> Stored {
    match format {
        Format::Plain(FloatType::F32) => {
            let values = numbers.floats(n * k);
            let words = padded_rows(&values, k, 4, 0.0).iter().map(|value| value.to_bits()).collect();
            Stored { operands: vec![Tensor::f32(vec![n, k], values)], words: vec![words] }
        }
        Format::Plain(_) => {
            let values: Vec<f16> = numbers.floats(n * k).into_iter().map(f16::from_f32).collect();
            let padded = padded_rows(&values, k, 8, f16::ZERO);
            let words = padded.chunks(2).map(|pair| pack(pair[0], Some(pair[1]))).collect();
            Stored { operands: vec![Tensor::new(vec![n, k], Data::F16(values)).unwrap()], words: vec![words] }
        }
        Format::Grouped(g) => {
            let codes: Vec<u32> = (0..n).flat_map(|_| code_row(&g, k, numbers)).collect();
            let positive = numbers.floats(n * g.groups(k)).into_iter().map(|v| f16::from_f32(v.abs() * 0.1 + 0.01));
            // Zeros need not be whole.
            let mut zero = || f16::from_f32((numbers.next() % (4 << g.bits)) as f32 * 0.25);
            let scales: Vec<f16> = match g.zero {
                Zero::Stored => positive.flat_map(|scale| [scale, zero()]).collect(),
                // Where a zero would be, so that values are on both sides of 0.
                Zero::Minimum => {
                    positive.flat_map(|scale| [scale, f16::from_f32(-scale.to_f32() * zero().to_f32())]).collect()
                }
                Zero::Centered | Zero::Fixed(_) => positive.collect(),
            };
            let floats: Vec<f32> = scales.iter().map(|scale| scale.to_f32()).collect();
            let (scale_words, scale_data) = match g.scale {
                FloatType::F32 => (float_words(&floats), Data::F32(floats)),
                _ => (state_words(FloatType::F16, &floats), Data::F16(scales)),
            };
            Stored {
                operands: vec![
                    Tensor::u32(vec![n, g.words(k)], codes.clone()),
                    Tensor::new(vec![n, g.scales(k)], scale_data).unwrap(),
                ],
                words: vec![codes, scale_words],
            }
        }
    }
}

/// Codes are random in the padding, too: nothing of it may reach a result.
fn code_row(g: &Grouped, k: usize, numbers: &mut Numbers) -> Vec<u32> {
    let mut words = vec![0; g.words(k)];
    let codes: Vec<u8> = (0..g.groups(k) * g.group).map(|_| (numbers.next() & g.max_code()) as u8).collect();
    pack_codes(g, &codes, &mut words).unwrap();
    words
}

fn padded_rows<T: Copy>(values: &[T], k: usize, multiple: usize, zero: T) -> Vec<T> {
    let pad = k.next_multiple_of(multiple) - k;
    values.chunks(k).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(zero, pad))).collect()
}

/// Pseudo-random numbers (xorshift64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    /// Between -1 and 1.
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next() as f32 / (1_u64 << 31) as f32 - 1.0).collect()
    }

    /// Between -1 and 1, exact in f16.
    pub fn halves(&mut self, n: usize) -> Vec<f32> {
        self.floats(n).into_iter().map(|value| f16::from_f32(value).to_f32()).collect()
    }
}

/// Fails unless all values are within `tolerance` times the root mean square of what is expected.
#[track_caller]
pub fn assert_close(name: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    let squares: f64 = expected.iter().map(|&value| f64::from(value).powi(2)).sum();
    let bound = tolerance * (squares / expected.len() as f64).sqrt() as f32 + 1e-12;
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        // Also fails for NaN.
        let close = (got - expected).abs() <= bound;
        assert!(close, "{name}: element {index} is {got}, expected {expected} ± {bound}");
    }
    assert!(got.len() >= expected.len(), "{name}: {} values, expected {}", got.len(), expected.len());
}
