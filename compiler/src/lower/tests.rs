//! Lowering of hand-built graphs, with kernels that are only outlined: names, accesses and grids, no text.

mod packing;

use dwindle_bundle::{Access, BufferKind, Extent, Plan};
use dwindle_schemes::{FloatType, Format};
use expect_test::expect;

use super::*;
use crate::graph::{
    Activation, Attention, Builder, CallScalar, DType, Epilogue, MatMul, Op, Recipe, Rope, RopeWriteKv, Type, ValueId,
};
use crate::kernels::spec::KernelSpec;
use crate::target::TargetName;

/// Names a kernel after its spec and derives what lowering needs to know of it.
fn outline(spec: &KernelSpec, _: &Target) -> Result<Emitted, EmitError> {
    use Access::{Read as R, ReadWrite as W};
    let stored = |format: Format| if matches!(format, Format::Grouped(_)) { vec![R, R] } else { vec![R] };
    let bias = |there: bool| if there { vec![R] } else { vec![] };
    let residual = |there: bool| if there { vec![W] } else { vec![] };
    let (name, bindings) = match spec {
        KernelSpec::MatMul(s) => (
            format!("matmul.{}.n{}.k{}.{}.at{}", s.format, s.n, s.k, s.rows, s.out_offset),
            [vec![W], stored(s.format), bias(s.rms_norm.is_some()), bias(s.bias), residual(s.residual), vec![W]]
                .concat(),
        ),
        KernelSpec::Embed(s) => (
            format!("embed.{}.n{}.from{}.{}", s.format, s.n, s.first_row, s.rows),
            [vec![W], stored(s.format), vec![W]].concat(),
        ),
        KernelSpec::Norm(s) => (
            format!("norm.{:?}.n{}x{}.{}", s.kind, s.heads, s.columns, s.rows),
            [vec![W, R], bias(s.kind == crate::graph::NormKind::Layer), residual(s.residual), vec![W]].concat(),
        ),
        KernelSpec::RopeWriteKv(s) => (format!("rope_write_kv.{}.{}", s.state, s.rows), vec![W, R, W, W, W]),
        KernelSpec::Attention(s) => (
            format!("attention.{}.{}.q{}+{}.k{}+{}", s.kv_type, s.rows, s.q.stride, s.q.offset, s.k.stride, s.k.offset),
            vec![W; 4],
        ),
        KernelSpec::AttentionMerge(s) => (format!("attention_merge.{}.{}", s.max_splits, s.rows), vec![W, W]),
        KernelSpec::OverlayRows(s) => (format!("overlay_rows.{}", s.rows), vec![W; 5]),
        KernelSpec::WriteRows(s) => (format!("write_rows.{}.{}", s.state, s.rows), vec![W; 2]),
        KernelSpec::Patchify(s) => (format!("patchify.{}", s.patch), vec![W; 2]),
        KernelSpec::Elementwise(s) => {
            let binary = match s.function {
                crate::kernels::spec::Elementwise::Add { broadcast }
                | crate::kernels::spec::Elementwise::Mul { broadcast } => vec![if broadcast { R } else { W }],
                _ => vec![],
            };
            (format!("elementwise.{:?}.{}", s.function, s.rows), [vec![W], binary, vec![W]].concat())
        }
        KernelSpec::Rope(s) => (format!("rope.{}", s.rows), vec![W, R, W]),
        KernelSpec::CopyRows(s) => (
            format!("copy_rows.{}+{}.{}{}", s.x.stride, s.x.offset, s.rows, if s.last { ".last" } else { "" }),
            vec![W; 2],
        ),
    };
    let grid = [Extent::Fixed(1), Extent::RowsPer(1), Extent::Fixed(1)];
    Ok(Emitted { name, wgsl: String::new(), native: None, workgroup: [64, 1, 1], bindings, grid })
}

fn options() -> LowerOptions {
    LowerOptions { entries: "models/m".to_owned(), context: 1024, max_rows: 32, kv: FloatType::F16, shares: false }
}

#[track_caller]
fn lowered(functions: &[Graph], target: &Target) -> Lowered {
    let lowered = lower(functions, &options(), target, &mut outline).unwrap();
    check_sizes(&lowered.plan, target);
    lowered
}

