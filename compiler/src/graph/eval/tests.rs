//! Small graphs with results that were worked out by hand; fused operations against their compositions.

use super::super::parse::parse;
use super::super::verify::verify;
use super::*;

/// Tensors in memory, all f32.
#[derive(Default)]
struct Memory(BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>);

impl Tensors for Memory {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        self.0.get(name).map(|(dtype, shape, bytes)| Stored { dtype: *dtype, shape, bytes })
    }
}

impl Memory {
    fn with(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.insert(name.to_owned(), (DType::F32, shape.to_vec(), bytes));
        self
    }

    fn with_words(mut self, name: &str, shape: &[usize], values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.insert(name.to_owned(), (DType::U32, shape.to_vec(), bytes));
        self
    }
}

/// Numbers between -1 and 1 that look random.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = u64::from(seed) * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn graph(body: &str) -> Graph {
    let graph = parse(&format!("graph f\n{body}\n")).unwrap_or_else(|error| panic!("{error}\n{body}"));
    verify(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    graph
}

/// Output `y` of a graph called with `rows` rows at `position`.
#[track_caller]
fn run(body: &str, memory: &Memory, call: (u32, u32), inputs: &[(&str, Tensor)]) -> Vec<f32> {
    let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor.clone())).collect();
    let call = Call { rows: call.0, position: call.1, tile: 0 };
    let outputs = Evaluator::new(memory).run(&graph(body), call, &inputs).unwrap();
    outputs.floats("y").unwrap().to_vec()
}

#[track_caller]
fn check(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() < 1e-6, "element {index}: {found} instead of {expected}");
    }
}

#[test]
fn matmul_and_norms() {
    let memory =
        Memory::default().with("w", &[2, 3], &[1.0, 2.0, 3.0, -1.0, 0.0, 1.0]).with("g", &[3], &[1.0, 2.0, 3.0]);
    let x = Tensor::f32(vec![2, 3], vec![1.0, 0.0, -1.0, 2.0, 2.0, 2.0]);
    let head = "%x = input x : f32[rows, 3]\n%w = weight w : f32[2, 3]\n%g = weight g : f32[3]\n";
    let product = format!("{head}%y = matmul %x, %w : f32[rows, 2]\nreturn y=%y");
    check(&run(&product, &memory, (2, 0), &[("x", x.clone())]), &[-2.0, -2.0, 12.0, 0.0]);
    let rms = format!("{head}%y = rms_norm %x, %g {{eps=0}} : f32[rows, 3]\nreturn y=%y");
    let root = 1.5_f32.sqrt();
    check(&run(&rms, &memory, (2, 0), &[("x", x.clone())]), &[root, 0.0, -3.0 * root, 1.0, 2.0, 3.0]);
    let layer = format!("{head}%y = layer_norm %x, %g, %g {{eps=1}} : f32[rows, 3]\nreturn y=%y");
    let root = (2.0_f32 / 3.0 + 1.0).sqrt().recip();
    check(&run(&layer, &memory, (2, 0), &[("x", x)]), &[root + 1.0, 2.0, 3.0 - 3.0 * root, 1.0, 2.0, 3.0]);
}

/// Each head of a row by itself: 3 and 4 over √12.5, 0 and 2 over √2.
#[test]
fn norm_of_heads() {
    let memory = Memory::default().with("g", &[2], &[1.0, 2.0]);
    let body = "%x = input x : f32[rows, 4]\n%g = weight g : f32[2]
        %y = rms_norm %x, %g {heads=2, eps=0} : f32[rows, 4]\nreturn y=%y";
    let x = Tensor::f32(vec![1, 4], vec![3.0, 4.0, 0.0, 2.0]);
    let (first, second) = (12.5_f32.sqrt(), 2_f32.sqrt());
    check(&run(body, &memory, (1, 0), &[("x", x)]), &[3.0 / first, 8.0 / first, 0.0, 4.0 / second]);
}

#[test]
fn rows_joined_and_taken_out() {
    let memory = Memory::default().with("c", &[1, 2], &[7.0, 8.0]);
    let body = "%x = input x : f32[2, 2]\n%c = weight c : f32[1, 2]
        %all = concat_rows %c, %x : f32[3, 2]
        %y = slice_rows %all {start=1, len=2} : f32[2, 2]\nreturn all=%all, y=%y";
    let x = Tensor::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let outputs = Evaluator::new(&memory)
        .run(&graph(body), Call { rows: 1, position: 0, tile: 0 }, &BTreeMap::from([("x", x)]))
        .unwrap();
    check(outputs.floats("all").unwrap(), &[7.0, 8.0, 1.0, 2.0, 3.0, 4.0]);
    check(outputs.floats("y").unwrap(), &[1.0, 2.0, 3.0, 4.0]);
}

