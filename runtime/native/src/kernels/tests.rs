//! Every kernel × format × odd shape × instruction set × team against plain loops in f64.

mod attention;
mod guarded;

use dwindle_bundle::native::*;
use half::f16;

use super::*;
use crate::lanes::isa::InstructionSet;
use crate::memory::{ALIGNMENT, Memory};
use crate::pool::Pool;
use guarded::guarded;

/// Reproducible numbers in -1 .. 1 (a linear congruential generator, Knuth's MMIX constants).
struct Random(u64);

impl Random {
    /// Not random at all: all words have all bits, all numbers are 1.
    const GREATEST: Random = Random(u64::MAX);

    fn word(&mut self) -> u32 {
        if self.0 == Self::GREATEST.0 {
            return u32::MAX;
        }
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn float(&mut self) -> f32 {
        self.word() as f32 / (1_u64 << 31) as f32 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// A matrix in `rows16` and what it means.
struct Stored {
    matrix: Matrix,
    bindings: Vec<Vec<u8>>,
    values: Vec<f32>,
}

fn bytes_of<T: bytemuck::Pod>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Elements `[n, c]` as `rows16` lays them out.
fn rows16<T: Copy + Default>(elements: &[T], c: usize) -> Vec<T> {
    let n = elements.len() / c;
    let mut out = vec![T::default(); n.next_multiple_of(16) * c];
    for row in 0..n {
        for column in 0..c {
            out[(row / 16 * c + column) * 16 + row % 16] = elements[row * c + column];
        }
    }
    out
}

fn stored(storage: Storage, n: usize, k: usize, random: &mut Random) -> Stored {
    let matrix = Matrix { layout: Layout::Rows16, storage, n: n as u32, k: k as u32 };
    let half = |x: f32| f16::from_f32(x);
    match storage {
        Storage::Plain(Float::F32) => {
            let values = random.floats(n * k);
            Stored { matrix, bindings: vec![bytes_of(&rows16(&values, k))], values }
        }
        Storage::Plain(Float::F16) => {
            let halves: Vec<f16> = random.floats(n * k).into_iter().map(half).collect();
            let values = halves.iter().map(|x| x.to_f32()).collect();
            let bits: Vec<u16> = rows16(&halves, k).into_iter().map(f16::to_bits).collect();
            Stored { matrix, bindings: vec![bytes_of(&bits)], values }
        }
        Storage::Grouped { bits, group, scale, zero } => {
            let group = group as usize;
            let groups = k.div_ceil(group);
            let zeros: Vec<f16> = match zero.constant(bits) {
                Some(zero) => vec![half(zero as f32); n * groups],
                None if zero == Zero::Minimum => random.floats(n * groups).into_iter().map(half).collect(),
                // Not only whole ones: the format allows any.
                None => (0..n * groups).map(|_| half((random.word() % (4 << bits)) as f32 * 0.25)).collect(),
            };
            let codes: Vec<u32> = (0..n * groups * group).map(|_| random.word() & ((1 << bits) - 1)).collect();
            let scales: Vec<f16> = random.floats(n * groups).into_iter().map(half).collect();
            let mut values = Vec::with_capacity(n * k);
            for row in 0..n {
                for column in 0..k {
                    let at = row * groups + column / group;
                    let code = codes[row * groups * group + column] as f32;
                    values.push(match zero {
                        Zero::Minimum => code * scales[at].to_f32() + zeros[at].to_f32(),
                        _ => (code - zeros[at].to_f32()) * scales[at].to_f32(),
                    });
                }
            }
            // As a model directory holds them: whole codes in words, or nibbles and then the upper bits of a unit.
            let packed = |codes: &[u32], bits: u32| {
                codes.iter().enumerate().fold(0, |word, (i, code)| word | code << (bits as usize * i))
            };
            let mut words: Vec<u32> = match bits {
                5 | 6 => codes
                    .chunks(Unit::of(bits).unwrap().codes)
                    .flat_map(|codes| {
                        let nibbles: Vec<u32> = codes.iter().map(|code| code & 15).collect();
                        let upper: Vec<u32> = codes.iter().map(|code| code >> 4).collect();
                        let words: Vec<u32> = nibbles.chunks(8).map(|codes| packed(codes, 4)).collect();
                        [words, vec![packed(&upper, bits - 4)]].concat()
                    })
                    .collect(),
                _ => codes.chunks((32 / bits) as usize).map(|codes| packed(codes, bits)).collect(),
            };
            arrange(bits, &mut words);
            let words = rows16(&words, words.len() / n);
            let scales = match zero {
                Zero::Stored | Zero::Minimum => {
                    let pairs: Vec<f16> = scales.iter().zip(&zeros).flat_map(|(&s, &z)| [s, z]).collect();
                    rows16(&pairs, 2 * groups)
                }
                _ => rows16(&scales, groups),
            };
            let scales = match scale {
                Float::F16 => bytes_of(&scales.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
                Float::F32 => bytes_of(&scales.iter().map(|x| x.to_f32()).collect::<Vec<_>>()),
            };
            Stored { matrix, bindings: vec![bytes_of(&words), scales], values }
        }
    }
}

fn formats() -> Vec<Storage> {
    let with_zero = |bits, group, scale, zero| Storage::Grouped { bits, group, scale, zero };
    let grouped = |bits, group, scale| with_zero(bits, group, scale, Zero::Centered);
    vec![
        Storage::Plain(Float::F32),
        Storage::Plain(Float::F16),
        grouped(3, 40, Float::F16),
        grouped(3, 80, Float::F32),
        grouped(4, 32, Float::F16),
        grouped(4, 32, Float::F32),
        grouped(4, 8, Float::F16),
        grouped(4, 48, Float::F16),
        grouped(4, 256, Float::F16),
        grouped(8, 32, Float::F16),
        grouped(8, 4, Float::F32),
        with_zero(4, 32, Float::F16, Zero::Fixed(8)),
        with_zero(8, 32, Float::F16, Zero::Fixed(128)),
        with_zero(3, 80, Float::F16, Zero::Fixed(0)),
        with_zero(4, 128, Float::F16, Zero::Stored),
        with_zero(4, 32, Float::F32, Zero::Stored),
        with_zero(4, 8, Float::F16, Zero::Stored),
        with_zero(4, 96, Float::F32, Zero::Stored),
        with_zero(3, 40, Float::F16, Zero::Stored),
        with_zero(8, 64, Float::F16, Zero::Stored),
        // What GGUF's formats become.
        with_zero(4, 32, Float::F16, Zero::Minimum),
        with_zero(5, 32, Float::F16, Zero::Fixed(16)),
        with_zero(5, 32, Float::F16, Zero::Minimum),
        with_zero(6, 16, Float::F16, Zero::Fixed(32)),
        with_zero(4, 16, Float::F16, Zero::Fixed(4)),
        with_zero(4, 16, Float::F16, Zero::Minimum),
        grouped(5, 32, Float::F16),
        grouped(6, 32, Float::F16),
        // Everything else that there could be.
        grouped(5, 64, Float::F32),
        grouped(6, 48, Float::F16),
        with_zero(5, 96, Float::F16, Zero::Minimum),
        with_zero(5, 32, Float::F32, Zero::Stored),
        with_zero(6, 128, Float::F16, Zero::Stored),
        with_zero(6, 16, Float::F32, Zero::Minimum),
        with_zero(6, 80, Float::F16, Zero::Minimum),
        with_zero(3, 80, Float::F16, Zero::Minimum),
        with_zero(8, 4, Float::F16, Zero::Minimum),
        with_zero(8, 128, Float::F32, Zero::Minimum),
        with_zero(4, 24, Float::F16, Zero::Minimum),
        with_zero(4, 128, Float::F16, Zero::Minimum),
    ]
}

/// Runs one step on every instruction set with one and three members; all teams must agree to the bit. Gives the last binding, or
/// those named, for each instruction set.
#[track_caller]
fn run(kernel: &NativeKernel, call: Call, bindings: &[Vec<u8>], results: &[usize]) -> Vec<Vec<Vec<u8>>> {
    let needs = needs(kernel, call.rows).unwrap();
    assert_eq!(needs.len(), bindings.len());
    let pools = [Pool::new(1), Pool::new(3)];
    let mut all = Vec::new();
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
        let mut first: Option<Vec<Vec<u8>>> = None;
        for pool in &pools {
            // Whoever touches what is beyond a binding ends the test.
            let (_memories, views): (Vec<Memory>, Vec<View>) = bindings.iter().map(|b| guarded(b.len())).unzip();
            for ((view, bytes), need) in views.iter().zip(bindings).zip(&needs) {
                assert!(view.byte_len() as u64 >= need.bytes, "{} of {}", view.byte_len(), need.bytes);
                view.write(bytes);
            }
            let lengths: Vec<usize> = views.iter().map(View::byte_len).collect();
            check_call(kernel, call, &lengths).unwrap();
            let (_memory, scratch) = guarded((kernel.scratch_bytes(call.rows) as usize).next_multiple_of(ALIGNMENT));
            let step = Step { kernel: kernel.clone(), views };
            pool.run(&|member| {
                // SAFETY: the views are made as `needs` asks; only available sets are tried.
                unsafe { super::run(&Run { step: &step, call, member, scratch, set }) };
                member.barrier();
            })
            .unwrap();
            let mut out = Vec::new();
            for &index in results {
                let mut bytes = Vec::new();
                step.views[index].read_into(&mut bytes);
                out.push(bytes);
            }
            match &first {
                Some(first) => assert_eq!(first, &out, "{set}: teams of different sizes disagree"),
                None => first = Some(out),
            }
        }
        all.extend(first);
    }
    all
}

fn call(rows: usize, position: usize) -> Call {
    Call { rows: rows as u32, position: position as u32, tile: 0 }
}

#[track_caller]
fn close(found: &[u8], expected: &[f32], tolerance: f32, what: &str) {
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(found);
    assert!(found.len() >= expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{what}: element {i} is {found}, not {expected} ± {tolerance}");
    }
}

fn activated(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::GeluTanh => x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))),
        Activation::Gelu => {
            // Φ by Simpson's rule, which needs nothing that the kernel uses.
            let steps = 2000;
            let h = x / steps as f64;
            let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let weight = |i: usize| if i == 0 || i == steps { 1.0 } else { f64::from(2 + 2 * (i as u32 % 2)) };
            let sum: f64 = (0..=steps).map(|i| weight(i) * density(i as f64 * h)).sum();
            x * (0.5 + sum * h / 3.0)
        }
    }
}

