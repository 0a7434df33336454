//! The text form of a graph, which [`parse`](super::parse::parse) reads back.
//!
//! ```text
//! graph decode
//! @0 = rope {head_dim=4, magnitude=1.0, inv_freq=[1.0, 0.01]}
//! %tokens = input tokens : u32[1]
//! %0 = weight model.embed_tokens.weight : f32[96, 32]
//! %hidden.0 = embed %tokens, %0 {scale=1.0, columns=32} : f32[1, 32]
//! return logits=%9, kv.0.k=%7
//! ```
//!
//! One line a node: results, operation, operands, attributes, the results' types. A value is called by its label, with
//! `#n` behind it where several have that label, or by a number. Rotations are listed first, each once. Numbers are
//! written such that they read back exactly. `//` begins a comment. Line breaks are spaces.

use std::collections::BTreeMap;
use std::fmt;

use super::*;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "graph {}", word(&self.name))?;
        let mut ropes: Vec<&Rope> = Vec::new();
        for rope in self.nodes.iter().filter_map(|node| rope_of(&node.op)) {
            if !ropes.contains(&rope) {
                writeln!(f, "@{} = {}", ropes.len(), RopeText(rope))?;
                ropes.push(rope);
            }
        }
        let names = Names::of(self);
        for node in &self.nodes {
            for (i, &result) in node.results.iter().enumerate() {
                write!(f, "{}{}", if i > 0 { ", " } else { "" }, names.get(result))?;
            }
            write!(f, " = {}", mnemonic(&node.op))?;
            match &node.op {
                Op::Input { name } | Op::State { name } => write!(f, " {}", word(name))?,
                Op::Weight(recipe) => write!(f, " {recipe}")?,
                Op::Call(scalar) => write!(f, " {}", scalar.name())?,
                _ => {}
            }
            for (i, &operand) in node.operands.iter().enumerate() {
                write!(f, "{} {}", if i > 0 { "," } else { "" }, names.get(operand))?;
            }
            let attributes = attributes(&node.op, &ropes);
            if !attributes.is_empty() {
                write!(f, " {{{}}}", attributes.join(", "))?;
            }
            for (i, &result) in node.results.iter().enumerate() {
                let between = if i > 0 { ", " } else { " : " };
                match self.values.get(result.index()) {
                    Some(value) => write!(f, "{between}{}", value.ty)?,
                    None => write!(f, "{between}?")?,
                }
            }
            writeln!(f)?;
        }
        f.write_str("return")?;
        for (i, (name, value)) in self.outputs.iter().enumerate() {
            write!(f, "{} {}={}", if i > 0 { "," } else { "" }, word(name), names.get(*value))?;
        }
        writeln!(f)
    }
}

/// The names of a graph's values in its text form.
#[derive(Debug)]
pub struct Names(Vec<Option<String>>);

impl Names {
    /// Names of all values that nodes define.
    pub fn of(graph: &Graph) -> Self {
        let defined: Vec<ValueId> = graph.nodes.iter().flat_map(|node| node.results.iter().copied()).collect();
        let label = |id: ValueId| graph.values.get(id.index()).and_then(|v| v.label.as_deref()).map(word);
        let mut bearers: BTreeMap<String, u32> = BTreeMap::new();
        for label in defined.iter().filter_map(|&id| label(id)) {
            *bearers.entry(label).or_default() += 1;
        }
        let mut names = vec![None; graph.values.len()];
        let (mut unnamed, mut met) = (0, BTreeMap::<String, u32>::new());
        for id in defined {
            let name = match label(id) {
                Some(label) if is_label(&label) => match bearers[&label] {
                    1 => format!("%{label}"),
                    _ => {
                        let nth = met.entry(label.clone()).or_default();
                        *nth += 1;
                        format!("%{label}#{}", *nth - 1)
                    }
                },
                _ => {
                    unnamed += 1;
                    format!("%{}", unnamed - 1)
                }
            };
            if let Some(slot) = names.get_mut(id.index()) {
                *slot = Some(name);
            }
        }
        Names(names)
    }

    /// `%7`, `%hidden.3`, or `%?12` for a value that no node defines.
    pub fn get(&self, id: ValueId) -> String {
        self.0.get(id.index()).cloned().flatten().unwrap_or_else(|| format!("%?{}", id.0))
    }
}

/// Whether the text form can write this name as it is: letters, digits, `_`, `.` and `-`.
pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_word_byte)
}

/// Whether this is a [word](is_word) that is not taken for a number.
pub fn is_label(text: &str) -> bool {
    is_word(text) && text.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether words may hold this byte.
pub(super) const fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The text itself, or the nearest thing that can be written; graphs that verify have only words.
fn word(text: &str) -> String {
    let replaced: String = text.chars().map(|c| if is_word_byte(c as u8) && c.is_ascii() { c } else { '_' }).collect();
    if replaced.is_empty() { "_".to_owned() } else { replaced }
}

impl CallScalar {
    /// All of them.
    pub const ALL: [CallScalar; 2] = [CallScalar::Position, CallScalar::Tile];

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            CallScalar::Position => "position",
            CallScalar::Tile => "tile",
        }
    }
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 4] = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];

    /// The name in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::QuickGelu => "quick_gelu",
            Activation::Silu => "silu",
        }
    }
}

