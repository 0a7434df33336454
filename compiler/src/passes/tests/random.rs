//! Random graphs: blocks of models strung together by chance, so that passes meet patterns whole, broken and shared.

use dwindle_schemes::Format;

use super::meaning::Noise;
use crate::graph::build::Matrix;
use crate::graph::infer::stored_operands;
use crate::graph::*;

const HIDDEN: usize = 8;
const CONTEXT: usize = 9;
const VOCABULARY: usize = 11;

/// The same graph for the same seed.
pub fn graph(seed: u64) -> Graph {
    let mut noise = Noise::new(seed);
    let rows = [Dim::Rows, Dim::Fixed(1)][noise.below(2)];
    let mut random = Random { b: Builder::new("random"), noise, names: 0, pool: Vec::new() };
    let tokens = random.b.input("tokens", Type { dtype: DType::U32, shape: vec![rows] });
    let table = random.matrix(VOCABULARY, HIDDEN);
    let scale = [1.0, 2.5][random.noise.below(2)];
    let embedded = random.b.embed(tokens, table, scale);
    let embedded = if random.chance(2) { random.b.scale(embedded, 1.5) } else { embedded };
    random.pool.push(embedded);
    for layer in 0..2 + random.noise.below(6) {
        let x = random.pick();
        let y = match random.noise.below(7) {
            0 => random.attention(x, rows, layer),
            1 => random.gated(x),
            2 => random.dense(x, HIDDEN),
            3 => random.elementwise(x),
            4 => random.norm(x),
            5 => random.b.mul(x, embedded),
            _ => random.b.add(x, embedded),
        };
        let y = if random.chance(2) { random.norm(y) } else { y };
        let residual = random.pick();
        let y = match random.noise.below(3) {
            0 => y,
            1 => random.b.add(residual, y),
            _ => random.b.add(y, residual),
        };
        random.pool.push(y);
    }
    random.finish(table)
}

struct Random {
    b: Builder,
    noise: Noise,
    names: usize,
    /// Values of HIDDEN columns.
    pool: Vec<ValueId>,
}

impl Random {
    /// One time in `n`.
    fn chance(&mut self, n: usize) -> bool {
        self.noise.below(n) == 0
    }

    /// Mostly the newest value, for long chains.
    fn pick(&mut self) -> ValueId {
        let last = self.pool.len() - 1;
        let index = if self.chance(4) { self.noise.below(last + 1) } else { last };
        self.pool[index]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("w{}", self.names)
    }

    fn vector(&mut self, n: usize) -> ValueId {
        let name = self.name();
        self.b.weight(&name, Type::fixed(DType::F32, &[n]))
    }

    fn format(&mut self) -> Format {
        let formats = ["f32", "f16", "q4g32f16", "q3g40f32", "q4g64f16z", "q5g32f16m", "q6g16f16z32"];
        formats[self.noise.below(formats.len())].parse().unwrap()
    }

    fn matrix(&mut self, n: usize, k: usize) -> ValueId {
        let format = self.format();
        self.stored(format, n, k)
    }

    fn stored(&mut self, format: Format, n: usize, k: usize) -> ValueId {
        let types = match format {
            Format::Plain(float) => vec![Type::fixed(float.into(), &[n, k])],
            Format::Grouped(g) => {
                vec![Type::fixed(DType::U32, &[n, g.words(k)]), Type::fixed(g.scale.into(), &[n, g.scales(k)])]
            }
        };
        assert_eq!(types.len(), stored_operands(Some(format)));
        let name = self.name();
        let part = |(i, ty): (usize, Type)| self.b.weight(&format!("{name}.{i}"), ty);
        let parts = types.into_iter().enumerate().map(part).collect();
        self.b.dequantize(&Matrix { format, parts, columns: k })
    }

    fn norm(&mut self, x: ValueId) -> ValueId {
        let weight = self.vector(HIDDEN);
        match self.noise.below(3) {
            0 => {
                let weight = self.b.add_scalar(weight, 1.0);
                self.b.rms_norm(x, weight, 1e-3)
            }
            1 => self.b.rms_norm(x, weight, 1e-3),
            _ => {
                let bias = self.vector(HIDDEN);
                self.b.layer_norm(x, weight, bias, 1e-3)
            }
        }
    }

    fn head_norm(&mut self, x: ValueId, heads: usize, width: usize) -> ValueId {
        let weight = self.vector(width);
        self.b.rms_norm_heads(x, weight, heads, 1e-3)
    }

    fn elementwise(&mut self, x: ValueId) -> ValueId {
        match self.noise.below(4) {
            0 => self.b.soft_cap(x, 3.0),
            1 => self.b.scale(x, 1.0),
            2 => self.b.scale(x, -0.75),
            _ => self.activate(x),
        }
    }