/// What a product should be, and how far it may be moved by rounding activations to 8 bits, and by rounding both factors to bf16.
fn product(
    spec: &MatMul,
    stored: &Stored,
    x: &[f32],
    norm: &[f32],
    bias: &[f32],
    residual: &[f32],
) -> (Vec<f32>, [f32; 2]) {
    let (n, k) = (spec.matrix.n as usize, spec.matrix.k as usize);
    let columns = spec.out_columns as usize;
    let mut y = residual.to_vec();
    let mut errors = [1e-5 * k as f64; 2];
    for (t, row) in x.chunks(k).enumerate() {
        let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / k as f64;
        let row: Vec<f64> = match spec.rms_norm {
            Some(eps) => {
                let factor = (mean + f64::from(eps)).sqrt().recip();
                row.iter().zip(norm).map(|(&x, &w)| f64::from(x) * factor * f64::from(w)).collect()
            }
            None => row.iter().map(|&x| f64::from(x)).collect(),
        };
        let mut sums = vec![0.0; n];
        for (i, sum) in sums.iter_mut().enumerate() {
            let w = &stored.values[i * k..][..k];
            *sum = row.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>() + f64::from(bias[i]);
            if let Storage::Grouped { group, .. } = spec.matrix.storage {
                // Half a step for each value, all in the same direction.
                let group = group as usize;
                let bound: f64 = row
                    .chunks(group)
                    .zip(w.chunks(group))
                    .map(|(x, w)| {
                        let step = x.iter().fold(0.0, |m: f64, x| m.max(x.abs())) / 127.0;
                        step * 0.51 * w.iter().map(|&w| f64::from(w).abs()).sum::<f64>()
                    })
                    .sum();
                // Half of the last of eight bits, for both factors, all in the same direction.
                let tiled: f64 = row.iter().zip(w).map(|(x, &w)| (x * f64::from(w)).abs()).sum::<f64>() * 0.0079;
                errors = [errors[0].max(bound), errors[1].max(bound).max(tiled)];
            }
        }
        let capped = |value: f64| spec.soft_cap.map_or(value, |cap| f64::from(cap) * (value / f64::from(cap)).tanh());
        let width = if spec.gated { n / 2 } else { n };
        for i in 0..width {
            let value = match (spec.activation, spec.gated) {
                (None, _) => sums[i],
                (Some(f), false) => activated(f, sums[i]),
                (Some(f), true) => activated(f, sums[2 * i]) * sums[2 * i + 1],
            };
            let y = &mut y[t * columns + spec.out_offset as usize + i];
            *y = capped(value) as f32 + if spec.residual { *y } else { 0.0 };
        }
    }
    (y, errors.map(|error| error as f32))
}

