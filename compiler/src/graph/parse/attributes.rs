//! Reads `{key=value, flag}` and makes operations of it.

use std::collections::BTreeMap;

use dwindle_schemes::Format;

use super::super::*;
use super::ParseError;
use super::tokens::{Place, Token, Tokens};

/// The attributes of one node; each has to be taken.
pub struct Attributes<'t> {
    node: Place<'t>,
    list: Vec<(&'t str, Place<'t>, Vec<Place<'t>>)>,
}

impl<'t> Attributes<'t> {
    /// Reads them, if there are any; `node` is where errors about missing ones point to.
    pub fn read(tokens: &mut Tokens<'t>, node: Place<'t>) -> Result<Self, ParseError> {
        let mut list: Vec<(&str, Place, Vec<Place>)> = Vec::new();
        if tokens.accept('{')? {
            while !tokens.accept('}')? {
                if !list.is_empty() {
                    tokens.punctuation(',')?;
                }
                let key = tokens.word("an attribute")?;
                let place = tokens.place();
                if list.iter().any(|(other, ..)| *other == key) {
                    return Err(place.error(format!("`{key}` is given twice")));
                }
                let mut values = Vec::new();
                if tokens.accept('=')? {
                    if tokens.accept('[')? {
                        while !tokens.accept(']')? {
                            if !values.is_empty() {
                                tokens.punctuation(',')?;
                            }
                            tokens.word("a number")?;
                            values.push(tokens.place());
                        }
                    } else {
                        values.push(tokens.next()?);
                    }
                }
                list.push((key, place, values));
            }
        }
        Ok(Attributes { node, list })
    }

    /// Complains about attributes that nobody took.
    pub fn finish(self) -> Result<(), ParseError> {
        match self.list.first() {
            Some((key, place, _)) => Err(place.error(format!("no attribute `{key}` is known here"))),
            None => Ok(()),
        }
    }

