//! Every kernel × format × odd shape is valid WGSL, fits WebGPU's default limits, and translates.

mod decoding;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dwindle_schemes::{FloatType, Format};
use expect_test::expect;

use super::spec::*;
use super::{Emitted, KernelSpec, emit, translate, validate};
use crate::graph::{Activation, Attention, CallScalar, Dim, Epilogue, NormKind, Rope};
use crate::target::{Target, TargetName};

const FORMATS: [&str; 15] = [
    "f32",
    "f16",
    "q8g32f16",
    "q4g32f16",
    "q4g32f32",
    "q3g40f16",
    "q3g10f16",
    "q4g8f16",
    "q5g32f16",
    "q5g64f32m",
    "q6g16f16",
    "q6g32f16z",
    "q6g48f32m",
    "q4g32f16m",
    "q3g40f16m",
];

fn format(text: &str) -> Format {
    text.parse().unwrap()
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

fn attention(rows: Dim, heads: [usize; 2], head_dim: usize, kv_type: FloatType) -> AttentionSpec {
    let [n_heads, n_kv_heads] = heads;
    AttentionSpec {
        attention: Attention {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 0.125,
            soft_cap: None,
            window: None,
            causal: true,
        },
        rows,
        kv_rows: 100,
        q: View { stride: n_heads * head_dim, offset: 0 },
        k: View { stride: n_kv_heads * head_dim, offset: 0 },
        v: View { stride: n_kv_heads * head_dim, offset: 0 },
        kv_type,
        split: None,
    }
}

fn products(format: Format, specs: &mut Vec<KernelSpec>) {
    for rows in [Dim::Fixed(1), Dim::Fixed(65), Dim::Rows] {
        for (n, k) in [(1, 1), (2, 40), (63, 65), (300, 4304)] {
            let plain = matmul(format, rows, n, k);
            let activation = Some(Epilogue::Plain(Activation::Gelu));
            let mut variants = vec![
                plain.clone(),
                MatMulSpec { rms_norm: Some(1e-6), bias: true, activation, ..plain.clone() },
                MatMulSpec { soft_cap: Some(30.0), residual: true, out_columns: n + 7, out_offset: 3, ..plain.clone() },
            ];
            if n % 2 == 0 {
                let activation = Some(Epilogue::Gated(Activation::GeluTanh));
                variants.push(MatMulSpec { activation, out_columns: n / 2, bias: true, residual: true, ..plain });
            }
            specs.extend(variants.into_iter().map(KernelSpec::MatMul));
        }
    }
    for columns in [1, 65, 72] {
        let rows = Dim::Rows;
        specs.push(KernelSpec::Embed(EmbedSpec { format, rows, first_row: 10, n: 5, columns, scale: 1.5 }));
    }
}

fn attentions(specs: &mut Vec<KernelSpec>) {
    for kv_type in [FloatType::F16, FloatType::F32] {
        for (heads, head_dim) in [([8, 1], 256), ([14, 2], 64), ([4, 4], 72), ([3, 3], 6), ([2, 1], 18), ([70, 1], 8)] {
            let plain = attention(Dim::Rows, heads, head_dim, kv_type);
            let capped = Attention { soft_cap: Some(50.0), window: Some(9), ..plain.attention.clone() };
            let everything = Attention { causal: false, ..plain.attention.clone() };
            let view = View { stride: 3 * heads[1] * head_dim, offset: 2 * heads[1] * head_dim };
            specs.extend([
                KernelSpec::Attention(AttentionSpec { attention: capped.clone(), ..plain.clone() }),
                KernelSpec::Attention(AttentionSpec {
                    attention: everything,
                    rows: Dim::Fixed(100),
                    k: view,
                    v: view,
                    ..plain.clone()
                }),
                KernelSpec::Attention(AttentionSpec { rows: Dim::Fixed(1), split: Some(64), ..plain.clone() }),
                KernelSpec::Attention(AttentionSpec {
                    attention: capped,
                    rows: Dim::Fixed(1),
                    split: Some(256),
                    ..plain.clone()
                }),
                KernelSpec::Attention(plain),
                KernelSpec::AttentionMerge(AttentionMergeSpec {
                    rows: Dim::Fixed(1),
                    n_heads: heads[0],
                    head_dim,
                    split: 64,
                    max_splits: 2,
                }),
            ]);
        }
        let rope = Rope { head_dim: 6, inv_freq: vec![1.0, 0.5, 0.25], magnitude: 1.0 };
        specs.push(KernelSpec::Rope(RopeSpec { rows: Dim::Rows, n_heads: 3, rope: rope.clone() }));
        for rows in [Dim::Rows, Dim::Fixed(1)] {
            let (rope, state) = (rope.clone(), kv_type);
            specs.push(KernelSpec::RopeWriteKv(RopeWriteKvSpec { rows, n_heads: 4, n_kv_heads: 2, rope, state }));
        }
    }
    for (state, columns) in [(FloatType::F16, 6), (FloatType::F32, 6), (FloatType::F32, 7)] {
        specs.push(KernelSpec::WriteRows(WriteRowsSpec {
            rows: Dim::Fixed(4),
            columns,
            state_rows: 10,
            start: CallScalar::Tile,
            stride: 4,
            offset: 1,
            state,
        }));
    }
}

fn others(specs: &mut Vec<KernelSpec>) {
    for rows in [Dim::Fixed(1), Dim::Rows] {
        for (kind, residual) in [(NormKind::Rms, false), (NormKind::Rms, true), (NormKind::Layer, true)] {
            for heads in [1, 3] {
                specs.push(KernelSpec::Norm(NormSpec { kind, rows, heads, columns: 65, eps: 1e-5, residual }));
            }
        }
        for last in [false, true] {
            let x = View { stride: 100, offset: 30 };
            specs.push(KernelSpec::CopyRows(CopyRowsSpec { rows, x, columns: 65, last }));
        }
        specs.push(KernelSpec::OverlayRows(OverlayRowsSpec { rows, columns: 65, image_rows: 9 }));
        for function in [
            Elementwise::Add { broadcast: false },
            Elementwise::Add { broadcast: true },
            Elementwise::Mul { broadcast: false },
            Elementwise::Mul { broadcast: true },
            Elementwise::AddScalar(1.0),
            Elementwise::Scale(0.1),
            Elementwise::Activate(Activation::Gelu),
            Elementwise::Activate(Activation::GeluTanh),
            Elementwise::Activate(Activation::QuickGelu),
            Elementwise::Activate(Activation::Silu),
            Elementwise::SoftCap(30.0),
            Elementwise::Glu(Activation::Silu),
        ] {
            specs.push(KernelSpec::Elementwise(ElementwiseSpec { function, rows, columns: 65 }));
        }
    }
    specs.push(KernelSpec::Patchify(PatchifySpec { channels: 3, height: 30, width: 45, patch: 14 }));
}

fn all_specs() -> Vec<KernelSpec> {
    let mut specs = Vec::new();
    for text in FORMATS {
        products(format(text), &mut specs);
    }
    attentions(&mut specs);
    others(&mut specs);
    specs
}

#[track_caller]
fn check_spirv(directory: &Path, name: &str, words: &[u32]) {
    let file = directory.join(format!("{name}.spv"));
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(&file, bytes).unwrap();
    let Ok(output) = Command::new("spirv-val").args(["--target-env", "vulkan1.1"]).arg(&file).output() else {
        return; // Not installed: naga's own validation has to do.
    };
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn all_are_valid_and_translate() {
    let target = Target::new(TargetName::Vulkan);
    let directory = tempfile::tempdir().unwrap();
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for spec in all_specs() {
        let emitted = emit(&spec, &target).unwrap();
        let kernel = validate::validate(&emitted, &target).unwrap_or_else(|error| panic!("{error}\n{}", emitted.wgsl));
        assert!(
            emitted.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b)),
            "{} is no file name",
            emitted.name
        );
        check_spirv(directory.path(), &emitted.name, &translate::spirv(&kernel).unwrap());
        let msl = translate::msl(&kernel).unwrap();
        for index in 1..=emitted.bindings.len() {
            let unused = !msl.contains(&format!("[[buffer({index})]]"));
            assert!(!unused, "{}: binding {index} is not used\n{msl}", emitted.name);
        }
        if let Some(other) = texts.insert(emitted.name.clone(), emitted.wgsl.clone()) {
            assert_eq!(other, emitted.wgsl, "two kernels are called {}", emitted.name);
        }
    }
    assert!(texts.len() > 300, "{}", texts.len());
}

