//! Every kernel on the device against the evaluator: formats, odd shapes, numbers of rows, positions, views.

mod attention;
mod device;

use dwindle_bundle::Call;
use dwindle_compiler::graph::Dim;
use dwindle_compiler::graph::eval::Tensor;
use dwindle_compiler::graph::{Activation, CallScalar, Epilogue, MatMul, Norm, NormKind, Op};
use dwindle_compiler::kernels::KernelSpec;
use dwindle_compiler::kernels::spec::{
    CopyRowsSpec, Elementwise, ElementwiseSpec, EmbedSpec, MatMulSpec, NormSpec, OverlayRowsSpec, PatchifySpec, View,
    WriteRowsSpec,
};
use dwindle_schemes::{FloatType, Format};

use self::device::{Bench, Numbers, assert_close, evaluate, float_words, state_values, state_words, stored};
use crate::workbench::has_adapter;

/// f32 sums in another order than the evaluator's f64 sums, as a share of the results' root mean square.
const SUMS: f32 = 2e-5;
/// A few f32 operations and one function of the device.
const FUNCTIONS: f32 = 2e-6;
/// One rounding to f16.
const HALF: f32 = 2e-3;
/// Moved, not computed.
const EXACT: f32 = 0.0;

const FORMATS: [&str; 34] = [
    "f32",
    "f16",
    "q8g32f16",
    "q4g32f16",
    "q4g32f32",
    "q3g40f16",
    "q3g10f16",
    "q4g8f16",
    "q4g32f16z8",
    "q8g32f16z128",
    "q4g128f16z",
    "q4g64f16z",
    "q4g32f32z",
    "q4g8f16z",
    "q3g10f16z",
    "q8g32f16z",
    "q5g32f16",
    "q5g64f32",
    "q5g32f16z16",
    "q5g96f16z",
    "q5g32f16m",
    "q5g64f32m",
    "q6g16f16",
    "q6g32f16",
    "q6g48f32",
    "q6g16f16z32",
    "q6g64f16z",
    "q6g16f16m",
    "q6g32f32m",
    "q4g16f16z4",
    "q4g16f16m",
    "q4g32f32m",
    "q3g10f16m",
    "q8g32f16m",
];

/// Left where a kernel must not write.
const UNTOUCHED: f32 = 7.5;

fn rows_of(rows: u32, position: u32) -> Call {
    Call { rows, position, tile: 2 }
}

fn matmul(format: Format, rows: Dim, n: usize, k: usize) -> MatMulSpec {
    MatMulSpec {
        format,
        rows,
        n,
        k,
        rms_norm: None,
        bias: false,
        activation: None,
        soft_cap: None,
        residual: false,
        out_columns: n,
        out_offset: 0,
    }
}

fn check_matmul(bench: &Bench, spec: &MatMulSpec, all_rows: &[u32]) {
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let most = *all_rows.iter().max().unwrap() as usize;
    let matrix = stored(spec.format, spec.n, spec.k, &mut numbers);
    let x = numbers.floats(most * spec.k);
    let (norm, bias) = (numbers.floats(spec.k), numbers.floats(spec.n));
    let residual = numbers.floats(most * spec.out_columns);
    let mut bound = vec![float_words(&x)];
    bound.extend(matrix.words);
    bound.extend(spec.rms_norm.map(|_| float_words(&norm)));
    bound.extend(spec.bias.then(|| float_words(&bias)));
    bound.extend(spec.residual.then(|| float_words(&residual)));
    bound.push(vec![UNTOUCHED.to_bits(); most * spec.out_columns]);
    let mut kernel = bench.kernel(&KernelSpec::MatMul(spec.clone()), &bound, most as u32);
    let columns = if matches!(spec.activation, Some(Epilogue::Gated(_))) { spec.n / 2 } else { spec.n };
    let part = spec.out_offset..spec.out_offset + columns;
    for &rows in all_rows {
        let got = state_values(FloatType::F32, &kernel.call(rows_of(rows, 0), bound.len()));
        let rows = rows as usize;
        let mut operands = vec![Tensor::f32(vec![rows, spec.k], x[..rows * spec.k].to_vec())];
        operands.extend(matrix.operands.iter().cloned());
        operands.extend(spec.rms_norm.map(|_| Tensor::f32(vec![spec.k], norm.clone())));
        operands.extend(spec.bias.then(|| Tensor::f32(vec![spec.n], bias.clone())));
        operands.extend(spec.residual.then(|| {
            let kept = residual.chunks(spec.out_columns).take(rows).flat_map(|row| &row[part.clone()]).copied();
            Tensor::f32(vec![rows, columns], kept.collect())
        }));
        let op = Op::MatMul(MatMul {
            format: Some(spec.format),
            rms_norm: spec.rms_norm,
            bias: spec.bias,
            activation: spec.activation,
            soft_cap: spec.soft_cap,
            residual: spec.residual,
        });
        let product = evaluate(op, &operands, None, rows_of(rows as u32, 0)).remove(0);
        let mut expected = vec![UNTOUCHED; most * spec.out_columns];
        for (row, product) in expected.chunks_mut(spec.out_columns).zip(product.chunks(columns)) {
            row[part.clone()].copy_from_slice(product);
        }
        assert_close(&format!("{} of {rows} rows", kernel.name), &got, &expected, SUMS);
    }
}

