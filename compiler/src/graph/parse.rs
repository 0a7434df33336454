//! Parses the text form of a graph, which [`print`](mod@super::print) describes.
//!
//! Types are taken as written: [`verify`](super::verify::verify) checks them. The parser reads any text in time and memory
//! linear in its length; only recipes nest, up to [`MAX_DEPTH`].

mod attributes;
mod tokens;

use std::collections::BTreeMap;

use self::attributes::{Attributes, op};
use self::tokens::{Token, Tokens};
use super::print::is_label;
use super::*;

/// Nesting of recipes that is accepted.
pub const MAX_DEPTH: usize = 32;

/// Where a text is no graph, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// In bytes, counted from 1.
    pub column: usize,
    /// What was expected, or what is wrong.
    pub why: String,
}

/// Parses one graph. Values are numbered in the order of their definition.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser =
        Parser { tokens: Tokens::new(text), graph: Graph::default(), names: BTreeMap::new(), ropes: BTreeMap::new() };
    parser.graph()?;
    Ok(parser.graph)
}

struct Parser<'t> {
    tokens: Tokens<'t>,
    graph: Graph,
    names: BTreeMap<&'t str, ValueId>,
    ropes: BTreeMap<&'t str, Rope>,
}

impl<'t> Parser<'t> {
    fn graph(&mut self) -> Result<(), ParseError> {
        self.tokens.keyword("graph")?;
        self.graph.name = self.tokens.word("the function's name")?.to_owned();
        loop {
            let at = self.tokens.next()?;
            match at.token {
                Token::Rope(name) => {
                    let rope = self.rope_definition()?;
                    if self.ropes.insert(name, rope).is_some() {
                        return Err(at.error(format!("@{name} is defined twice")));
                    }
                }
                Token::Value(first) => self.node(first)?,
                Token::Word("return") => break,
                _ => return Err(at.expected("a value, a rotation or `return`")),
            }
        }
        self.outputs()?;
        let at = self.tokens.next()?;
        if at.token == Token::End { Ok(()) } else { Err(at.expected("the end")) }
    }

    fn rope_definition(&mut self) -> Result<Rope, ParseError> {
        self.tokens.punctuation('=')?;
        let place = self.tokens.keyword("rope")?;
        let mut attributes = Attributes::read(&mut self.tokens, place)?;
        let rope = Rope {
            head_dim: attributes.count("head_dim")?,
            magnitude: attributes.float("magnitude")?,
            inv_freq: attributes.floats("inv_freq")?,
        };
        attributes.finish()?;
        Ok(rope)
    }

    fn node(&mut self, first: &'t str) -> Result<(), ParseError> {
        let mut names = vec![(self.tokens.place(), first)];
        while self.tokens.accept(',')? {
            let at = self.tokens.next()?;
            let Token::Value(name) = at.token else { return Err(at.expected("a value")) };
            names.push((at, name));
        }
        self.tokens.punctuation('=')?;
        let mnemonic = self.tokens.word("an operation")?;
        let place = self.tokens.place();
        let source = self.source(mnemonic)?;
        let mut operands = Vec::new();
        if source.is_none() && matches!(self.tokens.peek()?.token, Token::Value(_)) {
            operands.push(self.value()?);
            while self.tokens.accept(',')? {
                operands.push(self.value()?);
            }
        }
        let mut attributes = Attributes::read(&mut self.tokens, place)?;
        let op = match source {
            Some(op) => op,
            None => op(mnemonic, &mut attributes, &self.ropes)?,
        };
        attributes.finish()?;
        self.tokens.punctuation(':')?;
        let mut results = Vec::with_capacity(names.len());
        for (index, (place, name)) in names.into_iter().enumerate() {
            if index > 0 {
                self.tokens.punctuation(',')?;
            }
            let ty = self.ty()?;
            let id = self.graph.new_value(ty);
            let label = name.split_once('#').map_or(name, |(label, _)| label);
            if is_label(label) {
                self.graph.values[id.index()].label = Some(label.to_owned());
            }
            if self.names.insert(name, id).is_some() {
                return Err(place.error(format!("%{name} is defined twice")));
            }
            results.push(id);
        }
        self.graph.nodes.push(Node { op, operands, results });
        Ok(())
    }

