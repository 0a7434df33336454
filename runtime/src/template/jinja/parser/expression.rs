//! Expressions of a template, with Jinja's precedences.

use std::sync::Arc;

use super::{MOST_OPERATORS, Parser};
use crate::template::jinja::fault::{Fault, Result};
use crate::template::jinja::lexer::Token;
use crate::template::jinja::syntax::{Arguments, Binary, Comparison, Expr, ExprNode};

/// Operators of arithmetic, weakest first; those of one line bind alike. `~` stands between the first and the second line.
const LEVELS: [&[(&str, Binary)]; 3] = [
    &[("+", Binary::Add), ("-", Binary::Subtract)],
    &[("*", Binary::Multiply), ("/", Binary::Divide), ("//", Binary::FloorDivide), ("%", Binary::Remainder)],
    &[("**", Binary::Power)],
];

impl Parser {
    /// An expression over parts with the given depths.
    fn node(&self, line: u32, depth: u32, node: ExprNode) -> Result<Expr> {
        if depth >= MOST_OPERATORS {
            return Err(Fault::Limit(format!("{MOST_OPERATORS} operators within each other")));
        }
        Ok(Expr { node, line, depth: depth + 1 })
    }

    fn two(&self, left: Expr, right: Expr, node: impl FnOnce(Box<Expr>, Box<Expr>) -> ExprNode) -> Result<Expr> {
        let (line, depth) = (left.line, left.depth.max(right.depth));
        self.node(line, depth, node(Box::new(left), Box::new(right)))
    }

    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.deeper(|parser| parser.condition())
    }

    /// An expression, or several with commas between them.
    pub(super) fn tuple(&mut self) -> Result<Expr> {
        self.tuple_until(&[], true)
    }

    /// As [`Parser::tuple`]; `else` of a condition within it is not required to be there.
    pub(super) fn tuple_without_condition(&mut self, conditions: bool) -> Result<Expr> {
        self.tuple_until(&[], conditions)
    }

    /// As [`Parser::tuple`], up to one of these words; `a if b else c` is read only if `conditions`.
    pub(super) fn tuple_until(&mut self, ends: &[&str], conditions: bool) -> Result<Expr> {
        self.deeper(|parser| {
            let line = parser.line();
            let mut items = Vec::new();
            let mut comma = false;
            loop {
                if comma && parser.ends_tuple(ends) {
                    break;
                }
                items.push(if conditions { parser.condition()? } else { parser.or()? });
                if !parser.skip_op(",") {
                    break;
                }
                comma = true;
            }
            match (items.pop(), comma) {
                (Some(only), false) => Ok(only),
                (last, _) => {
                    items.extend(last);
                    let depth = deepest(&items);
                    parser.node(line, depth, ExprNode::Tuple(items))
                }
            }
        })
    }

    /// Expressions with commas between them, whose texts are written one after the other.
    pub(super) fn concatenated(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut parts = vec![self.expression()?];
        while self.skip_op(",") {
            parts.push(self.expression()?);
        }
        self.node(line, deepest(&parts), ExprNode::Concat(parts))
    }

    fn ends_tuple(&self, ends: &[&str]) -> bool {
        matches!(self.peek(), Token::BlockEnd | Token::PrintEnd | Token::Op(")" | "]")) || self.is_name_of(ends)
    }

    fn condition(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        while self.skip_name("if") {
            let test = self.or()?;
            let otherwise = if self.skip_name("else") { Some(Box::new(self.expression()?)) } else { None };
            let depth = value.depth.max(test.depth).max(otherwise.as_ref().map_or(0, |e| e.depth));
            value = self.node(value.line, depth, ExprNode::Condition(Box::new(test), Box::new(value), otherwise))?;
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.two(left, right, ExprNode::Or)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.two(left, right, ExprNode::And)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.skip_name("not") {
            let inner = self.deeper(|parser| parser.not())?;
            return self.node(line, inner.depth, ExprNode::Not(Box::new(inner)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.arithmetic(0)?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Op("==") => Comparison::Equal,
                Token::Op("!=") => Comparison::NotEqual,
                Token::Op("<") => Comparison::Less,
                Token::Op("<=") => Comparison::LessOrEqual,
                Token::Op(">") => Comparison::Greater,
                Token::Op(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if &**name == "in" => Comparison::In,
                Token::Name(name) if &**name == "not" && matches!(self.ahead(), Token::Name(n) if &**n == "in") => {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.arithmetic(0)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let depth = rest.iter().map(|(_, e)| e.depth).max().unwrap_or(0).max(first.depth);
        self.node(first.line, depth, ExprNode::Compare(Box::new(first), rest))
    }

    fn arithmetic(&mut self, level: usize) -> Result<Expr> {
        let operand = |parser: &mut Parser| match level {
            0 => parser.concat(),
            2 => parser.unary(true),
            _ => parser.arithmetic(level + 1),
        };
        let mut left = operand(self)?;
        while let Some(&(_, binary)) = LEVELS[level].iter().find(|(op, _)| self.is_op(op)) {
            self.next();
            let right = operand(self)?;
            left = self.two(left, right, |left, right| ExprNode::Binary(binary, left, right))?;
        }
        Ok(left)
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.arithmetic(1)?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let line = first.line;
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.arithmetic(1)?);
        }
        self.node(line, deepest(&parts), ExprNode::Concat(parts))
    }

    fn unary(&mut self, filters: bool) -> Result<Expr> {
        let line = self.line();
        let mut value = if self.skip_op("-") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.node(line, inner.depth, ExprNode::Negative(Box::new(inner)))?
        } else if self.skip_op("+") {
            let inner = self.deeper(|parser| parser.unary(false))?;
            self.node(line, inner.depth, ExprNode::Positive(Box::new(inner)))?
        } else {
            self.primary()?
        };
        value = self.postfix(value)?;
        if filters { self.filters_of(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let node = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match &*name {
                    "true" | "True" => ExprNode::Bool(true),
                    "false" | "False" => ExprNode::Bool(false),
                    "none" | "None" => ExprNode::None,
                    _ => {
                        if let Some(asked) = ["varargs", "kwargs", "caller"].iter().position(|n| *n == &*name) {
                            self.asked.iter_mut().for_each(|of_macro| of_macro[asked] = true);
                        }
                        ExprNode::Name(name)
                    }
                }
            }
            Token::Str(mut text) => {
                self.next();
                while let Token::Str(more) = self.peek() {
                    text += more;
                    self.next();
                }
                ExprNode::Str(text.into())
            }
            Token::Int(value) => {
                self.next();
                ExprNode::Int(value)
            }
            Token::Float(value) => {
                self.next();
                ExprNode::Float(value)
            }
            Token::Op("(") => {
                self.next();
                if self.skip_op(")") {
                    ExprNode::Tuple(Vec::new())
                } else {
                    let inner = self.tuple()?;
                    self.expect_op(")")?;
                    return Ok(inner);
                }
            }
            Token::Op("[") => {
                self.next();
                let items = self.items("]")?;
                let depth = deepest(&items);
                return self.node(line, depth, ExprNode::List(items));
            }
            Token::Op("{") => return self.dict(line),
            _ => return self.unexpected(),
        };
        self.node(line, 0, node)
    }

    /// Expressions with commas between them, up to and with `close`.
    fn items(&mut self, close: &'static str) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.is_op(close) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(close) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.next();
        Ok(items)
    }

    fn dict(&mut self, line: u32) -> Result<Expr> {
        self.next();
        let mut entries = Vec::new();
        let mut depth = 0;
        while !self.is_op("}") {
            if !entries.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            let value = self.expression()?;
            depth = depth.max(key.depth).max(value.depth);
            entries.push((key, value));
        }
        self.next();
        self.node(line, depth, ExprNode::Dict(entries))
    }

    /// Attributes, items and calls of a value.
    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            if self.skip_op(".") {
                match self.next() {
                    Token::Name(name) => {
                        value = self.node(line, value.depth, ExprNode::Attribute(Box::new(value), name))?;
                    }
                    Token::Int(index) => {
                        let index = Expr { node: ExprNode::Int(index), line, depth: 1 };
                        value = self.two(value, index, ExprNode::Item)?;
                    }
                    _ => return Fault::failed("expected name or number"),
                }
            } else if self.skip_op("[") {
                value = self.subscript(value)?;
            } else if self.is_op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn call(&mut self, value: Expr) -> Result<Expr> {
        let arguments = self.arguments()?;
        let depth = depth_of(&arguments).max(value.depth);
        self.node(value.line, depth, ExprNode::Call(Box::new(value), Box::new(arguments)))
    }

    fn subscript(&mut self, value: Expr) -> Result<Expr> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        while !self.is_op("]") {
            if self.skip_op(":") {
                colons += 1;
                if colons > 2 {
                    return self.unexpected();
                }
            } else if parts[colons].is_some() {
                break;
            } else {
                parts[colons] = Some(self.expression()?);
            }
        }
        if colons > 0 {
            self.expect_op("]")?;
            let depth = parts.iter().flatten().map(|e| e.depth).max().unwrap_or(0).max(value.depth);
            return self.node(value.line, depth, ExprNode::Slice(Box::new(value), Box::new(parts)));
        }
        let [Some(first), ..] = parts else { return self.expected("an expression") };
        let index = if self.is_op(",") {
            let mut items = vec![first];
            while self.skip_op(",") {
                if self.is_op("]") {
                    break;
                }
                items.push(self.expression()?);
            }
            let depth = deepest(&items);
            self.node(value.line, depth, ExprNode::Tuple(items))?
        } else {
            first
        };
        self.expect_op("]")?;
        self.two(value, index, ExprNode::Item)
    }

    pub(super) fn arguments(&mut self) -> Result<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            if self.skip_op("*") {
                arguments.spread = Some(self.expression()?);
            } else if self.skip_op("**") {
                arguments.spread_named = Some(self.expression()?);
            } else if matches!((self.peek(), self.ahead()), (Token::Name(_), Token::Op("="))) {
                let name = self.name()?;
                self.next();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() && arguments.spread_named.is_none() {
                arguments.positional.push(self.expression()?);
            } else {
                return Fault::failed("invalid syntax for function call expression");
            }
        }
        self.next();
        Ok(arguments)
    }

    /// A name with dots.
    pub(super) fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?;
        while self.skip_op(".") {
            name = format!("{name}.{}", self.name()?).into();
            if name.len() > 256 {
                return Fault::failed("a name with dots is longer than 256 bytes");
            }
        }
        Ok(name)
    }

    /// Filters, tests and calls behind a value.
    pub(super) fn filters_of(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            if self.skip_op("|") {
                let name = self.dotted_name()?;
                let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
                let depth = depth_of(&arguments).max(value.depth);
                value = self.node(line, depth, ExprNode::Filter(Box::new(value), name, Box::new(arguments)))?;
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is_op("(") {
                value = self.call(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let line = self.line();
        let negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let mut arguments = Arguments::default();
        let takes_one = match self.peek() {
            Token::Name(word) => !["else", "or", "and"].contains(&&**word),
            Token::Str(_) | Token::Int(_) | Token::Float(_) | Token::Op("[" | "{") => true,
            _ => false,
        };
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else if takes_one {
            if self.is_name("is") {
                return Fault::failed("You cannot chain multiple tests with is");
            }
            let argument = self.deeper(|parser| {
                let argument = parser.primary()?;
                parser.postfix(argument)
            })?;
            arguments.positional.push(argument);
        }
        let depth = depth_of(&arguments).max(value.depth);
        let test = self.node(line, depth, ExprNode::Test(Box::new(value), name, Box::new(arguments)))?;
        if !negated {
            return Ok(test);
        }
        self.node(line, test.depth, ExprNode::Not(Box::new(test)))
    }
}

fn deepest(items: &[Expr]) -> u32 {
    items.iter().map(|item| item.depth).max().unwrap_or(0)
}

fn depth_of(arguments: &Arguments) -> u32 {
    let named = arguments.named.iter().map(|(_, value)| value.depth);
    let spread = arguments.spread.iter().chain(&arguments.spread_named).map(|value| value.depth);
    named.chain(spread).max().unwrap_or(0).max(deepest(&arguments.positional))
}