    fn activate(&mut self, x: ValueId) -> ValueId {
        let activation = Activation::ALL[self.noise.below(Activation::ALL.len())];
        self.b.activate(x, activation)
    }

    /// A product, perhaps with a bias, an activation, a soft cap; rarely somebody else wants it, too.
    fn dense(&mut self, x: ValueId, n: usize) -> ValueId {
        let w = self.matrix(n, HIDDEN);
        let mut y = self.b.matmul(x, w);
        if self.chance(2) {
            let bias = self.vector(n);
            y = self.b.add(y, bias);
        }
        if self.chance(3) {
            y = self.activate(y);
        }
        if self.chance(3) {
            y = self.b.soft_cap(y, 2.0);
        }
        if n == HIDDEN && self.chance(5) {
            self.pool.push(y);
        }
        y
    }

    fn gated(&mut self, x: ValueId) -> ValueId {
        let (format, n) = (self.format(), 6);
        let normed = if self.chance(2) { self.norm(x) } else { x };
        let (gate, up) = match self.chance(3) {
            true => {
                let both = self.stored(format, 2 * n, HIDDEN);
                let both = self.b.matmul(normed, both);
                let start = if self.chance(4) { 0 } else { n };
                (self.b.slice(both, 0, n), self.b.slice(both, start, n))
            }
            false => {
                let gate = self.stored(format, n, HIDDEN);
                let format = if self.chance(4) { self.format() } else { format };
                let up = self.stored(format, n, HIDDEN);
                (self.b.matmul(normed, gate), self.b.matmul(normed, up))
            }
        };
        let gate = self.activate(gate);
        let y = if self.chance(2) { self.b.mul(gate, up) } else { self.b.mul(up, gate) };
        let down = self.matrix(HIDDEN, n);
        self.b.matmul(y, down)
    }

    /// Two query heads over one key-value head of four columns, with its own cache.
    fn attention(&mut self, x: ValueId, rows: Dim, layer: usize) -> ValueId {
        const HEAD: usize = 4;
        let x = if self.chance(2) { self.norm(x) } else { x };
        let (format, mixed, biased) = (self.format(), self.chance(4), self.chance(2));
        let [q, k, v] = [2 * HEAD, HEAD, HEAD].map(|n| {
            let format = if mixed { self.format() } else { format };
            let w = self.stored(format, n, HIDDEN);
            let y = self.b.matmul(x, w);
            if !biased {
                return y;
            }
            let bias = self.vector(n);
            self.b.add(y, bias)
        });
        let q = if self.chance(4) { self.head_norm(q, 2, HEAD) } else { q };
        let k = if self.chance(4) { self.head_norm(k, 1, HEAD) } else { k };
        let rope = Rope { head_dim: HEAD, inv_freq: vec![1.0, 0.125], magnitude: 1.0 };
        let q = self.b.rope(q, rope.clone());
        let magnitude = if self.chance(8) { 2.0 } else { 1.0 };
        let k = self.b.rope(k, Rope { magnitude, ..rope });
        let names = ["k", "v"].map(|which| format!("kv.{layer}.{which}"));
        let [k, v] = [(k, &names[0]), (v, &names[1])].map(|(rows, name)| {
            let state = self.b.state(name, CONTEXT, HEAD);
            self.b.write_rows(name, state, rows, CallScalar::Position, 1, 0)
        });
        let attention = Attention {
            n_heads: 2,
            n_kv_heads: 1,
            head_dim: HEAD,
            scale: 0.5,
            soft_cap: None,
            window: (rows == Dim::Rows).then_some(3),
            causal: true,
        };
        let y = self.b.attention(q, k, v, attention);
        let w = self.matrix(HIDDEN, 2 * HEAD);
        self.b.matmul(y, w)
    }

    /// Logits, perhaps of the last row alone, over the table or a head; perhaps a hidden value, too.
    fn finish(mut self, table: ValueId) -> Graph {
        let x = self.pick();
        let x = self.norm(x);
        let head = if self.chance(2) { table } else { self.matrix(VOCABULARY, HIDDEN) };
        let mut logits = self.b.matmul(x, head);
        if self.chance(2) {
            logits = self.b.soft_cap(logits, 5.0);
        }
        if self.chance(2) {
            logits = self.b.last_row(logits);
        }
        let mut outputs = vec![("logits".to_owned(), logits)];
        if self.chance(3) {
            outputs.push(("hidden".to_owned(), self.pick()));
        }
        self.b.finish(outputs)
    }
}
