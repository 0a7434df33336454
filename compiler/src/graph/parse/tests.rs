//! Graphs survive printing and parsing; texts that are no graphs give errors with places.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

/// A graph with one node of each operation; the types need not fit, which is `verify`'s business.
fn zoo() -> Graph {
    let mut graph = Graph { name: "prefill".into(), ..Graph::default() };
    let rope = |last: f32| Rope { head_dim: 4, inv_freq: vec![1.0, last], magnitude: 1.0 };
    let matmul = MatMul {
        format: "q4g32f16".parse().ok(),
        rms_norm: Some(1e-6),
        bias: true,
        activation: Some(Epilogue::Plain(Activation::QuickGelu)),
        soft_cap: Some(30.0),
        residual: true,
    };
    let gated = MatMul { activation: Some(Epilogue::Gated(Activation::Silu)), ..MatMul::default() };
    let norm = |kind, heads, residual| Op::Norm(Norm { kind, heads, eps: 1e-5, residual });
    let attention = Attention {
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        scale: 0.35355338,
        soft_cap: Some(50.0),
        window: Some(16),
        causal: true,
    };
    let open = Attention { soft_cap: None, window: None, causal: false, ..attention.clone() };
    let recipe = Recipe::InterleaveRows(Box::new([
        Recipe::ConcatRows(vec![Recipe::Tensor("a.weight".into()), Recipe::Tensor("rows".into())]),
        Recipe::SliceRows {
            of: Box::new(Recipe::AddScalar(Box::new(Recipe::Tensor("b".into())), -1.5e-9)),
            start: 3,
            len: 4,
        },
    ]));
    let ops = [
        Op::Input { name: "tokens".into() },
        Op::State { name: "kv.0.k".into() },
        Op::Weight(recipe),
        Op::Call(CallScalar::Position),
        Op::Call(CallScalar::Tile),
        Op::AddScalar { value: 1.0 },
        Op::ConcatRows,
        Op::InterleaveRows,
        Op::Dequantize { format: "q3g40f32".parse().unwrap(), columns: 41 },
        Op::Embed { scale: 5.656854, format: "bf16".parse().ok(), columns: 32 },
        Op::Embed { scale: 1.0, format: None, columns: 32 },
        Op::MatMul(matmul),
        Op::MatMul(gated),
        norm(NormKind::Rms, 1, true),
        norm(NormKind::Rms, 4, false),
        norm(NormKind::Layer, 1, false),
        Op::SliceRows { start: 1, len: 3 },
        Op::Add,
        Op::Mul,
        Op::Scale { factor: f32::MIN_POSITIVE },
        Op::Activate(Activation::GeluTanh),
        Op::Activate(Activation::Gelu),
        Op::SoftCap { cap: 50.0 },
        Op::Slice { start: 3, len: 5 },
        Op::LastRow,
        Op::Rope(rope(0.01)),
        Op::WriteRows { stride: 1, offset: 0 },
        Op::Attention(attention),
        Op::Attention(open),
        Op::OverlayRows,
        Op::Patchify { height: 16, width: 16, patch: 8 },
        Op::RopeWriteKv(RopeWriteKv { n_heads: 4, n_kv_heads: 2, rope: rope(1.0 / 3.0) }),
        Op::RopeWriteKv(RopeWriteKv { n_heads: 4, n_kv_heads: 2, rope: rope(0.01) }),
        Op::Glu(Activation::Gelu),
    ];
    for (index, op) in ops.into_iter().enumerate() {
        let rows = if index % 2 == 0 { Dim::Rows } else { Dim::Fixed(index) };
        let operands = (0..graph.values.len() as u32).rev().take(index % 4).map(ValueId).collect();
        let operands = if infer::infer(&op, &[]).is_ok_and(|r| r.is_empty()) { Vec::new() } else { operands };
        let operands = if matches!(op, Op::Call(_)) { Vec::new() } else { operands };
        let results = (0..1 + index / 29).map(|_| graph.new_value(Type::matrix(rows, 8))).collect::<Vec<_>>();
        graph.values[results[0].index()].label = match index % 3 {
            0 => Some(format!("layers.{index}")),
            1 => Some("same".to_owned()),
            _ => None,
        };
        graph.nodes.push(Node { op, operands, results });
    }
    graph.outputs = vec![("logits".into(), ValueId(20)), ("kv.0.k".into(), ValueId(3))];
    graph
}

#[test]
fn every_operation_round_trips() {
    let graph = zoo();
    let text = graph.to_string();
    assert_eq!(parse(&text).map_err(|error| format!("{error}\n{text}")).unwrap(), graph);
}