#[test]
fn products() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let gated = Some(Epilogue::Gated(Activation::GeluTanh));
    for format in FORMATS.map(|text| text.parse().unwrap()) {
        for (rows, all_rows) in [(Dim::Fixed(1), &[1][..]), (Dim::Rows, &[1, 2, 63, 65])] {
            check_matmul(&bench, &matmul(format, rows, 1, 1), all_rows);
            let spec = matmul(format, rows, 300, 90);
            check_matmul(&bench, &MatMulSpec { activation: gated, bias: true, out_columns: 150, ..spec }, all_rows);
            let spec = matmul(format, rows, 63, 600);
            let part = MatMulSpec { soft_cap: Some(3.0), residual: true, out_columns: 70, out_offset: 3, ..spec };
            check_matmul(&bench, &part, all_rows);
            let spec = matmul(format, rows, 17, 65);
            let activation = Some(Epilogue::Plain(Activation::Gelu));
            check_matmul(&bench, &MatMulSpec { rms_norm: Some(1e-5), activation, ..spec }, all_rows);
        }
    }
    let spec = matmul("q4g32f16".parse().unwrap(), Dim::Fixed(65), 63, 64);
    check_matmul(&bench, &MatMulSpec { rms_norm: Some(1e-6), bias: true, ..spec }, &[65]);
}

#[test]
fn embeddings() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let mut numbers = Numbers(1);
    let tokens = [10, 14, 12, 9, 15, 0];
    for format in FORMATS.map(|text| text.parse().unwrap()) {
        for columns in [1, 65, 130] {
            let table = stored(format, 5, columns, &mut numbers);
            let mut bound = vec![tokens.to_vec()];
            bound.extend(table.words);
            bound.push(vec![UNTOUCHED.to_bits(); tokens.len() * columns]);
            let spec = EmbedSpec { format, rows: Dim::Rows, first_row: 10, n: 5, columns, scale: 1.5 };
            let mut kernel = bench.kernel(&KernelSpec::Embed(spec), &bound, tokens.len() as u32);
            let got = state_values(FloatType::F32, &kernel.call(rows_of(6, 0), bound.len()));
            // The first three tokens are of this part of the table.
            let mut operands = vec![Tensor::u32(vec![3], tokens[..3].iter().map(|token| token - 10).collect())];
            operands.extend(table.operands);
            let op = Op::Embed { scale: 1.5, format: Some(format), columns };
            let mut expected = evaluate(op, &operands, None, rows_of(3, 0)).remove(0);
            expected.resize(tokens.len() * columns, UNTOUCHED);
            assert_close(&kernel.name, &got, &expected, FUNCTIONS);
        }
    }
}

#[test]
fn norms() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let mut numbers = Numbers(2);
    for (kind, columns, heads, residual) in [
        (NormKind::Rms, 65, 1, false),
        (NormKind::Rms, 1, 1, true),
        (NormKind::Rms, 8, 3, false),
        (NormKind::Layer, 130, 1, true),
        (NormKind::Layer, 7, 1, false),
    ] {
        let rows = 65;
        let shape = vec![rows, heads * columns];
        let x: Vec<f32> = numbers.floats(rows * heads * columns).iter().map(|value| value + 3.0).collect();
        let mut operands = vec![Tensor::f32(shape.clone(), x), Tensor::f32(vec![columns], numbers.floats(columns))];
        if kind == NormKind::Layer {
            operands.push(Tensor::f32(vec![columns], numbers.floats(columns)));
        }
        if residual {
            operands.push(Tensor::f32(shape, numbers.floats(rows * heads * columns)));
        }
        let eps = 1e-5;
        let spec = NormSpec { kind, rows: Dim::Rows, columns, heads, eps, residual };
        check_floats(&bench, KernelSpec::Norm(spec), Op::Norm(Norm { kind, eps, heads, residual }), &operands, SUMS);
    }
}

/// A kernel whose bindings are the operation's operands, all floats (or indices), then the result.
#[track_caller]
fn check_floats(bench: &Bench, spec: KernelSpec, op: Op, operands: &[Tensor], tolerance: f32) {
    let rows = operands[0].rows() as u32;
    let expected = evaluate(op, operands, None, rows_of(rows, 0)).remove(0);
    let words = |tensor: &Tensor| match tensor.indices() {
        Ok(indices) => bytemuck::cast_slice(indices).to_vec(),
        Err(_) => float_words(tensor.floats().unwrap()),
    };
    let mut bound: Vec<Vec<u32>> = operands.iter().map(words).collect();
    bound.push(vec![0; expected.len()]);
    let mut kernel = bench.kernel(&spec, &bound, rows);
    let got = state_values(FloatType::F32, &kernel.call(rows_of(rows, 0), bound.len()));
    assert_close(&kernel.name, &got, &expected, tolerance);
}

