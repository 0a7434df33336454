//! Every kernel × format × odd shape is valid WGSL, fits WebGPU's default limits, and translates.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dwindle_schemes::{FloatType, Format};
use expect_test::expect;

use super::spec::*;
use super::{Emitted, KernelSpec, emit, translate, validate};
use crate::graph::{Activation, Attention, CallScalar, Dim, Epilogue, NormKind, Rope};
use crate::target::{Target, TargetName};

const FORMATS: [&str; 8] = ["f32", "f16", "q8g32f16", "q4g32f16", "q4g32f32", "q3g40f16", "q3g10f16", "q4g8f16"];

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
            specs.push(KernelSpec::Norm(NormSpec { kind, rows, columns: 65, eps: 1e-5, residual }));
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

fn text(spec: KernelSpec) -> Emitted {
    emit(&spec, &Target::new(TargetName::Vulkan)).unwrap()
}

/// The prelude alone: bodies are files of their own.
fn prelude_of(emitted: &Emitted) -> String {
    emitted.wgsl.split("\n\n// ").next().unwrap().to_owned() + "\n"
}
