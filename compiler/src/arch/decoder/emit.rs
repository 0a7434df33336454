//! Graphs of a decoder: `prefill`, `decode` and `score`.

use dwindle_schemes::Format;

use super::super::weights::Weights;
use super::super::{Function, GraphOptions};
use super::Decoder;
use crate::graph::{Attention, CallScalar, DType, Dim, Graph, Type, ValueId};

impl Decoder {
    /// The graph of a function. With `image_rows`, the rows of the state of that name, pictures are laid over the
    /// embeddings; not by `decode`, whose token is never one of a picture.
    pub fn graph(
        &self,
        function: Function,
        formats: &dyn Fn(&str) -> Format,
        options: &GraphOptions,
        image_rows: Option<usize>,
    ) -> Graph {
        let mut weights = Weights::new(function.name(), formats);
        let rows = if function == Function::Decode { Dim::Fixed(1) } else { Dim::Rows };
        let mut outputs = Vec::new();
        let mut x = self.embeddings(&mut weights, rows);
        if let Some(image_rows) = image_rows.filter(|_| function != Function::Decode) {
            x = self.overlay(&mut weights, x, rows, image_rows);
        }
        for layer in 0..=self.shape.n_layers {
            if layer > 0 {
                x = self.layer(&mut weights, x, layer - 1, options.context);
            }
            let label = format!("hidden.{layer}");
            weights.graph.label(x, label.as_str());
            outputs.push((label, x));
        }
        let normed = self.norm(&mut weights, x, &format!("{}model.norm", self.prefix));
        weights.graph.label(normed, "final_norm");
        outputs.push(("final_norm".to_owned(), normed));
        if !options.taps {
            outputs.clear();
        }
        let table = if self.tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let table = format!("{}{table}", self.prefix);
        let table = weights.matrix(&table, self.shape.vocab_size, self.shape.hidden_size);
        let mut logits = weights.graph.matmul(normed, table);
        if let Some(cap) = self.final_soft_cap {
            logits = weights.graph.soft_cap(logits, cap);
        }
        if function == Function::Prefill {
            logits = weights.graph.last_row(logits);
        }
        weights.graph.label(logits, "logits");
        outputs.push(("logits".to_owned(), logits));
        weights.graph.finish(outputs)
    }

    fn embeddings(&self, weights: &mut Weights<'_>, rows: Dim) -> ValueId {
        let name = format!("{}model.embed_tokens.weight", self.prefix);
        let tokens = weights.graph.input("tokens", Type { dtype: DType::U32, shape: vec![rows] });
        let table = weights.matrix(&name, self.shape.vocab_size, self.shape.hidden_size);
        let x = weights.graph.embed(tokens, table, 1.0);
        self.embedding_scale.map_or(x, |factor| weights.graph.scale(x, factor))
    }

    fn overlay(&self, weights: &mut Weights<'_>, x: ValueId, rows: Dim, image_rows: usize) -> ValueId {
        let four = |dtype| Type { dtype, shape: vec![rows, Dim::Fixed(4)] };
        let index = weights.graph.input("image_index", four(DType::I32));
        let weight = weights.graph.input("image_weight", four(DType::F32));
        let state = weights.graph.state("image_rows", image_rows, self.shape.hidden_size);
        weights.graph.overlay_rows(x, state, index, weight)
    }

    fn norm(&self, weights: &mut Weights<'_>, x: ValueId, name: &str) -> ValueId {
        let weight = self.norm_weight(weights, name, self.shape.hidden_size);
        weights.graph.rms_norm(x, weight, self.rms_norm_eps)
    }

    fn head_norm(&self, weights: &mut Weights<'_>, x: ValueId, name: &str, heads: usize) -> ValueId {
        let weight = self.norm_weight(weights, name, self.shape.head_dim);
        weights.graph.rms_norm_heads(x, weight, heads, self.rms_norm_eps)
    }

    fn norm_weight(&self, weights: &mut Weights<'_>, name: &str, n: usize) -> ValueId {
        let weight = weights.vector(&format!("{name}.weight"), n);
        match self.norm_adds_one {
            true => weights.graph.add_scalar(weight, 1.0),
            false => weight,
        }
    }