#[track_caller]
fn check_refused(spec: KernelSpec, expected: expect_test::Expect) {
    expected.assert_eq(&emit(&spec, &Target::new(TargetName::Vulkan)).unwrap_err().to_string());
}

#[test]
fn unsupported_specs_are_named() {
    let q4 = format("q4g32f16");
    check_refused(
        KernelSpec::MatMul(matmul(format("bf16"), Dim::Rows, 4, 4)),
        expect!["no matmul kernel for matrices stored as bf16: store values or scales as f16 or f32"],
    );
    let activation = Some(Epilogue::Gated(Activation::Silu));
    check_refused(
        KernelSpec::MatMul(MatMulSpec { activation, ..matmul(q4, Dim::Rows, 5, 4) }),
        expect![
            "no matmul kernel for a gated activation of 5 rows: gate and up rows alternate, so there is an even number of them"
        ],
    );
    check_refused(
        KernelSpec::MatMul(MatMulSpec { soft_cap: Some(f32::INFINITY), ..matmul(q4, Dim::Rows, 5, 4) }),
        expect!["no matmul kernel for soft_cap = inf: only finite numbers can be baked into a kernel"],
    );
    check_refused(
        KernelSpec::Attention(attention(Dim::Rows, [2, 2], 320, FloatType::F16)),
        expect!["no attention kernel for head_dim 320: heads are at most 256 wide"],
    );
    check_refused(
        KernelSpec::Attention(attention(Dim::Rows, [2, 2], 33, FloatType::F16)),
        expect![
            "no attention kernel for f16 states of 33 columns: rows must fill whole 32-bit words; choose a scheme whose kv is f32"
        ],
    );
    let spec = matmul(q4, Dim::Fixed(10), 256 * 65536, 32);
    check_refused(
        KernelSpec::MatMul(spec),
        expect![
            "kernel matmul.q4g32f16.n16777216.k32.rows10 needs 65536 workgroups in one direction, target vulkan offers 65535"
        ],
    );
}