/// Two of three columns wide, 3-bit groups of ten; zero stands for code 3.
#[test]
fn grouped_weights() {
    let codes = [3_u32 | 4 << 3 | 6 << 6, 3 << 3 | 2 << 6];
    let memory = Memory::default().with_words("c", &[2, 1], &codes).with("s", &[2, 1], &[0.5, 2.0]);
    let body = "%c = weight c : u32[2, 1]\n%s = weight s : f32[2, 1]
        %y = dequantize %c, %s {format=q3g10f32, columns=3} : f32[2, 3]\nreturn y=%y";
    check(&run(body, &memory, (1, 0), &[]), &[0.0, 0.5, 1.5, -6.0, 0.0, -2.0]);
    let fused = "%c = weight c : u32[2, 1]\n%s = weight s : f32[2, 1]\n%t = input t : u32[rows]
        %e = embed %t, %c, %s {scale=2, format=q3g10f32, columns=3} : f32[rows, 3]
        %y = matmul %e, %c, %s {format=q3g10f32} : f32[rows, 2]\nreturn y=%y";
    check(&run(fused, &memory, (1, 0), &[("t", Tensor::u32(vec![1], vec![1]))]), &[-6.0, 80.0]);
}

/// Five bits in two words, of which the last has the fifth bits, and a minimum: by hand, alone and fused.
#[test]
fn grouped_weights_with_minimums() {
    let mut codes = [0_u32; 10];
    (codes[0], codes[4]) = (0x0000_0321, 0b110);
    (codes[5], codes[9]) = (0x0000_00f0, 0b001);
    let memory = Memory::default().with_words("c", &[2, 5], &codes).with("s", &[2, 2], &[0.5, -1.0, 2.0, 0.25]);
    let body = "%c = weight c : u32[2, 5]\n%s = weight s : f32[2, 2]
        %y = dequantize %c, %s {format=q5g32f32m, columns=3} : f32[2, 3]\nreturn y=%y";
    check(&run(body, &memory, (1, 0), &[]), &[-0.5, 8.0, 8.5, 32.25, 30.25, 0.25]);
    let fused = "%c = weight c : u32[2, 5]\n%s = weight s : f32[2, 2]\n%t = input t : u32[rows]
        %e = embed %t, %c, %s {scale=2, format=q5g32f32m, columns=3} : f32[rows, 3]
        %y = matmul %e, %c, %s {format=q5g32f32m} : f32[rows, 2]\nreturn y=%y";
    let product = [64.5 * -0.5 + 60.5 * 8.0 + 0.5 * 8.5, 64.5 * 32.25 + 60.5 * 30.25 + 0.5 * 0.25];
    check(&run(fused, &memory, (1, 0), &[("t", Tensor::u32(vec![1], vec![1]))]), &product);
}

/// One head of two, positions 0..3: with equal keys the output is the mean of the values in sight.
#[test]
fn attention_sees_the_window_only() {
    let body = |attributes: &str| {
        format!(
            "%q = input q : f32[rows, 2]\n%k = state k : f32[8, 2]\n%v = state v : f32[8, 2]\n%p = call position : u32[]
             %x = input x : f32[rows, 2]
             %k1 = write_rows %k, %q, %p {{stride=1, offset=0}} : f32[8, 2]
             %v1 = write_rows %v, %x, %p {{stride=1, offset=0}} : f32[8, 2]
             %y = attention %q, %k1, %v1, %p {{n_heads=1, n_kv_heads=1, head_dim=2, scale=0.7{attributes}}} : f32[rows, 2]
             return y=%y, k=%k1, v=%v1"
        )
    };
    let q = Tensor::f32(vec![3, 2], vec![0.0; 6]);
    let x = Tensor::f32(vec![3, 2], vec![3.0, 0.0, 6.0, 0.0, 0.0, 3.0]);
    let inputs = [("q", q), ("x", x)];
    let memory = Memory::default();
    check(&run(&body(", causal"), &memory, (3, 0), &inputs), &[3.0, 0.0, 4.5, 0.0, 3.0, 1.0]);
    check(&run(&body(", window=2, causal"), &memory, (3, 0), &inputs), &[3.0, 0.0, 4.5, 0.0, 3.0, 1.5]);
    // The state beyond what was written must not be read: it may hold anything.
    let mut evaluator = Evaluator::new(&memory);
    for state in ["k", "v"] {
        evaluator.set_state(state, Tensor::f32(vec![8, 2], vec![f32::NAN; 16]));
    }
    let outputs =
        evaluator.run(&graph(&body(", causal")), Call { rows: 3, ..Call::default() }, &inputs.into()).unwrap();
    check(outputs.floats("y").unwrap(), &[3.0, 0.0, 4.5, 0.0, 3.0, 1.0]);
}