    fn take(&mut self, key: &str) -> Option<(Place<'t>, Vec<Place<'t>>)> {
        let index = self.list.iter().position(|(k, ..)| *k == key)?;
        let (_, place, values) = self.list.remove(index);
        Some((place, values))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, ParseError> {
        value.ok_or_else(|| self.node.error(format!("`{key}` is missing")))
    }

    /// One value, made by `read`.
    fn optional<T>(
        &mut self,
        key: &str,
        what: &str,
        read: impl Fn(Token<'t>) -> Option<T>,
    ) -> Result<Option<T>, ParseError> {
        match self.take(key) {
            None => Ok(None),
            Some((_, values)) if values.len() == 1 => match read(values[0].token) {
                Some(value) => Ok(Some(value)),
                None => Err(values[0].expected(what)),
            },
            Some((place, _)) => Err(place.error(format!("`{key}` takes {what}"))),
        }
    }

    /// Whether `key` is there, alone.
    pub fn flag(&mut self, key: &str) -> Result<bool, ParseError> {
        match self.take(key) {
            None => Ok(false),
            Some((_, values)) if values.is_empty() => Ok(true),
            Some((place, _)) => Err(place.error(format!("`{key}` takes no value"))),
        }
    }

    /// A number, if it is there.
    pub fn maybe_float(&mut self, key: &str) -> Result<Option<f32>, ParseError> {
        self.optional(key, "a number", parsed)
    }

    /// A number.
    pub fn float(&mut self, key: &str) -> Result<f32, ParseError> {
        let value = self.maybe_float(key)?;
        self.required(key, value)
    }

    /// Numbers in brackets.
    pub fn floats(&mut self, key: &str) -> Result<Vec<f32>, ParseError> {
        let (_, values) = self.take(key).ok_or_else(|| self.node.error(format!("`{key}` is missing")))?;
        values.iter().map(|place| parsed(place.token).ok_or_else(|| place.expected("a number"))).collect()
    }

    /// A whole number, if it is there.
    pub fn maybe_count(&mut self, key: &str) -> Result<Option<usize>, ParseError> {
        self.optional(key, "a whole number", parsed)
    }

    /// A whole number.
    pub fn count(&mut self, key: &str) -> Result<usize, ParseError> {
        let value = self.maybe_count(key)?;
        self.required(key, value)
    }

    fn format(&mut self) -> Result<Option<Format>, ParseError> {
        self.optional("format", "a storage format", parsed)
    }

    fn activation(&mut self, key: &str) -> Result<Option<Activation>, ParseError> {
        self.optional(key, "an activation", |token| match token {
            Token::Word(word) => activation(word),
            _ => None,
        })
    }

    fn rope(&mut self, ropes: &BTreeMap<&'t str, Rope>) -> Result<Rope, ParseError> {
        let rope = self.optional("rope", "a rotation defined above", |token| match token {
            Token::Rope(name) => ropes.get(name).cloned(),
            _ => None,
        })?;
        self.required("rope", rope)
    }
}

fn parsed<T: std::str::FromStr>(token: Token<'_>) -> Option<T> {
    if let Token::Word(word) = token { word.parse().ok() } else { None }
}

fn activation(name: &str) -> Option<Activation> {
    Activation::ALL.into_iter().find(|activation| activation.name() == name)
}

/// The operation of this mnemonic, except sources.
pub fn op<'t>(mnemonic: &str, a: &mut Attributes<'t>, ropes: &BTreeMap<&'t str, Rope>) -> Result<Op, ParseError> {
    if let Some(activation) = activation(mnemonic) {
        return Ok(Op::Activate(activation));
    }
    let norm = |kind, a: &mut Attributes<'t>| {
        let heads = a.maybe_count("heads")?.unwrap_or(1);
        Ok(Op::Norm(Norm { kind, heads, eps: a.float("eps")?, residual: a.flag("residual")? }))
    };
    Ok(match mnemonic {
        "add_scalar" => Op::AddScalar { value: a.float("value")? },
        "concat_rows" => Op::ConcatRows,
        "interleave_rows" => Op::InterleaveRows,
        "dequantize" => {
            let format = a.format()?;
            Op::Dequantize { format: a.required("format", format)?, columns: a.count("columns")? }
        }
        "embed" => Op::Embed { scale: a.float("scale")?, format: a.format()?, columns: a.count("columns")? },
        "matmul" => {
            let format = a.format()?;
            let rms_norm = a.maybe_float("rms_norm")?;
            let bias = a.flag("bias")?;
            let plain = a.activation("activation")?.map(Epilogue::Plain);
            let gated = a.activation("gated")?.map(Epilogue::Gated);
            if plain.is_some() && gated.is_some() {
                return Err(a.node.error("`activation` and `gated` exclude each other"));
            }
            let soft_cap = a.maybe_float("soft_cap")?;
            let residual = a.flag("residual")?;
            Op::MatMul(MatMul { format, rms_norm, bias, activation: plain.or(gated), soft_cap, residual })
        }
        "rms_norm" => norm(NormKind::Rms, a)?,
        "layer_norm" => norm(NormKind::Layer, a)?,
        "add" => Op::Add,
        "mul" => Op::Mul,
        "scale" => Op::Scale { factor: a.float("factor")? },
        "soft_cap" => Op::SoftCap { cap: a.float("cap")? },
        "slice" => Op::Slice { start: a.count("start")?, len: a.count("len")? },
        "slice_rows" => Op::SliceRows { start: a.count("start")?, len: a.count("len")? },
        "last_row" => Op::LastRow,
        "rope" => Op::Rope(a.rope(ropes)?),
        "write_rows" => Op::WriteRows { stride: a.count("stride")?, offset: a.count("offset")? },
        "attention" => Op::Attention(Attention {
            n_heads: a.count("n_heads")?,
            n_kv_heads: a.count("n_kv_heads")?,
            head_dim: a.count("head_dim")?,
            scale: a.float("scale")?,
            soft_cap: a.maybe_float("soft_cap")?,
            window: a.maybe_count("window")?,
            causal: a.flag("causal")?,
        }),
        "overlay_rows" => Op::OverlayRows,
        "patchify" => Op::Patchify { height: a.count("height")?, width: a.count("width")?, patch: a.count("patch")? },
        "rope_write_kv" => Op::RopeWriteKv(RopeWriteKv {
            n_heads: a.count("n_heads")?,
            n_kv_heads: a.count("n_kv_heads")?,
            rope: a.rope(ropes)?,
        }),
        "glu" => {
            let activation = a.activation("activation")?;
            Op::Glu(a.required("activation", activation)?)
        }
        _ => return Err(a.node.error(format!("unknown operation `{mnemonic}`"))),
    })
}