/// What every plan must satisfy.
#[track_caller]
fn check_sizes(plan: &Plan, target: &Target) {
    for function in plan.functions.values() {
        for step in &function.steps {
            assert_eq!(step.bindings.len(), plan.kernels[step.kernel as usize].bindings.len());
            for binding in &step.bindings {
                assert!(binding.offset + binding.bytes <= plan.buffers[binding.buffer as usize].bytes);
                assert!(binding.offset.is_multiple_of(target.min_storage_buffer_offset_alignment));
                assert!(binding.bytes <= target.max_storage_buffer_binding_size);
            }
        }
    }
    assert!(plan.buffers.iter().all(|b| b.bytes <= target.max_buffer_size && b.bytes.is_multiple_of(4)));
}

#[track_caller]
fn refused(functions: &[Graph], target: &Target, message: expect_test::Expect) {
    message.assert_eq(&lower(functions, &options(), target, &mut outline).unwrap_err().to_string());
}

fn vulkan() -> Target {
    Target::new(TargetName::Vulkan)
}

/// Stored tensors of a matrix, as weights.
fn matrix(b: &mut Builder, name: &str, format: Format, n: usize, k: usize) -> Vec<ValueId> {
    match format {
        Format::Plain(float) => vec![b.weight(name, Type::fixed(float.into(), &[n, k]))],
        Format::Grouped(g) => vec![
            b.weight(&format!("{name}.codes"), Type::fixed(DType::U32, &[n, g.words(k)])),
            b.weight(&format!("{name}.scales"), Type::fixed(g.scale.into(), &[n, g.scales(k)])),
        ],
    }
}

fn vector(b: &mut Builder, name: &str, n: usize) -> ValueId {
    b.weight(name, Type::fixed(DType::F32, &[n]))
}

const HIDDEN: usize = 48;
const VOCABULARY: usize = 100;

/// One layer of a qwen2-like model, as the passes leave it.
fn decoder(name: &str, rows: Dim, all_logits: bool, vocabulary: usize) -> Graph {
    let format: Format = "q4g32f16".parse().unwrap();
    let mut b = Builder::new(name);
    let tokens = b.input("tokens", Type { dtype: DType::U32, shape: vec![rows] });
    let table = matrix(&mut b, "embed", format, vocabulary, HIDDEN);
    let mut x = b
        .node(Op::Embed { scale: 1.0, format: Some(format), columns: HIDDEN }, &[vec![tokens], table.clone()].concat())
        [0];
    for layer in 0..2 {
        let qkv_weight = matrix(&mut b, &format!("{layer}.qkv"), format, 64, HIDDEN);
        let (norm, bias) =
            (vector(&mut b, &format!("{layer}.norm"), HIDDEN), vector(&mut b, &format!("{layer}.bias"), 64));
        let product = MatMul { format: Some(format), rms_norm: Some(1e-6), bias: true, ..MatMul::default() };
        let qkv = b.node(Op::MatMul(product), &[vec![x], qkv_weight, vec![norm, bias]].concat())[0];
        let (k, v) = (b.state(&format!("kv.{layer}.k"), 1024, 16), b.state(&format!("kv.{layer}.v"), 1024, 16));
        let position = b.call(CallScalar::Position);
        let rope = Rope { head_dim: 16, inv_freq: vec![1.0, 0.5, 0.25, 0.125, 0.1, 0.05, 0.02, 0.01], magnitude: 1.0 };
        let written = b.node(Op::RopeWriteKv(RopeWriteKv { n_heads: 2, n_kv_heads: 1, rope }), &[qkv, k, v, position]);
        let attention = Attention {
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: 16,
            scale: 0.25,
            soft_cap: None,
            window: None,
            causal: true,
        };
        let attended = b.attention(written[0], written[1], written[2], attention);
        let out = matrix(&mut b, &format!("{layer}.out"), format, HIDDEN, 32);
        let with_residual = MatMul { format: Some(format), residual: true, ..MatMul::default() };
        x = b.node(Op::MatMul(with_residual.clone()), &[vec![attended], out, vec![x]].concat())[0];
        let gate_up = matrix(&mut b, &format!("{layer}.gate_up"), format, 128, HIDDEN);
        let norm = vector(&mut b, &format!("{layer}.norm2"), HIDDEN);
        let gated = MatMul {
            format: Some(format),
            rms_norm: Some(1e-6),
            activation: Some(Epilogue::Gated(Activation::Silu)),
            ..MatMul::default()
        };
        let inner = b.node(Op::MatMul(gated), &[vec![x], gate_up, vec![norm]].concat())[0];
        let down = matrix(&mut b, &format!("{layer}.down"), format, HIDDEN, 64);
        x = b.node(Op::MatMul(with_residual), &[vec![inner], down, vec![x]].concat())[0];
    }
    if !all_logits {
        x = b.last_row(x);
    }
    let norm = vector(&mut b, "norm", HIDDEN);
    let head = MatMul { format: Some(format), rms_norm: Some(1e-6), ..MatMul::default() };
    let logits = b.node(Op::MatMul(head), &[vec![x], table, vec![norm]].concat())[0];
    let mut graph = b.finish(vec![("logits".to_owned(), logits)]);
    for node in graph.nodes.clone() {
        if let (Op::RopeWriteKv(_), [_, k, v, ..]) = (&node.op, node.operands.as_slice()) {
            for (state, result) in [(k, node.results[1]), (v, node.results[2])] {
                let name = graph.nodes.iter().find_map(|n| match &n.op {
                    Op::State { name } if n.results[0] == *state => Some(name.clone()),
                    _ => None,
                });
                graph.outputs.push((name.unwrap(), result));
            }
        }
    }
    graph
}