fn matmul(matrix: Matrix) -> MatMul {
    MatMul {
        matrix,
        rows: None,
        rms_norm: None,
        bias: false,
        activation: None,
        gated: false,
        soft_cap: None,
        residual: false,
        out_columns: matrix.n,
        out_offset: 0,
    }
}

#[track_caller]
fn check_product(spec: MatMul, stored: &Stored, rows: usize, random: &mut Random) {
    let (n, k) = (spec.matrix.n as usize, spec.matrix.k as usize);
    let x = random.floats(rows * k);
    let norm = random.floats(k);
    let bias = if spec.bias { random.floats(n) } else { vec![0.0; n] };
    let residual = random.floats(rows * spec.out_columns as usize);
    let (expected, mut errors) = product(&spec, stored, &x, &norm, &bias, &residual);
    if spec.gated {
        // A factor's error counts as often as the other factor is great.
        let most = expected.iter().fold(0.0_f32, |most, y| most.max(y.abs())).sqrt();
        errors = errors.map(|error| error * 2.0 * (1.0 + most + error));
    }
    let mut bindings = vec![bytes_of(&x)];
    bindings.extend(stored.bindings.clone());
    bindings.extend(spec.rms_norm.map(|_| bytes_of(&norm)));
    bindings.extend(spec.bias.then(|| bytes_of(&bias)));
    bindings.extend(spec.residual.then(|| bytes_of(&residual)));
    bindings.push(bytes_of(&residual));
    let what = format!("{spec:?} of {rows} rows");
    let sets = InstructionSet::ALL.into_iter().filter(|set| set.is_available());
    for (set, found) in sets.zip(run(&NativeKernel::MatMul(spec), call(rows, 0), &bindings, &[bindings.len() - 1])) {
        let error = errors[usize::from(set.has_tiles())];
        close(&found[0], &expected, error * 1.1, &format!("{set}: {what}"));
    }
}