    fn layer(&self, weights: &mut Weights<'_>, x: ValueId, layer: usize, context: usize) -> ValueId {
        let name = format!("{}model.layers.{layer}", self.prefix);
        let mut norms = self.norms();
        let mut norm = |weights: &mut Weights<'_>, x: ValueId| match norms.next() {
            Some(norm) => self.norm(weights, x, &format!("{name}.{norm}")),
            None => x,
        };
        let normed = norm(weights, x);
        let mut branch = self.attention(weights, normed, layer, &name, context);
        if self.post_norms {
            branch = norm(weights, branch);
        }
        let x = weights.graph.add(x, branch);
        weights.graph.label(x, format!("layers.{layer}.attended"));
        let normed = norm(weights, x);
        let mut branch = self.feed_forward(weights, normed, &name);
        if self.post_norms {
            branch = norm(weights, branch);
        }
        weights.graph.add(x, branch)
    }

    fn attention(&self, weights: &mut Weights<'_>, x: ValueId, layer: usize, name: &str, context: usize) -> ValueId {
        let shape = &self.shape;
        let (q_columns, kv_columns) = (shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim);
        let projections = self.projections(q_columns, kv_columns);
        let project = |&(projection, columns): &(&str, usize)| {
            let name = format!("{name}.self_attn.{projection}");
            weights.linear(x, &name, columns, shape.hidden_size, self.qkv_bias)
        };
        let (q, k, v) = match projections.iter().map(project).collect::<Vec<_>>()[..] {
            [q, k, v] => (q, k, v),
            [qkv, ..] => (
                weights.graph.slice(qkv, 0, q_columns),
                weights.graph.slice(qkv, q_columns, kv_columns),
                weights.graph.slice(qkv, q_columns + kv_columns, kv_columns),
            ),
            [] => unreachable!("there are projections"),
        };
        let (q, k) = match self.qk_norms {
            true => (
                self.head_norm(weights, q, &format!("{name}.self_attn.q_norm"), shape.n_heads),
                self.head_norm(weights, k, &format!("{name}.self_attn.k_norm"), shape.n_kv_heads),
            ),
            false => (q, k),
        };
        let graph = &mut weights.graph;
        let rope = match self.windows[layer] {
            Some(_) => self.local_rope.unwrap_or(self.rope),
            None => self.rope,
        };
        let rope = rope.rope(shape.head_dim);
        let (q, k) = (graph.rope(q, rope.clone()), graph.rope(k, rope));
        graph.label(q, format!("layers.{layer}.q"));
        let mut cached = |rows: ValueId, which: &str| {
            let state_name = format!("kv.{layer}.{which}");
            let state = graph.state(&state_name, context, kv_columns);
            graph.write_rows(&state_name, state, rows, CallScalar::Position, 1, 0)
        };
        let (k, v) = (cached(k, "k"), cached(v, "v"));
        let attention = Attention {
            n_heads: shape.n_heads,
            n_kv_heads: shape.n_kv_heads,
            head_dim: shape.head_dim,
            scale: self.attention_scale,
            soft_cap: self.attention_soft_cap,
            window: self.windows[layer],
            causal: true,
        };
        let attended = graph.attention(q, k, v, attention);
        weights.linear(attended, &format!("{name}.self_attn.o_proj"), shape.hidden_size, q_columns, false)
    }

    fn feed_forward(&self, weights: &mut Weights<'_>, x: ValueId, name: &str) -> ValueId {
        let (hidden, wide) = (self.shape.hidden_size, self.shape.intermediate_size);
        let (gate, up) = match self.packed {
            true => {
                let both = weights.linear(x, &format!("{name}.mlp.gate_up_proj"), 2 * wide, hidden, false);
                (weights.graph.slice(both, 0, wide), weights.graph.slice(both, wide, wide))
            }
            false => (
                weights.linear(x, &format!("{name}.mlp.gate_proj"), wide, hidden, false),
                weights.linear(x, &format!("{name}.mlp.up_proj"), wide, hidden, false),
            ),
        };
        let gate = weights.graph.activate(gate, self.activation);
        let gated = weights.graph.mul(gate, up);
        weights.linear(gated, &format!("{name}.mlp.down_proj"), hidden, wide, false)
    }
}