/// The name of an operation in the text form.
pub const fn mnemonic(op: &Op) -> &'static str {
    match op {
        Op::Input { .. } => "input",
        Op::State { .. } => "state",
        Op::Weight(_) => "weight",
        Op::Call(_) => "call",
        Op::AddScalar { .. } => "add_scalar",
        Op::ConcatRows => "concat_rows",
        Op::InterleaveRows => "interleave_rows",
        Op::Dequantize { .. } => "dequantize",
        Op::Embed { .. } => "embed",
        Op::MatMul(_) => "matmul",
        Op::Norm(Norm { kind: NormKind::Rms, .. }) => "rms_norm",
        Op::Norm(Norm { kind: NormKind::Layer, .. }) => "layer_norm",
        Op::Add => "add",
        Op::Mul => "mul",
        Op::Scale { .. } => "scale",
        Op::Activate(activation) => activation.name(),
        Op::SoftCap { .. } => "soft_cap",
        Op::Slice { .. } => "slice",
        Op::SliceRows { .. } => "slice_rows",
        Op::LastRow => "last_row",
        Op::Rope(_) => "rope",
        Op::WriteRows { .. } => "write_rows",
        Op::Attention(_) => "attention",
        Op::OverlayRows => "overlay_rows",
        Op::Patchify { .. } => "patchify",
        Op::RopeWriteKv(_) => "rope_write_kv",
        Op::Glu(_) => "glu",
    }
}

/// The rotation that an operation holds.
const fn rope_of(op: &Op) -> Option<&Rope> {
    match op {
        Op::Rope(rope) => Some(rope),
        Op::RopeWriteKv(kv) => Some(&kv.rope),
        _ => None,
    }
}

/// `key=value` and flags, in the order that [`Op`]'s fields have.
fn attributes(op: &Op, ropes: &[&Rope]) -> Vec<String> {
    fn set<T: fmt::Debug>(key: &str, value: Option<T>) -> Option<String> {
        value.map(|value| format!("{key}={value:?}"))
    }
    let flag = |key: &str, set: bool| set.then(|| key.to_owned());
    let format = |format: Option<dwindle_schemes::Format>| format.map(|f| format!("format={f}"));
    let rope = |rope: &Rope| ropes.iter().position(|r| *r == rope).map(|index| format!("rope=@{index}"));
    let all: Vec<Option<String>> = match op {
        Op::Input { .. } | Op::State { .. } | Op::Weight(_) | Op::Call(_) => vec![],
        Op::ConcatRows | Op::InterleaveRows | Op::Add | Op::Mul | Op::LastRow | Op::OverlayRows => vec![],
        Op::Activate(_) => vec![],
        Op::AddScalar { value } => vec![set("value", Some(value))],
        Op::Dequantize { format: f, columns } => vec![format(Some(*f)), set("columns", Some(columns))],
        Op::Embed { scale, format: f, columns } => {
            vec![set("scale", Some(scale)), format(*f), set("columns", Some(columns))]
        }
        Op::MatMul(m) => vec![
            format(m.format),
            set("rms_norm", m.rms_norm),
            flag("bias", m.bias),
            m.activation.map(|epilogue| match epilogue {
                Epilogue::Plain(activation) => format!("activation={}", activation.name()),
                Epilogue::Gated(activation) => format!("gated={}", activation.name()),
            }),
            set("soft_cap", m.soft_cap),
            flag("residual", m.residual),
        ],
        Op::Norm(norm) => vec![
            set("heads", (norm.heads != 1).then_some(norm.heads)),
            set("eps", Some(norm.eps)),
            flag("residual", norm.residual),
        ],
        Op::Scale { factor } => vec![set("factor", Some(factor))],
        Op::SoftCap { cap } => vec![set("cap", Some(cap))],
        Op::Slice { start, len } | Op::SliceRows { start, len } => {
            vec![set("start", Some(start)), set("len", Some(len))]
        }
        Op::Rope(r) => vec![rope(r)],
        Op::WriteRows { stride, offset } => vec![set("stride", Some(stride)), set("offset", Some(offset))],
        Op::Attention(a) => vec![
            set("n_heads", Some(a.n_heads)),
            set("n_kv_heads", Some(a.n_kv_heads)),
            set("head_dim", Some(a.head_dim)),
            set("scale", Some(a.scale)),
            set("soft_cap", a.soft_cap),
            set("window", a.window),
            flag("causal", a.causal),
        ],
        Op::Patchify { height, width, patch } => {
            vec![set("height", Some(height)), set("width", Some(width)), set("patch", Some(patch))]
        }
        Op::RopeWriteKv(kv) => {
            vec![set("n_heads", Some(kv.n_heads)), set("n_kv_heads", Some(kv.n_kv_heads)), rope(&kv.rope)]
        }
        Op::Glu(activation) => vec![Some(format!("activation={}", activation.name()))],
    };
    all.into_iter().flatten().collect()
}

struct RopeText<'a>(&'a Rope);

impl fmt::Display for RopeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rope { head_dim, inv_freq, magnitude } = self.0;
        write!(f, "rope {{head_dim={head_dim}, magnitude={magnitude:?}, inv_freq={inv_freq:?}}}")
    }
}