#[test]
fn products_of_every_format_and_odd_shape() {
    let mut random = Random(1);
    for storage in formats() {
        for (n, k) in [(1, 1), (2, 40), (16, 32), (63, 65), (33, 300), (150, 1100), (20, 7001)] {
            let stored = stored(storage, n, k, &mut random);
            for rows in [1, 2, 9, 32, 65] {
                check_product(matmul(stored.matrix), &stored, rows, &mut random);
            }
        }
    }
}

#[test]
fn greatest_codes_overflow_nothing() {
    let mut random = Random::GREATEST;
    for storage in formats() {
        let stored = stored(storage, 16, 700, &mut random);
        for rows in [1, 9] {
            check_product(matmul(stored.matrix), &stored, rows, &mut random);
        }
    }
}

#[test]
fn products_with_prologue_and_epilogue() {
    let mut random = Random(2);
    for storage in
        [Storage::Plain(Float::F16), Storage::Grouped { bits: 4, group: 32, scale: Float::F16, zero: Zero::Centered }]
    {
        let stored = stored(storage, 38, 72, &mut random);
        let plain = matmul(stored.matrix);
        let all = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];
        let mut specs = vec![
            MatMul { rms_norm: Some(1e-6), bias: true, ..plain.clone() },
            MatMul { soft_cap: Some(3.0), residual: true, out_columns: 50, out_offset: 7, ..plain.clone() },
            MatMul {
                rms_norm: Some(1e-5),
                activation: Some(Activation::GeluTanh),
                gated: true,
                residual: true,
                bias: true,
                out_columns: 19,
                ..plain.clone()
            },
        ];
        specs.extend(all.map(|f| MatMul { activation: Some(f), ..plain.clone() }));
        for spec in specs {
            for rows in [1, 3, 8, 41] {
                check_product(spec.clone(), &stored, rows, &mut random);
            }
        }
    }
}