#[test]
fn decoder_plan() {
    let functions = [
        decoder("prefill", Dim::Rows, false, VOCABULARY),
        decoder("decode", Dim::Fixed(1), false, VOCABULARY),
        decoder("score", Dim::Rows, true, VOCABULARY),
    ];
    let lowered = lowered(&functions, &vulkan());
    expect![[r#"
        buffers
          weights.0: 25280 bytes, weights from models/m/weights.0
          logits: 12800 bytes, output
          tokens: 128 bytes, input
          kv.0.k: 32768 bytes, state
          kv.0.v: 32768 bytes, state
          kv.1.k: 32768 bytes, state
          kv.1.v: 32768 bytes, state
          scratch.0: 8192 bytes, scratch
          scratch.1: 6144 bytes, scratch
          scratch.2: 4096 bytes, scratch
        decode: at most 1 rows a call, 16 steps
          input tokens: u32[1, 1] in tokens
          embed.q4g32f16.n100.from0.1 (tokens, weights.0[0..+3200], weights.0[3328..+400], scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.1.at0 (scratch.1, weights.0[3840..+2048], weights.0[5888..+256], weights.0[6144..+192], weights.0[6400..+256], scratch.2) on 1 x rows x 1
          rope_write_kv.f16.1 (scratch.2, weights.0[6656..+32], scratch.0, kv.0.k, kv.0.v) on 1 x rows x 1
          attention.f16.1.q32+0.k16+0 (scratch.0, kv.0.k, kv.0.v, scratch.2) on 1 x rows x 1
          attention_merge.4.1 (scratch.2, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.1.at0 (scratch.0, weights.0[6912..+768], weights.0[7680..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.1.at0 (scratch.1, weights.0[7936..+4096], weights.0[12032..+512], weights.0[12544..+192], scratch.2) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.1.at0 (scratch.2, weights.0[12800..+1536], weights.0[14336..+192], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.1.at0 (scratch.1, weights.0[14592..+2048], weights.0[16640..+256], weights.0[16896..+192], weights.0[17152..+256], scratch.2) on 1 x rows x 1
          rope_write_kv.f16.1 (scratch.2, weights.0[6656..+32], scratch.0, kv.1.k, kv.1.v) on 1 x rows x 1
          attention.f16.1.q32+0.k16+0 (scratch.0, kv.1.k, kv.1.v, scratch.2) on 1 x rows x 1
          attention_merge.4.1 (scratch.2, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.1.at0 (scratch.0, weights.0[17408..+768], weights.0[18176..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.1.at0 (scratch.1, weights.0[18432..+4096], weights.0[22528..+512], weights.0[23040..+192], scratch.2) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.1.at0 (scratch.2, weights.0[23296..+1536], weights.0[24832..+192], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n100.k48.1.at0 (scratch.1, weights.0[0..+3200], weights.0[3328..+400], weights.0[25088..+192], logits) on 1 x rows x 1
          output logits: f32[1, 100] in logits
        prefill: at most 32 rows a call, 15 steps
          input tokens: u32[rows, 1] in tokens
          embed.q4g32f16.n100.from0.rows (tokens, weights.0[0..+3200], weights.0[3328..+400], scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.rows.at0 (scratch.1, weights.0[3840..+2048], weights.0[5888..+256], weights.0[6144..+192], weights.0[6400..+256], scratch.0) on 1 x rows x 1
          rope_write_kv.f16.rows (scratch.0, weights.0[6656..+32], scratch.2, kv.0.k, kv.0.v) on 1 x rows x 1
          attention.f16.rows.q32+0.k16+0 (scratch.2, kv.0.k, kv.0.v, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.rows.at0 (scratch.0, weights.0[6912..+768], weights.0[7680..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.rows.at0 (scratch.1, weights.0[7936..+4096], weights.0[12032..+512], weights.0[12544..+192], scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.rows.at0 (scratch.0, weights.0[12800..+1536], weights.0[14336..+192], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.rows.at0 (scratch.1, weights.0[14592..+2048], weights.0[16640..+256], weights.0[16896..+192], weights.0[17152..+256], scratch.0) on 1 x rows x 1
          rope_write_kv.f16.rows (scratch.0, weights.0[6656..+32], scratch.2, kv.1.k, kv.1.v) on 1 x rows x 1
          attention.f16.rows.q32+0.k16+0 (scratch.2, kv.1.k, kv.1.v, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.rows.at0 (scratch.0, weights.0[17408..+768], weights.0[18176..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.rows.at0 (scratch.1, weights.0[18432..+4096], weights.0[22528..+512], weights.0[23040..+192], scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.rows.at0 (scratch.0, weights.0[23296..+1536], weights.0[24832..+192], scratch.1, scratch.1) on 1 x rows x 1
          copy_rows.48+0.rows.last (scratch.1, scratch.2) on 1 x rows x 1
          matmul.q4g32f16.n100.k48.1.at0 (scratch.2, weights.0[0..+3200], weights.0[3328..+400], weights.0[25088..+192], logits) on 1 x rows x 1
          output logits: f32[1, 100] in logits
        score: at most 32 rows a call, 14 steps
          input tokens: u32[rows, 1] in tokens
          embed.q4g32f16.n100.from0.rows (tokens, weights.0[0..+3200], weights.0[3328..+400], scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.rows.at0 (scratch.1, weights.0[3840..+2048], weights.0[5888..+256], weights.0[6144..+192], weights.0[6400..+256], scratch.0) on 1 x rows x 1
          rope_write_kv.f16.rows (scratch.0, weights.0[6656..+32], scratch.2, kv.0.k, kv.0.v) on 1 x rows x 1
          attention.f16.rows.q32+0.k16+0 (scratch.2, kv.0.k, kv.0.v, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.rows.at0 (scratch.0, weights.0[6912..+768], weights.0[7680..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.rows.at0 (scratch.1, weights.0[7936..+4096], weights.0[12032..+512], weights.0[12544..+192], scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.rows.at0 (scratch.0, weights.0[12800..+1536], weights.0[14336..+192], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n64.k48.rows.at0 (scratch.1, weights.0[14592..+2048], weights.0[16640..+256], weights.0[16896..+192], weights.0[17152..+256], scratch.0) on 1 x rows x 1
          rope_write_kv.f16.rows (scratch.0, weights.0[6656..+32], scratch.2, kv.1.k, kv.1.v) on 1 x rows x 1
          attention.f16.rows.q32+0.k16+0 (scratch.2, kv.1.k, kv.1.v, scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k32.rows.at0 (scratch.0, weights.0[17408..+768], weights.0[18176..+96], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n128.k48.rows.at0 (scratch.1, weights.0[18432..+4096], weights.0[22528..+512], weights.0[23040..+192], scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n48.k64.rows.at0 (scratch.0, weights.0[23296..+1536], weights.0[24832..+192], scratch.1, scratch.1) on 1 x rows x 1
          matmul.q4g32f16.n100.k48.rows.at0 (scratch.1, weights.0[0..+3200], weights.0[3328..+400], weights.0[25088..+192], logits) on 1 x rows x 1
          output logits: f32[rows, 100] in logits
    "#]].assert_eq(&print_plan(&lowered.plan));
    expect![[r#"
        weights.0: 25280 bytes
          0..+3200: u32[100, 8] embed.codes[0..100]
          3328..+400: f16[100, 2] embed.scales[0..100]
          3840..+2048: u32[64, 8] 0.qkv.codes[0..64]
          5888..+256: f16[64, 2] 0.qkv.scales[0..64]
          6144..+192: f32[48, 1] 0.norm[0..48]
          6400..+256: f32[64, 1] 0.bias[0..64]
          6656..+32: f32[1, 8] f32[1.0, 0.5, 0.25, 0.125, 0.1, 0.05, 0.02, 0.01]
          6912..+768: u32[48, 4] 0.out.codes[0..48]
          7680..+96: f16[48, 1] 0.out.scales[0..48]
          7936..+4096: u32[128, 8] 0.gate_up.codes[0..128]
          12032..+512: f16[128, 2] 0.gate_up.scales[0..128]
          12544..+192: f32[48, 1] 0.norm2[0..48]
          12800..+1536: u32[48, 8] 0.down.codes[0..48]
          14336..+192: f16[48, 2] 0.down.scales[0..48]
          14592..+2048: u32[64, 8] 1.qkv.codes[0..64]
          16640..+256: f16[64, 2] 1.qkv.scales[0..64]
          16896..+192: f32[48, 1] 1.norm[0..48]
          17152..+256: f32[64, 1] 1.bias[0..64]
          17408..+768: u32[48, 4] 1.out.codes[0..48]
          18176..+96: f16[48, 1] 1.out.scales[0..48]
          18432..+4096: u32[128, 8] 1.gate_up.codes[0..128]
          22528..+512: f16[128, 2] 1.gate_up.scales[0..128]
          23040..+192: f32[48, 1] 1.norm2[0..48]
          23296..+1536: u32[48, 8] 1.down.codes[0..48]
          24832..+192: f16[48, 2] 1.down.scales[0..48]
          25088..+192: f32[48, 1] norm[0..48]
    "#]]
    .assert_eq(&print_weights(&lowered));
    expect![[r#"
        weights          25280
        states          131072
        scratch          18432  (at least 18432)
        ports            12928
        native               0
        total           187712
    "#]]
    .assert_eq(&print_memory(&lowered));
    assert_eq!(needs(&[(&lowered, 1024)])["max_storage_buffer_binding_size"], 32768);
}

/// Gemma-2B's vocabulary: sizes only, no data.
#[test]
fn large_tied_embedding_is_split_and_shared() {
    let format: Format = "q4g32f16".parse().unwrap();
    let mut b = Builder::new("score");
    let tokens = b.input("tokens", Type { dtype: DType::U32, shape: vec![Dim::Rows] });
    let table = matrix(&mut b, "embed", format, 256_000, 2048);
    let embed = Op::Embed { scale: 1.0, format: Some(format), columns: 2048 };
    let x = b.node(embed, &[vec![tokens], table.clone()].concat())[0];
    let bias = vector(&mut b, "bias", 256_000);
    let head = MatMul { format: Some(format), bias: true, ..MatMul::default() };
    let logits = b.node(Op::MatMul(head), &[vec![x], table, vec![bias]].concat())[0];
    let lowered = lowered(&[b.finish(vec![("logits".to_owned(), logits)])], &vulkan());
    expect![[r#"
        buffers
          weights.0: 132096000 bytes, weights from models/m/weights.0
          weights.1: 32768000 bytes, weights from models/m/weights.1
          weights.2: 131072000 bytes, weights from models/m/weights.2
          logits: 16384000 bytes, output
          tokens: 64 bytes, input
          scratch.0: 131072 bytes, scratch
        score: at most 16 rows a call, 4 steps
          input tokens: u32[rows, 1] in tokens
          embed.q4g32f16.n128000.from0.rows (tokens, weights.0[0..+131072000], weights.1[0..+16384000], scratch.0) on 1 x rows x 1
          embed.q4g32f16.n128000.from128000.rows (tokens, weights.2[0..+131072000], weights.1[16384000..+16384000], scratch.0) on 1 x rows x 1
          matmul.q4g32f16.n128000.k2048.rows.at0 (scratch.0, weights.0[0..+131072000], weights.1[0..+16384000], weights.0[131072000..+512000], logits) on 1 x rows x 1
          matmul.q4g32f16.n128000.k2048.rows.at128000 (scratch.0, weights.2[0..+131072000], weights.1[16384000..+16384000], weights.0[131584000..+512000], logits) on 1 x rows x 1
          output logits: f32[rows, 256000] in logits
    "#]].assert_eq(&print_plan(&lowered.plan));
    expect![[r#"
        weights.0: 132096000 bytes
          0..+131072000: u32[128000, 256] embed.codes[0..128000]
          131072000..+512000: f32[128000, 1] bias[0..128000]
          131584000..+512000: f32[128000, 1] bias[128000..256000]
        weights.1: 32768000 bytes
          0..+16384000: f16[128000, 64] embed.scales[0..128000]
          16384000..+16384000: f16[128000, 64] embed.scales[128000..256000]
        weights.2: 131072000 bytes
          0..+131072000: u32[128000, 256] embed.codes[128000..256000]
    "#]]
    .assert_eq(&print_weights(&lowered));
}

#[test]
fn views_copies_and_aliases() {
    let mut b = Builder::new("encode_image");
    let x = b.input("x", Type::fixed(DType::F32, &[5, 12]));
    let doubled = b.scale(x, 2.0);
    let (q, k, v) = (b.slice(doubled, 0, 4), b.slice(doubled, 4, 4), b.slice(doubled, 8, 4));
    let attention =
        Attention { n_heads: 1, n_kv_heads: 1, head_dim: 4, scale: 0.5, soft_cap: None, window: None, causal: false };
    let attended = b.attention(q, k, v, attention);
    // The slice of a slice is copied when an elementwise kernel needs it without gaps.
    let half = b.slice(k, 2, 2);
    let active = b.activate(half, Activation::Silu);
    let table = b.weight("position", Type::fixed(DType::F32, &[5, 4]));
    let positioned = b.add(attended, table);
    let last = b.last_row(positioned);
    let again = b.last_row(last);
    let outputs = [("sum", positioned), ("same", positioned), ("half", active), ("last", again), ("input", x)];
    let graph = b.finish(outputs.map(|(n, v)| (n.to_owned(), v)).to_vec());
    let lowered = lowered(&[graph], &vulkan());
    expect![[r#"
        buffers
          weights.0: 80 bytes, weights from models/m/weights.0
          sum: 80 bytes, output
          same: 80 bytes, output
          half: 48 bytes, output
          last: 16 bytes, output
          input: 240 bytes, output
          x: 240 bytes, input
          scratch.0: 240 bytes, scratch
          scratch.1: 80 bytes, scratch
          scratch.2: 48 bytes, scratch
        encode_image: at most 1 rows a call, 9 steps
          input x: f32[5, 12] in x
          elementwise.Scale(2.0).5 (x, scratch.0) on 1 x rows x 1
          attention.f32.5.q12+0.k12+4 (scratch.0, scratch.0, scratch.0, scratch.1) on 1 x rows x 1
          copy_rows.12+6.5 (scratch.0, scratch.2) on 1 x rows x 1
          elementwise.Activate(Silu).5 (scratch.2, half) on 1 x rows x 1
          elementwise.Add { broadcast: false }.5 (scratch.1, weights.0[0..+80], sum) on 1 x rows x 1
          copy_rows.4+0.5.last (sum, scratch.2) on 1 x rows x 1
          copy_rows.4+0.5 (sum, same) on 1 x rows x 1
          copy_rows.4+0.1 (scratch.2, last) on 1 x rows x 1
          copy_rows.12+0.5 (x, input) on 1 x rows x 1
          output sum: f32[5, 4] in sum
          output same: f32[5, 4] in same
          output half: f32[5, 2] in half
          output last: f32[1, 4] in last
          output input: f32[5, 12] in input
    "#]]
    .assert_eq(&print_plan(&lowered.plan));
}

/// A class token before the patches, and the patches alone: rows are written to their places, and copied when a kernel
/// needs them without the others.
#[test]
fn rows_joined_and_taken_out() {
    let mut b = Builder::new("encode_image");
    let x = b.input("x", Type::fixed(DType::F32, &[5, 4]));
    let class = b.weight("class", Type::fixed(DType::F32, &[1, 4]));
    let all = b.concat_rows(&[class, x]);
    let norm = vector(&mut b, "norm", 2);
    let normed = b.rms_norm_heads(all, norm, 2, 1e-6);
    let patches = b.slice_rows(normed, 1, 5);
    let y = b.activate(patches, Activation::Silu);
    let lowered = lowered(&[b.finish(vec![("y".to_owned(), y)])], &vulkan());
    expect![[r#"
        buffers
          weights.0: 16 bytes, weights from models/m/weights.0
          weights.1: 16 bytes, weights from models/m/weights.1
          y: 80 bytes, output
          x: 80 bytes, input
          scratch.0: 96 bytes, scratch
          scratch.1: 80 bytes, scratch
        encode_image: at most 1 rows a call, 5 steps
          input x: f32[5, 4] in x
          write_rows.f32.1 (weights.0[0..+16], scratch.0) on 1 x rows x 1
          write_rows.f32.5 (x, scratch.0) on 1 x rows x 1
          norm.Rms.n2x2.6 (scratch.0, weights.1[0..+16], scratch.0) on 1 x rows x 1
          copy_rows.4+4.5 (scratch.0, scratch.1) on 1 x rows x 1
          elementwise.Activate(Silu).5 (scratch.1, y) on 1 x rows x 1
          output y: f32[5, 4] in y
    "#]]
    .assert_eq(&print_plan(&lowered.plan));

    let mut b = Builder::new("f");
    let x = b.input("x", Type::matrix(Dim::Fixed(2), 8));
    let [one, two] = ["one", "two"].map(|name| b.weight(name, Type::fixed(DType::F32, &[1, 8])));
    let both = b.concat_rows(&[one, two]);
    let y = b.add(x, both);
    refused(
        &[b.finish(vec![("y".to_owned(), y)])],
        &vulkan(),
        expect![
            "function `f`, node 3: ConcatRows cannot be lowered: such rows can be joined in constants only; run the passes that fold constants"
        ],
    );
}

#[test]
fn in_place_only_where_the_operand_dies() {
    let mut b = Builder::new("f");
    let x = b.input("x", Type::matrix(Dim::Rows, 8));
    let a = b.scale(x, 2.0);
    let c = b.activate(a, Activation::Gelu);
    let d = b.add(c, a);
    let e = b.mul(d, d);
    let lowered = lowered(&[b.finish(vec![("e".to_owned(), e)])], &vulkan());
    // The input is not overwritten; c is computed beside a, which lives on; d takes c's place.
    expect![[r#"
        buffers
          e: 1024 bytes, output
          x: 1024 bytes, input
          scratch.0: 1024 bytes, scratch
          scratch.1: 1024 bytes, scratch
        f: at most 32 rows a call, 4 steps
          input x: f32[rows, 8] in x
          elementwise.Scale(2.0).rows (x, scratch.0) on 1 x rows x 1
          elementwise.Activate(Gelu).rows (scratch.0, scratch.1) on 1 x rows x 1
          elementwise.Add { broadcast: false }.rows (scratch.1, scratch.0, scratch.1) on 1 x rows x 1
          elementwise.Mul { broadcast: false }.rows (scratch.1, scratch.1, e) on 1 x rows x 1
          output e: f32[rows, 8] in e
    "#]]
    .assert_eq(&print_plan(&lowered.plan));
    assert!(lowered.plan.buffers.iter().filter(|b| b.kind == BufferKind::Scratch).count() == 2);
}

#[test]
fn unsupported_nodes_are_named() {
    let mut b = Builder::new("f");
    let stored = matrix(&mut b, "w", "q4g32f16".parse().unwrap(), 4, 32);
    let w = b.node(Op::Dequantize { format: "q4g32f16".parse().unwrap(), columns: 32 }, &stored)[0];
    refused(
        &[b.finish(vec![("w".to_owned(), w)])],
        &vulkan(),
        expect![
            "function `f`, node 2: Dequantize cannot be lowered: q4g32f16 data is read only by matrix products and embeddings; run the passes that fuse it into them"
        ],
    );

    let mut b = Builder::new("f");
    let x = b.input("x", Type::matrix(Dim::Fixed(2), 8));
    let y = b.matmul(x, x);
    refused(
        &[b.finish(vec![("y".to_owned(), y)])],
        &vulkan(),
        expect![
            "function `f`, node 1: MatMul cannot be lowered: its matrix must be constant; run the passes that fold constants"
        ],
    );

    let mut b = Builder::new("f");
    let x = b.input("x", Type::matrix(Dim::Rows, 8));
    let w = matrix(&mut b, "w", Format::Plain(FloatType::Bf16), 4, 8);
    let product = MatMul { format: Some(Format::Plain(FloatType::Bf16)), ..MatMul::default() };
    let y = b.node(Op::MatMul(product), &[x, w[0]])[0];
    refused(
        &[b.finish(vec![("y".to_owned(), y)])],
        &vulkan(),
        expect![
            "function `f`, node 2: MatMul cannot be lowered: no kernel reads bf16: quantize with a built-in scheme"
        ],
    );

    let mut b = Builder::new("f");
    let state = b.state("kv.0.k", 16, 3);
    let x = b.input("x", Type::matrix(Dim::Rows, 3));
    b.write_rows("kv.0.k", state, x, CallScalar::Position, 1, 0);
    refused(
        &[b.finish(Vec::new())],
        &vulkan(),
        expect![
            "state `kv.0.k` has 3 columns, and f16 rows must fill whole 32-bit words: use a scheme with f32 states"
        ],
    );

    let mut b = Builder::new("f");
    let state = b.state("image_rows", 16, 4);
    let x = b.input("x", Type::matrix(Dim::Rows, 4));
    b.write_rows("image_rows", state, x, CallScalar::Tile, 2, 0);
    let old = b.scale(state, 2.0);
    refused(
        &[b.finish(vec![("old".to_owned(), old)])],
        &vulkan(),
        expect![
            "function `f`, node 4: Scale cannot be lowered: it reads `image_rows` as it was before the state was written"
        ],
    );
}

#[test]
fn limits_are_named() {
    let target = Target { max_storage_buffer_binding_size: 4096, ..vulkan() };
    refused(
        &[decoder("prefill", Dim::Rows, false, VOCABULARY)],
        &target,
        expect![
            "an intermediate value of `prefill` needs max_storage_buffer_binding_size 6144, the target offers 4096: compile for fewer rows a call"
        ],
    );

    let mut b = Builder::new("f");
    let x = b.input("x", Type::matrix(Dim::Rows, 2000));
    let w = b.weight("w", Type::fixed(DType::F32, &[8, 2000]));
    let y = b.matmul(x, w);
    refused(
        &[b.finish(vec![("y".to_owned(), y)])],
        &target,
        expect![
            "buffer `x` needs max_storage_buffer_binding_size 256000, the target offers 4096: compile for fewer rows a call"
        ],
    );
}

#[test]
fn rows_of_a_call_are_limited_by_outputs() {
    let score = decoder("score", Dim::Rows, true, 1 << 18);
    let plan = lowered(&[score], &vulkan()).plan;
    assert_eq!(plan.functions["score"].max_rows, 16);
    let text = decoder("decode", Dim::Fixed(1), true, VOCABULARY);
    assert_eq!(lowered(&[text], &vulkan()).plan.functions["decode"].max_rows, 1);
}
