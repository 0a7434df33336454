//! Speed of the native matrix kernels on real shapes: bytes of weights per second for one row, operations per second for many,
//! beside the memory bandwidth that as many threads read with in the same run.
//!
//! `cargo bench -p dwindle-runtime --bench native [-- FORMAT…]`. Each line is the median of some rounds. The results of one row and of many
//! are compared first: what is wrong is not timed.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use dwindle_bundle::native::{Float, Layout, MatMul, Matrix, NativeKernel, Storage, Zero};
use dwindle_bundle::{Access, Binding, Buffer, BufferKind, Call, Extent, Function, Kernel, Plan, Port, PortType, Step};
use dwindle_runtime::device::cpu::{Cpu, Options};
use dwindle_runtime::device::{Device, Workspace};
use dwindle_runtime::{Executor, Lane};

/// Weights that a round goes through, so that they come from memory and not from a cache.
const WEIGHT_BYTES: u64 = 256 << 20;
const ROUNDS: usize = 7;
/// Rows of a prefill.
const MANY: u32 = 128;

/// Gemma-2B's and Qwen2-0.5B's gate and up, down, and output of attention.
const SHAPES: [(u32, u32); 4] = [(32768, 2048), (2048, 16384), (2048, 2048), (9728, 896)];

/// The built-in schemes' formats, and what GGUF's become: each by its text in schemes.
fn formats() -> Vec<(&'static str, Storage)> {
    let grouped = |bits, group, zero| Storage::Grouped { bits, group, scale: Float::F16, zero };
    vec![
        ("q3g40f16", grouped(3, 40, Zero::Centered)),
        ("q4g32f16", grouped(4, 32, Zero::Centered)),
        ("q4g32f16m", grouped(4, 32, Zero::Minimum)),
        ("q4g16f16z4", grouped(4, 16, Zero::Fixed(4))),
        ("q4g16f16m", grouped(4, 16, Zero::Minimum)),
        ("q4g128f16z", grouped(4, 128, Zero::Stored)),
        ("q5g32f16", grouped(5, 32, Zero::Centered)),
        ("q5g32f16m", grouped(5, 32, Zero::Minimum)),
        ("q6g16f16z32", grouped(6, 16, Zero::Fixed(32))),
        ("q6g32f16", grouped(6, 32, Zero::Centered)),
        ("q8g32f16", grouped(8, 32, Zero::Centered)),
        ("f16", Storage::Plain(Float::F16)),
    ]
}

/// A plan that multiplies with as many different matrices of a shape as make [`WEIGHT_BYTES`]; gives the number, too.
fn plan(storage: Storage, n: u32, k: u32) -> (Plan, BTreeMap<String, Vec<u8>>, u64) {
    let sizes = storage.bytes(n, k).expect("the shape is possible");
    let count = (WEIGHT_BYTES / sizes.iter().sum::<u64>()).max(1);
    let mut entries = BTreeMap::new();
    let mut plan = Plan { max_rows: MANY, ..Plan::default() };
    let mut buffer = |name: String, bytes: u64, kind: BufferKind| {
        plan.buffers.push(Buffer { name, bytes, kind });
        Binding { buffer: plan.buffers.len() as u32 - 1, offset: 0, bytes }
    };
    let x = buffer("x".to_owned(), u64::from(MANY * k) * 4, BufferKind::Input);
    let y = buffer("y".to_owned(), u64::from(MANY * n) * 4, BufferKind::Output);
    let mut seed = 1_u32;
    let mut steps = Vec::new();
    for index in 0..count {
        let mut bindings = vec![x];
        for (part, &bytes) in sizes.iter().enumerate() {
            let name = format!("w{index}.{part}");
            let is_float = part == 1 || sizes.len() == 1;
            let mut next = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Floats are kept near 0.01, so that sums stay finite.
                if is_float { 0x2100_2100 | seed >> 9 & 0x007f_007f } else { seed ^ seed >> 15 }
            };
            entries.insert(name.clone(), (0..bytes / 4).flat_map(|_| next().to_le_bytes()).collect());
            bindings.push(buffer(name.clone(), bytes, BufferKind::Weights(name)));
        }
        bindings.push(y);
        steps.push(Step { kernel: 0, bindings, grid: [Extent::Fixed(1); 3] });
    }
    let kernel = NativeKernel::MatMul(MatMul {
        matrix: Matrix { layout: Layout::Rows16, storage, n, k },
        rows: None,
        rms_norm: None,
        bias: false,
        activation: None,
        gated: false,
        soft_cap: None,
        residual: false,
        out_columns: n,
        out_offset: 0,
    });
    let mut accesses = vec![Access::Read; sizes.len() + 2];
    accesses[0] = Access::ReadWrite;
    accesses[sizes.len() + 1] = Access::ReadWrite;
    plan.kernels.push(Kernel { name: "w".to_owned(), code: kernel.to_code(), workgroup: [1; 3], bindings: accesses });
    let port =
        |name: &str, buffer, columns| Port { name: name.to_owned(), buffer, dtype: PortType::F32, rows: None, columns };
    let function = Function { max_rows: MANY, inputs: vec![port("x", 0, k)], outputs: vec![port("y", 1, n)], steps };
    plan.functions.insert("run".to_owned(), function);
    (plan, entries, count)
}