#[test]
fn rows_of_tables() {
    let mut random = Random(3);
    for storage in formats() {
        let (n, k) = (35, 83);
        let stored = stored(storage, n, k, &mut random);
        let tokens = [10_u32, 44, 9, 45, 30];
        let kernel = NativeKernel::Embed(Embed { matrix: stored.matrix, rows: None, first_row: 10, scale: 1.5 });
        let mut expected = vec![7.0; tokens.len() * k];
        for (t, &token) in tokens.iter().enumerate() {
            if (10..45).contains(&token) {
                let row = &stored.values[(token - 10) as usize * k..][..k];
                expected[t * k..][..k].iter_mut().zip(row).for_each(|(y, x)| *y = x * 1.5);
            }
        }
        let mut bindings = vec![bytes_of(&tokens)];
        bindings.extend(stored.bindings.clone());
        bindings.push(bytes_of(&vec![7.0_f32; tokens.len() * k]));
        for found in run(&kernel, call(tokens.len(), 0), &bindings, &[bindings.len() - 1]) {
            close(&found[0], &expected, 1e-4, &format!("{storage:?}"));
        }
    }
}

#[test]
fn norms() {
    let mut random = Random(4);
    for (layer, residual, columns) in [(false, false, 64), (false, true, 65), (true, false, 1152), (true, true, 7)] {
        let rows = 3;
        let (x, weight, bias) = (random.floats(rows * columns), random.floats(columns), random.floats(columns));
        let added = random.floats(rows * columns);
        let mut expected = Vec::new();
        for (row, added) in x.chunks(columns).zip(added.chunks(columns)) {
            let mean = if layer { row.iter().map(|&x| f64::from(x)).sum::<f64>() / columns as f64 } else { 0.0 };
            let square = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / columns as f64;
            for i in 0..columns {
                let normed = (f64::from(row[i]) - mean) / (square + 1e-5).sqrt() * f64::from(weight[i]);
                let bias = if layer { f64::from(bias[i]) } else { 0.0 };
                expected.push((normed + bias + if residual { f64::from(added[i]) } else { 0.0 }) as f32);
            }
        }
        let spec = Norm { layer, rows: None, heads: 1, columns: columns as u32, eps: 1e-5, residual };
        let mut bindings = vec![bytes_of(&x), bytes_of(&weight)];
        bindings.extend(layer.then(|| bytes_of(&bias)));
        bindings.extend(residual.then(|| bytes_of(&added)));
        bindings.push(bytes_of(&x));
        for found in run(&NativeKernel::Norm(spec), call(rows, 0), &bindings, &[bindings.len() - 1]) {
            close(&found[0], &expected, 2e-5, "norm");
        }
    }
}