#[test]
fn rope_rotates_halves() {
    let body = "@0 = rope {head_dim=4, magnitude=2, inv_freq=[1, 0.5]}\n%x = input x : f32[rows, 4]\n%p = call position : u32[]
        %y = rope %x, %p {rope=@0} : f32[rows, 4]\nreturn y=%y";
    let x = Tensor::f32(vec![2, 4], vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
    let (a, b) = (1.0_f32, 0.5_f32);
    let expected = [2.0 * a.cos(), 2.0 * b.cos(), 2.0 * a.sin(), 2.0 * b.sin()];
    let (a, b) = (2.0_f32, 1.0_f32);
    let second = [-2.0 * a.sin(), -2.0 * b.sin(), 2.0 * a.cos(), 2.0 * b.cos()];
    check(&run(body, &Memory::default(), (2, 1), &[("x", x)]), &[expected, second].concat());
}

#[test]
fn pictures() {
    let body = "%pixels = input pixels : f32[2, 8]\n%y = patchify %pixels {height=2, width=4, patch=2} : f32[2, 8]\nreturn y=%y";
    let pixels = Tensor::f32(vec![2, 8], (0..16).map(|i| i as f32).collect());
    let expected = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15].map(|i: i32| i as f32);
    check(&run(body, &Memory::default(), (1, 0), &[("pixels", pixels)]), &expected);
    // What is left of the last whole patch is not read.
    let body = "%pixels = input pixels : f32[1, 15]\n%y = patchify %pixels {height=3, width=5, patch=2} : f32[2, 4]\nreturn y=%y";
    let pixels = Tensor::f32(vec![1, 15], (0..15).map(|i| i as f32).collect());
    check(&run(body, &Memory::default(), (1, 0), &[("pixels", pixels)]), &[0.0, 1.0, 5.0, 6.0, 2.0, 3.0, 7.0, 8.0]);
    let body = "%x = input x : f32[rows, 2]\n%r = weight r : f32[2, 2]\n%i = input i : i32[rows, 4]\n%w = input w : f32[rows, 4]
        %y = overlay_rows %x, %r, %i, %w : f32[rows, 2]\nreturn y=%y";
    let inputs = [
        ("x", Tensor::f32(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0])),
        ("i", Tensor::i32(vec![2, 4], vec![-1, 0, 0, 0, 1, 0, 0, 0])),
        ("w", Tensor::f32(vec![2, 4], vec![9.0, 9.0, 9.0, 9.0, 0.5, 0.25, 0.25, 0.0])),
    ];
    let memory = Memory::default().with("r", &[2, 2], &[4.0, 8.0, 10.0, 20.0]);
    check(&run(body, &memory, (2, 0), &inputs), &[1.0, 2.0, 7.0, 14.0]);
}