/// The prelude alone: bodies are files of their own.
#[track_caller]
fn check_prelude(spec: KernelSpec, expected: expect_test::Expect) {
    let emitted: Emitted = emit(&spec, &Target::new(TargetName::Vulkan)).unwrap();
    let end = emitted.wgsl.find("\n\n// ").unwrap();
    expected.assert_eq(&format!("{}\ngrid {:?}\n", &emitted.wgsl[..end], emitted.grid));
}

#[test]
fn prelude_of_a_vector_kernel() {
    let spec = matmul(format("q8g32f16"), Dim::Fixed(1), 64, 96);
    let activation = Some(Epilogue::Gated(Activation::Silu));
    check_prelude(
        KernelSpec::MatMul(MatMulSpec { rms_norm: Some(1e-6), activation, out_columns: 32, ..spec }),
        expect![[r#"
            // matvec.q8g32f16.n64.k96.rms1e-6.silu_gated: generated constants and functions, then the body.
            struct Call { rows: u32, position: u32, tile: u32, reserved: u32 }
            @group(0) @binding(0) var<uniform> call: Call;
            fn rows() -> u32 { return 1u; }
            const N: u32 = 64u;
            const K: u32 = 96u;
            @group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
            @group(0) @binding(2) var<storage, read> weights: array<vec4<u32>>;
            @group(0) @binding(3) var<storage, read> scales: array<u32>;
            const ROW_BLOCKS: u32 = 6u;
            const BLOCK: u32 = 16u;
            const BLOCK_VECTORS: u32 = 4u;
            fn scale_of(row: u32, block: u32) -> f32 {
                let index = row * 3u + block / 2u;
                let pair = unpack2x16float(scales[index / 2u]);
                return select(pair.x, pair.y, index % 2u == 1u);
            }
            @group(0) @binding(4) var<storage, read> norm_weight: array<vec4<f32>>;
            @group(0) @binding(5) var<storage, read_write> y: array<f32>;
            fn x4(row: u32, column: u32) -> vec4<f32> {
                if (column >= K) { return vec4<f32>(); }
                return x[(row * K + column) / 4u];
            }
            fn norm4(column: u32) -> vec4<f32> {
                if (column >= K) { return vec4<f32>(); }
                return norm_weight[(column) / 4u];
            }

            const NORM: bool = true;
            const EPS: f32 = 1e-6f;
            fn soft_cap(x: f32) -> f32 { return x; }
            fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(min(-x, 80.0))); }
            fn silu(x: f32) -> f32 {
                return x * sigmoid(x);
            }
            fn output(t: u32, row: u32, gate: f32, up: f32) {
                let index = t * 32u + 0u + row / 2u;
                y[index] = soft_cap(silu(gate) * (up));
            }
            const LANES: u32 = 64u;
            const OUTPUTS: u32 = 8u;
            const GRID_X: u32 = 32768u;
            struct XBlock { v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>, total: f32, squares: f32 }
            fn x_block(block: u32) -> XBlock {
                var out: XBlock;
                let raw0 = x4(0u, block * BLOCK + 0u);
                out.squares += dot(raw0, raw0);
                let normed0 = raw0 * norm4(block * BLOCK + 0u);
                out.total += dot(normed0, vec4<f32>(1.0));
                out.v0 = normed0 * vec4<f32>(1.0, 0.00390625, 1.52587890625e-5, 0.00390625);
                let raw1 = x4(0u, block * BLOCK + 4u);
                out.squares += dot(raw1, raw1);
                let normed1 = raw1 * norm4(block * BLOCK + 4u);
                out.total += dot(normed1, vec4<f32>(1.0));
                out.v1 = normed1 * vec4<f32>(1.0, 0.00390625, 1.52587890625e-5, 0.00390625);
                let raw2 = x4(0u, block * BLOCK + 8u);
                out.squares += dot(raw2, raw2);
                let normed2 = raw2 * norm4(block * BLOCK + 8u);
                out.total += dot(normed2, vec4<f32>(1.0));
                out.v2 = normed2 * vec4<f32>(1.0, 0.00390625, 1.52587890625e-5, 0.00390625);
                let raw3 = x4(0u, block * BLOCK + 12u);
                out.squares += dot(raw3, raw3);
                let normed3 = raw3 * norm4(block * BLOCK + 12u);
                out.total += dot(normed3, vec4<f32>(1.0));
                out.v3 = normed3 * vec4<f32>(1.0, 0.00390625, 1.52587890625e-5, 0.00390625);
                return out;
            }
            fn values0(code: vec4<u32>, high: vec4<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.x, code.x, high.x) & vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff00u))); }
            fn values1(code: vec4<u32>, high: vec4<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.y, code.y, code.y, high.y) & vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff00u))); }
            fn values2(code: vec4<u32>, high: vec4<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.z, code.z, code.z, high.z) & vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff00u))); }
            fn values3(code: vec4<u32>, high: vec4<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.w, code.w, code.w, high.w) & vec4<u32>(0xffu, 0xff00u, 0xff0000u, 0xff00u))); }
            fn dot_block(row: u32, block: u32, x: XBlock) -> f32 {
                let code = weights[row * ROW_BLOCKS + block];
                let high = code >> vec4<u32>(16u);
                let sum = dot(values0(code, high), x.v0)
                    + dot(values1(code, high), x.v1)
                    + dot(values2(code, high), x.v2)
                    + dot(values3(code, high), x.v3);
                return scale_of(row, block) * (sum - 127.0 * x.total);
            }
            fn output_lane(first: u32, lane: u32) {
                let row = first + 2u * lane;
                if (lane < OUTPUTS / 2u && row < N) { output(0u, row, total(2u * lane), total(2u * lane + 1u)); }
            }
            grid [Fixed(8), Fixed(1), Fixed(1)]
        "#]],
    );
}