fn median(mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

/// Bytes a second that this many threads read.
fn bandwidth(threads: usize) -> f64 {
    let memory: Vec<u64> = (0..WEIGHT_BYTES / 8).collect();
    let part = memory.len() / threads;
    let seconds = median(|| {
        std::thread::scope(|scope| {
            for part in memory.chunks(part) {
                // Eight sums, so that additions do not wait for each other.
                scope.spawn(|| {
                    let mut sums = [0_u64; 8];
                    for eight in part.as_chunks::<8>().0 {
                        for (sum, value) in sums.iter_mut().zip(eight) {
                            *sum = sum.wrapping_add(*value);
                        }
                    }
                    black_box(sums)
                });
            }
        });
    });
    WEIGHT_BYTES as f64 / seconds
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for threads in [1, 2] {
        let cpu =
            Cpu::open(&Options { threads: Some(threads), instruction_set: None }).expect("threads can be started");
        let read = bandwidth(threads);
        println!("{}: memory is read at {:.1} GB/s", cpu.name(), read / 1e9);
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
        for (name, storage) in formats().into_iter().filter(|(name, _)| is_wanted(name)) {
            for (n, k) in SHAPES {
                let (plan, entries, count) = plan(storage, n, k);
                let executor = Executor::new(&cpu, &plan, &entries).expect("the plan is sound");
                drop(entries);
                let mut states = executor.states().expect("there are none");
                let mut workspace = executor.workspace().expect("there is memory");
                let x: Vec<f32> = (0..MANY * k).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
                executor.write_input("run", "x", &x, &*workspace).expect("x fits");
                let call = |rows| Call { rows, ..Call::default() };
                let mut run = |rows, workspace: &mut dyn Workspace| {
                    let mut lane = Lane { states: &mut *states, workspace };
                    executor.run("run", call(rows), &mut lane).expect("it runs");
                };
                run(MANY, &mut *workspace);
                let many = executor.read_output::<f32>("run", "y", 1, &mut *workspace).expect("y is there");
                run(1, &mut *workspace);
                let one = executor.read_output::<f32>("run", "y", 1, &mut *workspace).expect("y is there");
                // Tile registers multiply many rows in bf16.
                let tolerance = if cpu.instruction_set().has_tiles() { 0.02 } else { 0.0 };
                let most = one.iter().fold(0.0_f32, |most, y| most.max(y.abs()));
                let agree = one.iter().zip(&many).all(|(one, many)| (one - many).abs() <= tolerance * most);
                assert!(agree && most.is_finite(), "one row and many disagree");

                let single = median(|| run(1, &mut *workspace));
                let bytes = (count * storage.bytes(n, k).expect("as before").iter().sum::<u64>()) as f64;
                let all = median(|| run(MANY, &mut *workspace));
                let operations = 2.0 * (count * u64::from(n) * u64::from(k) * u64::from(MANY)) as f64;
                println!(
                    "  {name:<11} {n:>5} x {k:<5}  1 row {:5.1} GB/s ({:3.0} %)  {MANY} rows {:6.0} GOP/s",
                    bytes / single / 1e9,
                    100.0 * bytes / single / read,
                    operations / all / 1e9
                );
            }
        }
    }
}