/// Each pair of graphs means the same; the first is fused.
#[test]
fn fused_operations_are_compositions() {
    let memory = Memory::default()
        .with("w", &[6, 4], &noise(24, 1))
        .with("g", &[4], &noise(4, 2))
        .with("b", &[6], &noise(6, 3))
        .with("gate", &[3, 4], &noise(12, 4))
        .with("up", &[3, 4], &noise(12, 5))
        .with("qkv", &[8, 4], &noise(32, 6));
    let head =
        "@0 = rope {head_dim=2, magnitude=1, inv_freq=[0.3]}\n%x = input x : f32[rows, 4]\n%r = input r : f32[rows, 6]
        %w = weight w : f32[6, 4]\n%g = weight g : f32[4]\n%b = weight b : f32[6]\n%p = call position : u32[]\n";
    let inputs = [("x", Tensor::f32(vec![3, 4], noise(12, 7))), ("r", Tensor::f32(vec![3, 6], noise(18, 8)))];
    let compare = |fused: &str, plain: &str| {
        let [fused, plain] = [fused, plain].map(|body| run(&format!("{head}{body}"), &memory, (3, 2), &inputs));
        assert_eq!(fused, plain);
        assert!(fused.iter().any(|x| x.abs() > 0.1));
    };
    compare(
        "%y = matmul %x, %w, %g, %b, %r {rms_norm=0.01, bias, activation=gelu, soft_cap=0.7, residual} : f32[rows, 6]\nreturn y=%y",
        "%0 = rms_norm %x, %g {eps=0.01} : f32[rows, 4]\n%1 = matmul %0, %w : f32[rows, 6]\n%2 = add %1, %b : f32[rows, 6]
         %3 = gelu %2 : f32[rows, 6]\n%4 = soft_cap %3 {cap=0.7} : f32[rows, 6]\n%y = add %4, %r : f32[rows, 6]\nreturn y=%y",
    );
    compare(
        "%0 = weight interleave(gate, up) : f32[6, 4]\n%y = matmul %x, %0 {gated=silu} : f32[rows, 3]\nreturn y=%y",
        "%0 = weight gate : f32[3, 4]\n%1 = weight up : f32[3, 4]\n%2 = matmul %x, %0 : f32[rows, 3]\n%3 = matmul %x, %1 : f32[rows, 3]
         %4 = silu %2 : f32[rows, 3]\n%y = mul %4, %3 : f32[rows, 3]\nreturn y=%y",
    );
    compare(
        "%y = rms_norm %x, %g, %x {eps=0.01, residual} : f32[rows, 4]\nreturn y=%y",
        "%0 = rms_norm %x, %g {eps=0.01} : f32[rows, 4]\n%y = add %0, %x : f32[rows, 4]\nreturn y=%y",
    );
    compare(
        "%0 = weight (rows(gate, up) + 1) : f32[6, 4]\n%y = matmul %x, %0 : f32[rows, 6]\nreturn y=%y",
        "%0 = weight gate : f32[3, 4]\n%1 = weight up : f32[3, 4]\n%2 = concat_rows %0, %1 : f32[6, 4]
         %3 = add_scalar %2 {value=1} : f32[6, 4]\n%y = matmul %x, %3 : f32[rows, 6]\nreturn y=%y",
    );
    let attention = "%y = attention %q, %k, %v, %p {n_heads=2, n_kv_heads=1, head_dim=2, scale=1, soft_cap=2, causal} : f32[rows, 4]
        return y=%y, kv.k=%k, kv.v=%v";
    let states = "%ks = state kv.k : f32[8, 2]\n%vs = state kv.v : f32[8, 2]\n%m = weight qkv : f32[8, 4]\n%qkv = matmul %x, %m : f32[rows, 8]\n";
    compare(
        &format!("{states}%q, %k, %v = rope_write_kv %qkv, %ks, %vs, %p {{n_heads=2, n_kv_heads=1, rope=@0}} : f32[rows, 4], f32[8, 2], f32[8, 2]\n{attention}"),
        &format!(
            "{states}%q0 = slice %qkv {{start=0, len=4}} : f32[rows, 4]\n%k0 = slice %qkv {{start=4, len=2}} : f32[rows, 2]
             %v0 = slice %qkv {{start=6, len=2}} : f32[rows, 2]\n%q = rope %q0, %p {{rope=@0}} : f32[rows, 4]
             %k1 = rope %k0, %p {{rope=@0}} : f32[rows, 2]\n%k = write_rows %ks, %k1, %p {{stride=1, offset=0}} : f32[8, 2]
             %v = write_rows %vs, %v0, %p {{stride=1, offset=0}} : f32[8, 2]\n{attention}"
        ),
    );
}

#[test]
fn errors_name_the_node() {
    #[track_caller]
    fn check(body: &str, inputs: &[(&str, Tensor)], expected: &str) {
        let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor.clone())).collect();
        let memory = Memory::default().with("w", &[2, 3], &[0.0; 6]);
        let call = Call { rows: 2, position: 7, tile: 0 };
        let error = Evaluator::new(&memory).run(&graph(body), call, &inputs).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    check("%x = input x : f32[rows, 3]\nreturn y=%x", &[], "f, %x = input: no input `x` is given");
    let x = Tensor::f32(vec![1, 3], vec![0.0; 3]);
    check(
        "%x = input x : f32[rows, 3]\nreturn y=%x",
        &[("x", x)],
        "f, %x = input: f32[1, 3] where f32[2, 3] is declared",
    );
    check("%w = weight v : f32[2, 3]\nreturn y=%w", &[], "f, %w = weight: tensor `v` is missing");
    check("%w = weight w : f32[4, 3]\nreturn y=%w", &[], "f, %w = weight: w: 6 elements do not fill [4, 3]");
    check("%w = weight w : u32[2, 3]\nreturn y=%w", &[], "f, %w = weight: tensor `w` is f32, not u32");
    let tokens = Tensor::u32(vec![2], vec![1, 2]);
    check(
        "%t = input t : u32[rows]\n%w = weight w : f32[2, 3]\n%y = embed %t, %w {scale=1, columns=3} : f32[rows, 3]\nreturn y=%y",
        &[("t", tokens)],
        "f, %y = embed: token 2 of 2 rows",
    );
    check(
        "%s = state s : f32[8, 3]\n%w = weight w : f32[2, 3]\n%p = call position : u32[]
         %y = write_rows %s, %w, %p {stride=1, offset=0} : f32[8, 3]\nreturn s=%y",
        &[],
        "f, %y = write_rows: [2, 3] from row 7 * 1 + 0 on does not fit into [8, 3]",
    );
}