#[test]
fn elementwise_operations() {
    let mut random = Random(5);
    let functions = [
        Function::Add(false),
        Function::Add(true),
        Function::Mul(false),
        Function::Mul(true),
        Function::AddScalar(1.5),
        Function::Scale(-2.0),
        Function::SoftCap(2.0),
        Function::Activate(Activation::Gelu),
        Function::Glu(Activation::Silu),
    ];
    for function in functions {
        let (rows, columns) = (3, 37);
        let width = if matches!(function, Function::Glu(_)) { 2 * columns } else { columns };
        let a: Vec<f32> = random.floats(rows * width).into_iter().map(|x| 6.0 * x).collect();
        let row = matches!(function, Function::Add(true) | Function::Mul(true));
        let b = random.floats(if row { columns } else { rows * columns });
        let expected: Vec<f32> = (0..rows * columns)
            .map(|i| {
                let (x, b) = (f64::from(a[i]), f64::from(b[if row { i % columns } else { i }]));
                let y = match function {
                    Function::Add(_) => x + b,
                    Function::Mul(_) => x * b,
                    Function::AddScalar(value) => x + f64::from(value),
                    Function::Scale(factor) => x * f64::from(factor),
                    Function::SoftCap(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
                    Function::Activate(f) => activated(f, x),
                    Function::Glu(f) => activated(f, f64::from(a[2 * i])) * f64::from(a[2 * i + 1]),
                };
                y as f32
            })
            .collect();
        let mut bindings = vec![bytes_of(&a)];
        if matches!(function, Function::Add(_) | Function::Mul(_)) {
            bindings.push(bytes_of(&b));
        }
        bindings.push(vec![0; rows * columns * 4]);
        let kernel = NativeKernel::Elementwise(Elementwise { function, rows: None, columns: columns as u32 });
        for found in run(&kernel, call(rows, 0), &bindings, &[bindings.len() - 1]) {
            close(&found[0], &expected, 2e-5, &format!("{function:?}"));
        }
    }
}

#[test]
fn rows_are_moved() {
    let floats = |n: usize| (0..n).map(|i| i as f32).collect::<Vec<_>>();
    let x = floats(4 * 10);
    let view = Columns { stride: 10, offset: 3 };
    for last in [false, true] {
        let spec = CopyRows { rows: None, x: view, columns: 5, last };
        let expected: Vec<f32> = (if last { 3..4 } else { 0..4 }).flat_map(|t| x[t * 10 + 3..][..5].to_vec()).collect();
        let bindings = [bytes_of(&x), vec![0; 4 * 5 * 4]];
        for found in run(&NativeKernel::CopyRows(spec), call(4, 0), &bindings, &[1]) {
            close(&found[0], &expected, 0.0, "copy");
        }
    }
    // Rows 3 .. 7 of a state of 5: two are dropped.
    let spec = WriteRows {
        rows: None,
        columns: 10,
        state_rows: 5,
        start: Scalar::Tile,
        stride: 2,
        offset: 1,
        state: Float::F32,
    };
    let mut expected = vec![0.0; 50];
    expected[30..].copy_from_slice(&x[..20]);
    let bindings = [bytes_of(&x), vec![0; 200]];
    for found in run(&NativeKernel::WriteRows(spec), Call { tile: 1, ..call(4, 9) }, &bindings, &[1]) {
        close(&found[0], &expected, 0.0, "write");
    }
    // Row 0 stays, row 1 is a sum, row 2 refers to a row that is not there.
    let (table, index) = (floats(2 * 3), [[-1, 0, 0, 0], [1, 0, 0, 1], [0, 9, 0, 0]]);
    let weight = [[1.0_f32; 4], [0.5, 0.25, 0.0, 0.25], [1.0, 1.0, 0.0, 0.0]];
    let spec = OverlayRows { rows: None, columns: 3, image_rows: 2 };
    let expected = [0.0, 1.0, 2.0, 2.25, 3.25, 4.25, 0.0, 1.0, 2.0];
    let bindings = [
        bytes_of(&floats(9)),
        bytes_of(&table),
        bytes_of(index.as_flattened()),
        bytes_of(weight.as_flattened()),
        vec![0; 36],
    ];
    for found in run(&NativeKernel::OverlayRows(spec), call(3, 0), &bindings, &[4]) {
        close(&found[0], &expected, 1e-6, "overlay");
    }
    // 2 channels of 3 x 5 pixels in patches of 2: the last row and column are not seen.
    let spec = Patchify { channels: 2, height: 3, width: 5, patch: 2 };
    let expected = [0., 1., 5., 6., 15., 16., 20., 21., 2., 3., 7., 8., 17., 18., 22., 23.];
    let bindings = [bytes_of(&floats(30)), vec![0; 64]];
    for found in run(&NativeKernel::Patchify(spec), call(1, 0), &bindings, &[1]) {
        close(&found[0], &expected, 0.0, "patchify");
    }
}