#[test]
fn prelude_of_a_matrix_kernel() {
    let spec = matmul(format("q3g40f16"), Dim::Rows, 64, 100);
    check_prelude(
        KernelSpec::MatMul(MatMulSpec { bias: true, residual: true, ..spec }),
        expect![[r#"
            // matmul.q3g40f16.n64.k100.bias.residual: generated constants and functions, then the body.
            struct Call { rows: u32, position: u32, tile: u32, reserved: u32 }
            @group(0) @binding(0) var<uniform> call: Call;
            fn rows() -> u32 { return call.rows; }
            const N: u32 = 64u;
            const K: u32 = 100u;
            @group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
            @group(0) @binding(2) var<storage, read> weights: array<vec2<u32>>;
            @group(0) @binding(3) var<storage, read> scales: array<u32>;
            const ROW_BLOCKS: u32 = 3u;
            const BLOCK: u32 = 40u;
            const BLOCK_VECTORS: u32 = 10u;
            fn scale_of(row: u32, block: u32) -> f32 {
                let index = row * 3u + block;
                let pair = unpack2x16float(scales[index / 2u]);
                return select(pair.x, pair.y, index % 2u == 1u);
            }
            @group(0) @binding(4) var<storage, read> bias: array<f32>;
            @group(0) @binding(5) var<storage, read_write> residual: array<f32>;
            @group(0) @binding(6) var<storage, read_write> y: array<f32>;
            fn x4(row: u32, column: u32) -> vec4<f32> {
                if (column >= K) { return vec4<f32>(); }
                return x[(row * K + column) / 4u];
            }

            const NORM: bool = false;
            const EPS: f32 = 0.0f;
            fn soft_cap(x: f32) -> f32 { return x; }
            fn output(t: u32, row: u32, sum: f32) {
                let index = t * 64u + 0u + row;
                y[index] = soft_cap(sum + bias[row]) + residual[index];
            }
            const LANES: u32 = 64u;
            const TILE_ROWS: u32 = 16u;
            const TILE_BLOCKS: u32 = 3u;
            fn values0(code: vec2<u32>, high: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.x, code.x, code.x) & vec4<u32>(0x7u, 0x38u, 0x1c0u, 0xe00u))); }
            fn values1(code: vec2<u32>, high: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.x, code.x, code.x, code.x) & vec4<u32>(0x7000u, 0x38000u, 0x1c0000u, 0xe00000u))); }
            fn values2(code: vec2<u32>, high: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(high.x, high.x, code.y, code.y) & vec4<u32>(0x700u, 0x3800u, 0x7u, 0x38u))); }
            fn values3(code: vec2<u32>, high: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.y, code.y, code.y, code.y) & vec4<u32>(0x1c0u, 0xe00u, 0x7000u, 0x38000u))); }
            fn values4(code: vec2<u32>, high: vec2<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(vec4<u32>(code.y, code.y, high.y, high.y) & vec4<u32>(0x1c0000u, 0xe00000u, 0x700u, 0x3800u))); }
            const FACTORS0: vec4<f32> = vec4<f32>(1.0, 0.125, 0.015625, 0.001953125);
            const FACTORS1: vec4<f32> = vec4<f32>(0.000244140625, 3.0517578125e-5, 3.814697265625e-6, 4.76837158203125e-7);
            const FACTORS2: vec4<f32> = vec4<f32>(0.00390625, 0.00048828125, 1.0, 0.125);
            const FACTORS3: vec4<f32> = vec4<f32>(0.015625, 0.001953125, 0.000244140625, 3.0517578125e-5);
            const FACTORS4: vec4<f32> = vec4<f32>(3.814697265625e-6, 4.76837158203125e-7, 0.00390625, 0.00048828125);
            fn multiply_block(row: u32, block: u32, column: u32) {
                let row0 = min(row + 0u, N - 1u);
                let scale0 = scale_of(row0, block);
                let zero0 = vec4<f32>(3.0 * scale0);
                let row1 = min(row + 1u, N - 1u);
                let scale1 = scale_of(row1, block);
                let zero1 = vec4<f32>(3.0 * scale1);
                let row2 = min(row + 2u, N - 1u);
                let scale2 = scale_of(row2, block);
                let zero2 = vec4<f32>(3.0 * scale2);
                let row3 = min(row + 3u, N - 1u);
                let scale3 = scale_of(row3, block);
                let zero3 = vec4<f32>(3.0 * scale3);
                for (var unit = 0u; unit < 2u; unit++) {
                    let code0 = weights[(row0 * ROW_BLOCKS + block) * 2u + unit];
                    let high0 = code0 >> vec2<u32>(16u);
                    let code1 = weights[(row1 * ROW_BLOCKS + block) * 2u + unit];
                    let high1 = code1 >> vec2<u32>(16u);
                    let code2 = weights[(row2 * ROW_BLOCKS + block) * 2u + unit];
                    let high2 = code2 >> vec2<u32>(16u);
                    let code3 = weights[(row3 * ROW_BLOCKS + block) * 2u + unit];
                    let high3 = code3 >> vec2<u32>(16u);
                    step(mat4x4<f32>(
                        values0(code0, high0) * (scale0 * FACTORS0) - zero0,
                        values0(code1, high1) * (scale1 * FACTORS0) - zero1,
                        values0(code2, high2) * (scale2 * FACTORS0) - zero2,
                        values0(code3, high3) * (scale3 * FACTORS0) - zero3
                    ), column + unit * 5u + 0u);
                    step(mat4x4<f32>(
                        values1(code0, high0) * (scale0 * FACTORS1) - zero0,
                        values1(code1, high1) * (scale1 * FACTORS1) - zero1,
                        values1(code2, high2) * (scale2 * FACTORS1) - zero2,
                        values1(code3, high3) * (scale3 * FACTORS1) - zero3
                    ), column + unit * 5u + 1u);
                    step(mat4x4<f32>(
                        values2(code0, high0) * (scale0 * FACTORS2) - zero0,
                        values2(code1, high1) * (scale1 * FACTORS2) - zero1,
                        values2(code2, high2) * (scale2 * FACTORS2) - zero2,
                        values2(code3, high3) * (scale3 * FACTORS2) - zero3
                    ), column + unit * 5u + 2u);
                    step(mat4x4<f32>(
                        values3(code0, high0) * (scale0 * FACTORS3) - zero0,
                        values3(code1, high1) * (scale1 * FACTORS3) - zero1,
                        values3(code2, high2) * (scale2 * FACTORS3) - zero2,
                        values3(code3, high3) * (scale3 * FACTORS3) - zero3
                    ), column + unit * 5u + 3u);
                    step(mat4x4<f32>(
                        values4(code0, high0) * (scale0 * FACTORS4) - zero0,
                        values4(code1, high1) * (scale1 * FACTORS4) - zero1,
                        values4(code2, high2) * (scale2 * FACTORS4) - zero2,
                        values4(code3, high3) * (scale3 * FACTORS4) - zero3
                    ), column + unit * 5u + 4u);
                }
            }
            fn norm_or_one(column: u32) -> vec4<f32> { return vec4<f32>(1.0); }
            fn output4(t: u32, row: u32, sums: vec4<f32>) {
                if (row < N) { output(t, row, sums.x); }
                if (row + 1u < N) { output(t, row + 1u, sums.y); }
                if (row + 2u < N) { output(t, row + 2u, sums.z); }
                if (row + 3u < N) { output(t, row + 3u, sums.w); }
            }
            grid [RowsPer(16), Fixed(1), Fixed(1)]
        "#]],
    );
}