#[test]
fn elementwise() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let mut numbers = Numbers(3);
    let (rows, columns) = (3, 65);
    let mut a: Vec<f32> = numbers.floats(rows * columns * 2).iter().map(|value| value * 6.0).collect();
    // What overflows where exp and tanh are not bounded.
    a[..6].copy_from_slice(&[1e4, -1e4, 0.0, 100.0, -100.0, 1e-20]);
    let wide = Tensor::f32(vec![rows, 2 * columns], a.clone());
    a.truncate(rows * columns);
    let a = Tensor::f32(vec![rows, columns], a);
    let b = Tensor::f32(vec![rows, columns], numbers.floats(rows * columns));
    let row = Tensor::f32(vec![columns], numbers.floats(columns));
    let check = |function, op, operands: &[&Tensor]| {
        let operands: Vec<Tensor> = operands.iter().map(|&tensor| tensor.clone()).collect();
        let spec = ElementwiseSpec { function, rows: Dim::Rows, columns };
        check_floats(&bench, KernelSpec::Elementwise(spec), op, &operands, FUNCTIONS);
    };
    check(Elementwise::Add { broadcast: false }, Op::Add, &[&a, &b]);
    check(Elementwise::Add { broadcast: true }, Op::Add, &[&a, &row]);
    check(Elementwise::Mul { broadcast: false }, Op::Mul, &[&a, &b]);
    check(Elementwise::Mul { broadcast: true }, Op::Mul, &[&a, &row]);
    check(Elementwise::AddScalar(1.5), Op::AddScalar { value: 1.5 }, &[&a]);
    check(Elementwise::Scale(0.1), Op::Scale { factor: 0.1 }, &[&a]);
    check(Elementwise::SoftCap(30.0), Op::SoftCap { cap: 30.0 }, &[&a]);
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
        check(Elementwise::Activate(activation), Op::Activate(activation), &[&a]);
        check(Elementwise::Glu(activation), Op::Glu(activation), &[&wide]);
    }
}

#[test]
fn rows() {
    if !has_adapter() {
        return;
    }
    let bench = Bench::open();
    let mut numbers = Numbers(4);
    for (state, columns) in [(FloatType::F16, 6), (FloatType::F32, 6), (FloatType::F32, 7)] {
        for start in [CallScalar::Position, CallScalar::Tile] {
            // Rows 9 .. 13 of 13, or 1 .. 5.
            let (before, x) = (numbers.halves(13 * columns), numbers.halves(4 * columns));
            let bound = [float_words(&x), state_words(state, &before)];
            let spec =
                WriteRowsSpec { rows: Dim::Fixed(4), columns, state_rows: 13, start, stride: 4, offset: 1, state };
            let mut kernel = bench.kernel(&KernelSpec::WriteRows(spec), &bound, 1);
            let got = state_values(state, &kernel.call(rows_of(1, 0), 2));
            let operands = [Tensor::f32(vec![13, columns], before), Tensor::f32(vec![4, columns], x)];
            let op = Op::WriteRows { stride: 4, offset: 1 };
            let expected = evaluate(op, &operands, Some(start), rows_of(1, 0)).remove(0);
            assert_close(&kernel.name, &got, &expected, EXACT);
        }
    }
    for rows in [1, 65] {
        let x = Tensor::f32(vec![rows, 100], numbers.floats(rows * 100));
        let slice = CopyRowsSpec { rows: Dim::Rows, x: View { stride: 100, offset: 30 }, columns: 65, last: false };
        let last = CopyRowsSpec { x: View { stride: 100, offset: 0 }, columns: 100, last: true, ..slice.clone() };
        let op = Op::Slice { start: 30, len: 65 };
        check_floats(&bench, KernelSpec::CopyRows(slice), op, std::slice::from_ref(&x), EXACT);
        check_floats(&bench, KernelSpec::CopyRows(last), Op::LastRow, &[x], EXACT);
    }
    let indices = vec![-1, 0, 0, 0, 3, 8, 0, 2, 1, 1, 1, 1];
    let operands = [
        Tensor::f32(vec![3, 65], numbers.floats(3 * 65)),
        Tensor::f32(vec![9, 65], numbers.floats(9 * 65)),
        Tensor::i32(vec![3, 4], indices),
        Tensor::f32(vec![3, 4], numbers.floats(12)),
    ];
    let spec = OverlayRowsSpec { rows: Dim::Rows, columns: 65, image_rows: 9 };
    check_floats(&bench, KernelSpec::OverlayRows(spec), Op::OverlayRows, &operands, FUNCTIONS);
    let pixels = Tensor::f32(vec![3, 28 * 42], numbers.floats(3 * 28 * 42));
    let spec = PatchifySpec { channels: 3, height: 28, width: 42, patch: 14 };
    let op = Op::Patchify { height: 28, width: 42, patch: 14 };
    check_floats(&bench, KernelSpec::Patchify(spec), op, &[pixels], EXACT);
}
