//! One layer of known models through the whole list: what is left, node by node.

use expect_test::{Expect, expect};

use super::*;
use crate::graph::build::Matrix;
use crate::graph::*;

/// What distinguishes the layers.
#[derive(Clone, Copy)]
struct Layer {
    /// Norm weights are stored less 1.
    one_plus: bool,
    /// Norms behind attention and MLP, too.
    post_norms: bool,
    /// q, k and v have biases.
    biased: bool,
    /// Storage of v, where it differs.
    v_format: &'static str,
}

const GEMMA: Layer = Layer { one_plus: true, post_norms: false, biased: false, v_format: "q4g32f16" };
const GEMMA2: Layer = Layer { post_norms: true, ..GEMMA };
const QWEN2: Layer = Layer { one_plus: false, biased: true, ..GEMMA };
const MIXED: Layer = Layer { v_format: "q8g32f16", ..GEMMA };

const HIDDEN: usize = 40;
const INTERMEDIATE: usize = 48;

struct Parts {
    b: Builder,
    layer: Layer,
}

impl Parts {
    fn linear(&mut self, x: ValueId, name: &str, format: &str, n: usize, k: usize) -> ValueId {
        let format: dwindle_schemes::Format = format.parse().unwrap();
        let dwindle_schemes::Format::Grouped(g) = format else { panic!("{format}") };
        let codes = self.b.weight(&format!("{name}.codes"), Type::fixed(DType::U32, &[n, g.words(k)]));
        let scales = self.b.weight(&format!("{name}.scales"), Type::fixed(DType::F16, &[n, g.scales(k)]));
        let w = self.b.dequantize(&Matrix { format, parts: vec![codes, scales], columns: k });
        self.b.matmul(x, w)
    }

    fn biased(&mut self, x: ValueId, name: &str, format: &str, n: usize) -> ValueId {
        let y = self.linear(x, name, format, n, HIDDEN);
        if !self.layer.biased {
            return y;
        }
        let bias = self.b.weight(&format!("{name}.bias"), Type::fixed(DType::F32, &[n]));
        self.b.add(y, bias)
    }

    fn norm(&mut self, x: ValueId, name: &str) -> ValueId {
        let mut weight = self.b.weight(name, Type::fixed(DType::F32, &[HIDDEN]));
        if self.layer.one_plus {
            weight = self.b.add_scalar(weight, 1.0);
        }
        self.b.rms_norm(x, weight, 1e-6)
    }

    fn post_norm(&mut self, x: ValueId, name: &str) -> ValueId {
        if self.layer.post_norms { self.norm(x, name) } else { x }
    }
}

fn graph(layer: Layer, rows: Dim) -> Graph {
    const Q4: &str = "q4g32f16";
    let mut p = Parts { b: Builder::new("layer"), layer };
    let x = p.b.input("x", Type::matrix(rows, HIDDEN));
    let normed = p.norm(x, "input_norm");
    let q = p.biased(normed, "q", Q4, 16);
    let k = p.biased(normed, "k", Q4, 8);
    let v = p.biased(normed, "v", layer.v_format, 8);
    let rope = Rope { head_dim: 8, inv_freq: vec![1.0, 0.1, 0.01, 0.001], magnitude: 1.0 };
    let q = p.b.rope(q, rope.clone());
    let k = p.b.rope(k, rope);
    let [k, v] = [("kv.0.k", k), ("kv.0.v", v)].map(|(name, rows)| {
        let state = p.b.state(name, 16, 8);
        p.b.write_rows(name, state, rows, CallScalar::Position, 1, 0)
    });
    let attention =
        Attention { n_heads: 2, n_kv_heads: 1, head_dim: 8, scale: 0.35, soft_cap: None, window: None, causal: true };
    let attended = p.b.attention(q, k, v, attention);
    let o = p.linear(attended, "o", Q4, HIDDEN, 16);
    let o = p.post_norm(o, "post_attention_norm");
    let h = p.b.add(x, o);
    let normed = p.norm(h, "mlp_norm");
    let gate = p.linear(normed, "gate", Q4, INTERMEDIATE, HIDDEN);
    let gate = p.b.activate(gate, Activation::GeluTanh);
    let up = p.linear(normed, "up", Q4, INTERMEDIATE, HIDDEN);
    let gated = p.b.mul(gate, up);
    let down = p.linear(gated, "down", Q4, HIDDEN, INTERMEDIATE);
    let down = p.post_norm(down, "post_mlp_norm");
    let y = p.b.add(h, down);
    p.b.finish(vec![("y".to_owned(), y)])
}