    /// The operations that name something instead of operands.
    fn source(&mut self, mnemonic: &str) -> Result<Option<Op>, ParseError> {
        Ok(Some(match mnemonic {
            "input" => Op::Input { name: self.tokens.word("the input's name")?.to_owned() },
            "state" => Op::State { name: self.tokens.word("the state's name")?.to_owned() },
            "weight" => Op::Weight(self.recipe(MAX_DEPTH)?),
            "call" => {
                let name = self.tokens.word("position or tile")?;
                let scalar = CallScalar::ALL.into_iter().find(|scalar| scalar.name() == name);
                Op::Call(scalar.ok_or_else(|| self.tokens.place().expected("position or tile"))?)
            }
            _ => return Ok(None),
        }))
    }

    fn recipe(&mut self, depth: usize) -> Result<Recipe, ParseError> {
        let at = self.tokens.next()?;
        let Some(depth) = depth.checked_sub(1) else { return Err(at.error("the recipe is nested too deeply")) };
        match at.token {
            Token::Punctuation('(') => {
                let inner = self.recipe(depth)?;
                self.tokens.punctuation('+')?;
                let value = self.tokens.number("a number")?;
                self.tokens.punctuation(')')?;
                Ok(Recipe::AddScalar(Box::new(inner), value))
            }
            Token::Word(name) => {
                let function = matches!(name, "rows" | "interleave") && self.tokens.accept('(')?;
                if !function {
                    return Ok(Recipe::Tensor(name.to_owned()));
                }
                let mut parts = vec![self.recipe(depth)?];
                while self.tokens.accept(',')? {
                    parts.push(self.recipe(depth)?);
                }
                self.tokens.punctuation(')')?;
                if name == "rows" {
                    return Ok(Recipe::ConcatRows(parts));
                }
                match <[Recipe; 2]>::try_from(parts) {
                    Ok(pair) => Ok(Recipe::InterleaveRows(Box::new(pair))),
                    Err(parts) => Err(at.error(format!("interleave takes two parts, not {}", parts.len()))),
                }
            }
            _ => Err(at.expected("a recipe")),
        }
    }

    fn value(&mut self) -> Result<ValueId, ParseError> {
        let at = self.tokens.next()?;
        let Token::Value(name) = at.token else { return Err(at.expected("a value")) };
        self.names.get(name).copied().ok_or_else(|| at.error(format!("%{name} is not defined above")))
    }

    fn ty(&mut self) -> Result<Type, ParseError> {
        const DTYPES: [DType; 5] = [DType::F32, DType::F16, DType::Bf16, DType::U32, DType::I32];
        let name = self.tokens.word("a type")?;
        let dtype = DTYPES.into_iter().find(|dtype| dtype.name() == name);
        let dtype = dtype.ok_or_else(|| self.tokens.place().expected("a type"))?;
        self.tokens.punctuation('[')?;
        let mut shape = Vec::new();
        while !self.tokens.accept(']')? {
            if !shape.is_empty() {
                self.tokens.punctuation(',')?;
            }
            shape.push(match self.tokens.word("a dimension")? {
                "rows" => Dim::Rows,
                number => Dim::Fixed(number.parse().map_err(|_| self.tokens.place().expected("a dimension"))?),
            });
        }
        Ok(Type { dtype, shape })
    }

    fn outputs(&mut self) -> Result<(), ParseError> {
        if self.tokens.peek()?.token == Token::End {
            return Ok(());
        }
        loop {
            let name = self.tokens.word("an output's name")?.to_owned();
            self.tokens.punctuation('=')?;
            let value = self.value()?;
            self.graph.outputs.push((name, value));
            if !self.tokens.accept(',')? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