#[test]
fn prelude_of_attention() {
    let plain = attention(Dim::Fixed(1), [8, 4], 64, FloatType::F16);
    let attention = Attention { window: Some(4096), soft_cap: Some(50.0), ..plain.attention.clone() };
    check_prelude(
        KernelSpec::Attention(AttentionSpec { attention, split: Some(64), ..plain }),
        expect![[r#"
        // attention_split.f16.heads8+4x64.scale0.125.cap50.window4096.causal.q512+0.k256+0.v256+0.of100.rows1.split64: generated constants and functions, then the body.
        struct Call { rows: u32, position: u32, tile: u32, reserved: u32 }
        @group(0) @binding(0) var<uniform> call: Call;
        fn rows() -> u32 { return 1u; }
        const LANES: u32 = 64u;
        const HEADS: u32 = 8u;
        const GROUP: u32 = 2u;
        const HEAD_DIM: u32 = 64u;
        const COLUMNS: u32 = 16u;
        const KV_ROWS: u32 = 100u;
        const SCALE: f32 = 0.125f;
        @group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
        fn q4(row: u32, head: u32, column: u32) -> vec4<f32> {
            let start = row * 512u + 0u + head * HEAD_DIM + 4u * column;
            return q[start / 4u];
        }
        @group(0) @binding(2) var<storage, read_write> k: array<vec2<u32>>;
        fn k4(row: u32, head: u32, column: u32) -> vec4<f32> {
            let start = row * 256u + 0u + head * HEAD_DIM + 4u * column;
            let words = k[start / 4u];
            return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
        }
        @group(0) @binding(3) var<storage, read_write> v: array<vec2<u32>>;
        fn v4(row: u32, head: u32, column: u32) -> vec4<f32> {
            let start = row * 256u + 0u + head * HEAD_DIM + 4u * column;
            let words = v[start / 4u];
            return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
        }
        @group(0) @binding(4) var<storage, read_write> y: array<f32>;
        fn soft_cap(x: f32) -> f32 { return 50.0f * tanh(clamp(x / 50.0f, -15.0, 15.0)); }
        fn keys_begin(t: u32) -> u32 { return max(keys_end(t), 4096u) - 4096u; }
        fn keys_end(t: u32) -> u32 { return min(call.position + t + 1u, KV_ROWS); }
        const SPLIT: u32 = 64u;
        const SPLITS: u32 = 2u;
        const LANE_GROUPS: u32 = 4u;
        const HEAD_PARTS: u32 = 1u;
        grid [LengthPer(64), Fixed(4), Fixed(1)]
    "#]],
    );
}