/// Checks which nodes that compute are left, in order.
#[track_caller]
fn check(layer: Layer, rows: Dim, expected: Expect) {
    let optimized = assert_optimizes(&graph(layer, rows));
    let text = optimized.to_string();
    let sources = [" = input ", " = state ", " = weight ", " = call "];
    let computing = text.lines().filter(|line| line.starts_with('%') && !sources.iter().any(|s| line.contains(s)));
    let names: Vec<String> = computing
        .map(|line| {
            let (_, operation) = line.split_once(" = ").unwrap();
            let name = operation.split(' ').next().unwrap();
            let attributes = operation.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let fused = attributes
                .split(", ")
                .filter(|a| ["rms_norm", "bias", "gated", "residual"].iter().any(|fused| a.starts_with(fused)));
            [name].into_iter().chain(fused).collect::<Vec<_>>().join(" ")
        })
        .collect();
    expected.assert_eq(&format!("{} nodes\n{}\n", names.len(), names.join("\n")));
}

#[test]
fn decode_layers_are_few_dispatches() {
    check(
        GEMMA,
        Dim::Fixed(1),
        expect![[r#"
        6 nodes
        matmul rms_norm=1e-6
        rope_write_kv
        attention
        matmul residual
        matmul rms_norm=1e-6 gated=gelu_tanh
        matmul residual
    "#]],
    );
    check(
        GEMMA2,
        Dim::Fixed(1),
        expect![[r#"
        8 nodes
        matmul rms_norm=1e-6
        rope_write_kv
        attention
        matmul
        rms_norm residual
        matmul rms_norm=1e-6 gated=gelu_tanh
        matmul
        rms_norm residual
    "#]],
    );
    check(
        QWEN2,
        Dim::Fixed(1),
        expect![[r#"
        6 nodes
        matmul rms_norm=1e-6 bias
        rope_write_kv
        attention
        matmul residual
        matmul rms_norm=1e-6 gated=gelu_tanh
        matmul residual
    "#]],
    );
}

#[test]
fn prefill_layers_keep_their_norms() {
    check(
        GEMMA,
        Dim::Rows,
        expect![[r#"
        8 nodes
        rms_norm
        matmul
        rope_write_kv
        attention
        matmul residual
        rms_norm
        matmul gated=gelu_tanh
        matmul residual
    "#]],
    );
}

/// q and k become one product, v its own; rotation and writes stay apart.
#[test]
fn formats_that_differ_stay_apart() {
    check(
        MIXED,
        Dim::Fixed(1),
        expect![[r#"
        12 nodes
        matmul rms_norm=1e-6
        slice
        slice
        matmul rms_norm=1e-6
        rope
        rope
        write_rows
        write_rows
        attention
        matmul residual
        matmul rms_norm=1e-6 gated=gelu_tanh
        matmul residual
    "#]],
    );
}

#[test]
fn a_whole_decode_layer() {
    expect![[r#"
        graph layer
        @0 = rope {head_dim=8, magnitude=1.0, inv_freq=[1.0, 0.1, 0.01, 0.001]}
        %0 = input x : f32[1, 40]
        %1 = weight (input_norm + 1) : f32[40]
        %2 = weight rows(q.codes, k.codes, v.codes) : u32[32, 8]
        %3 = weight rows(q.scales, k.scales, v.scales) : f16[32, 2]
        %4 = matmul %0, %2, %3, %1 {format=q4g32f16, rms_norm=1e-6} : f32[1, 32]
        %5 = call position : u32[]
        %6 = state kv.0.k : f32[16, 8]
        %7 = state kv.0.v : f32[16, 8]
        %8, %9, %10 = rope_write_kv %4, %6, %7, %5 {n_heads=2, n_kv_heads=1, rope=@0} : f32[1, 16], f32[16, 8], f32[16, 8]
        %11 = attention %8, %9, %10, %5 {n_heads=2, n_kv_heads=1, head_dim=8, scale=0.35, causal} : f32[1, 16]
        %12 = weight o.codes : u32[40, 4]
        %13 = weight o.scales : f16[40, 1]
        %14 = matmul %11, %12, %13, %0 {format=q4g32f16, residual} : f32[1, 40]
        %15 = weight (mlp_norm + 1) : f32[40]
        %16 = weight interleave(gate.codes, up.codes) : u32[96, 8]
        %17 = weight interleave(gate.scales, up.scales) : f16[96, 2]
        %18 = matmul %14, %16, %17, %15 {format=q4g32f16, rms_norm=1e-6, gated=gelu_tanh} : f32[1, 48]
        %19 = weight down.codes : u32[40, 8]
        %20 = weight down.scales : f16[40, 2]
        %21 = matmul %18, %19, %20, %14 {format=q4g32f16, residual} : f32[1, 40]
        return y=%21, kv.0.k=%9, kv.0.v=%10
    "#]].assert_eq(&assert_optimizes(&graph(GEMMA, Dim::Fixed(1))).to_string());
}