/// Numbers are assigned by definition, so a graph whose values are numbered differently parses to the same meaning.
#[test]
fn printing_is_canonical() {
    let mut graph = zoo();
    graph.values.insert(0, Value { ty: Type::matrix(Dim::Rows, 1), label: Some("dropped".into()) });
    for id in graph.nodes.iter_mut().flat_map(|node| node.operands.iter_mut().chain(&mut node.results)) {
        id.0 += 1;
    }
    graph.outputs.iter_mut().for_each(|(_, id)| id.0 += 1);
    assert_eq!(graph.to_string(), zoo().to_string());
    assert_eq!(parse(&graph.to_string()).unwrap(), zoo());
}

#[test]
fn looks_like_this() {
    let graph = parse(
        "graph decode // a comment
         @a = rope {inv_freq=[1, 0.1], head_dim=4, magnitude=1.0}
         %x = input x : f32[rows, 4]
         %p = call position : u32[]
         %7 = rope %x, %p {rope=@a} : f32[rows, 4]
         %8 = matmul %7,
                     %7 {soft_cap=30} : f32[rows, 4]
         return y=%8",
    );
    expect![[r#"
        graph decode
        @0 = rope {head_dim=4, magnitude=1.0, inv_freq=[1.0, 0.1]}
        %x = input x : f32[rows, 4]
        %p = call position : u32[]
        %0 = rope %x, %p {rope=@0} : f32[rows, 4]
        %1 = matmul %0, %0 {soft_cap=30.0} : f32[rows, 4]
        return y=%1
    "#]]
    .assert_eq(&graph.unwrap().to_string());
}

#[track_caller]
fn check_error(body: &str, expected: Expect) {
    expected.assert_eq(&parse(&format!("graph f\n{body}")).unwrap_err().to_string());
}

#[test]
fn errors_have_places() {
    check_error(
        "%x = input x : f32[rows]",
        expect!["line 2, column 25: expected a value, a rotation or `return`, found the end"],
    );
    check_error("return y=%x", expect!["line 2, column 10: %x is not defined above"]);
    check_error("%x = inptu x : f32[rows]", expect!["line 2, column 6: unknown operation `inptu`"]);
    check_error("%x = input x : f64[rows]", expect!["line 2, column 16: expected a type, found `f64`"]);
    check_error("%x = call p : u32[]", expect!["line 2, column 11: expected position or tile, found `p`"]);
    check_error("%x = scale : u32[]", expect!["line 2, column 6: `factor` is missing"]);
    check_error("%x = scale {factor} : u32[]", expect!["line 2, column 13: `factor` takes a number"]);
    check_error("%x = scale {factor=1, factor=2}", expect!["line 2, column 23: `factor` is given twice"]);
    check_error("%x = scale {factor=1, cap=2} : f32[]", expect!["line 2, column 23: no attribute `cap` is known here"]);
    check_error(
        "%x = rope {rope=@1} : f32[]",
        expect!["line 2, column 17: expected a rotation defined above, found `@1`"],
    );
    check_error(
        "%x = glu {activation=tanh} : f32[]",
        expect!["line 2, column 22: expected an activation, found `tanh`"],
    );
    check_error("%x = weight interleave(a) : f32[]", expect!["line 2, column 13: interleave takes two parts, not 1"]);
    check_error(
        "%x = input x : f32[99999999999999999999]",
        expect!["line 2, column 20: expected a dimension, found `99999999999999999999`"],
    );
    check_error("%x = input x : f32[]\n%x = input x : f32[]", expect!["line 3, column 1: %x is defined twice"]);
    check_error("% = input x : f32[]", expect!["line 2, column 1: `%` without a name"]);
    check_error("ä", expect!["line 2, column 1: expected a value, a rotation or `return`, found `ä`"]);
    let nested = format!("%x = weight {}a", "(".repeat(1_000_000));
    check_error(&nested, expect!["line 2, column 45: the recipe is nested too deeply"]);
}

proptest! {
    #[test]
    fn damaged_texts_never_panic(cut in any::<prop::sample::Index>(), insert in "[%@{}=,:\\[\\]()#a-z0-9 .ä-]{0,4}") {
        let text = zoo().to_string();
        let at = cut.index(text.len());
        let damaged = format!("{}{insert}{}", &text[..at], &text[at + usize::from(insert.len() % 2 == 0)..]);
        if let Ok(graph) = parse(&damaged) {
            prop_assert_eq!(parse(&graph.to_string()).unwrap(), graph);
        }
    }
}
