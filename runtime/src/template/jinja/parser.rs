//! Statements of a template, from tokens to syntax tree.

mod expression;

use std::sync::Arc;

use super::fault::{Fault, Result};
use super::lexer::{Token, tokens};
use super::syntax::{Arguments, Expr, ExprNode, For, Macro, Stmt, StmtNode, Target};

/// The most levels of brackets and blocks within each other. Jinja on Python gives up at fewer.
const MOST_DEPTH: u32 = 100;
/// The most operators within each other, which a chain such as `a + b + c` is.
const MOST_OPERATORS: u32 = 150;

/// The statements of a template.
///
/// # Errors
/// The line and the reason.
pub(super) fn parse(source: &str) -> std::result::Result<Vec<Stmt>, (u32, Fault)> {
    let mut parser = Parser { tokens: tokens(source)?, at: 0, depth: 0, asked: Vec::new() };
    let result = parser.statements(&[]).and_then(|body| match parser.peek() {
        Token::End => Ok(body),
        _ => parser.unexpected(),
    });
    result.map_err(|fault| (parser.line(), fault))
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    /// Levels of recursion.
    depth: u32,
    /// What the macros around this place ask for: `varargs`, `kwargs`, `caller`.
    asked: Vec<[bool; 3]>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn ahead(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if &**found == name)
    }

    fn is_name_of(&self, names: &[&str]) -> bool {
        matches!(self.peek(), Token::Name(found) if names.contains(&&**found))
    }

    fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        if found {
            self.next();
        }
        found
    }

    fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn expect_op(&mut self, op: &'static str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { self.expected(&format!("'{op}'")) }
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<()> {
        if self.peek() != token {
            return self.expected(what);
        }
        self.next();
        Ok(())
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.peek() {
            Token::Name(_) => match self.next() {
                Token::Name(name) => Ok(name),
                _ => self.unexpected(),
            },
            _ => self.expected("a name"),
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T> {
        Fault::failed(format!("expected {what}, found {}", describe(self.peek())))
    }

    fn unexpected<T>(&self) -> Result<T> {
        Fault::failed(format!("unexpected {}", describe(self.peek())))
    }

    /// Runs a part of the parser one level deeper.
    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(Fault::Limit(format!("{MOST_DEPTH} levels of brackets and blocks")));
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// Statements up to a tag that begins with one of these words, which is left; or to the end of the template.
    fn statements(&mut self, ends: &[&str]) -> Result<Vec<Stmt>> {
        self.deeper(|parser| {
            let mut body = Vec::new();
            loop {
                let line = parser.line();
                let node = match parser.peek() {
                    Token::Text(text) => {
                        let text = text.clone();
                        parser.next();
                        StmtNode::Text(text)
                    }
                    Token::PrintBegin => {
                        parser.next();
                        let expr = parser.tuple()?;
                        parser.expect(&Token::PrintEnd, "'}}'")?;
                        StmtNode::Print(expr)
                    }
                    Token::BlockBegin => {
                        if matches!(parser.ahead(), Token::Name(name) if ends.contains(&&**name)) {
                            return Ok(body);
                        }
                        parser.next();
                        parser.statement()?
                    }
                    Token::End if ends.is_empty() => return Ok(body),
                    Token::End => {
                        return Fault::failed(format!("unexpected end of template, expected {{% {} %}}", ends[0]));
                    }
                    _ => return parser.unexpected(),
                };
                body.push(Stmt { node, line });
            }
        })
    }

    fn block_end(&mut self) -> Result<()> {
        self.expect(&Token::BlockEnd, "'%}'")
    }

    /// The body of a block up to `{% end %}`, that included.
    fn body(&mut self, end: &str) -> Result<Vec<Stmt>> {
        self.block_end()?;
        let body = self.statements(&[end])?;
        self.next();
        self.next();
        Ok(body)
    }

    fn statement(&mut self) -> Result<StmtNode> {
        let word = match self.peek() {
            Token::Name(_) => self.name()?,
            _ => return self.expected("the name of a tag"),
        };
        let node = match &*word {
            "if" => return self.if_statement(),
            "for" => return self.for_statement(),
            "set" => return self.set_statement(),
            "print" => StmtNode::Print(self.concatenated()?),
            "with" => return self.with_statement(),
            "macro" => {
                let name = self.name()?;
                return Ok(StmtNode::Macro(Arc::new(self.macro_rest(name, "endmacro")?)));
            }
            "call" => return self.call_statement(),
            "filter" => {
                let filter = self.filter_chain()?;
                let body = self.body("endfilter")?;
                self.block_end()?;
                return Ok(StmtNode::FilterBody(filter, body));
            }
            "generation" => {
                let body = self.body("endgeneration")?;
                self.block_end()?;
                return Ok(StmtNode::Scope(body));
            }
            "block" => {
                self.name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                let body = self.body("endblock")?;
                if matches!(self.peek(), Token::Name(_)) {
                    self.next();
                }
                self.block_end()?;
                return Ok(StmtNode::Block(body));
            }
            "break" => StmtNode::Break,
            "continue" => StmtNode::Continue,
            "extends" | "include" | "import" | "from" => {
                while !matches!(self.peek(), Token::BlockEnd | Token::End) {
                    self.next();
                }
                StmtNode::Foreign(word)
            }
            other => return Fault::failed(format!("Encountered unknown tag '{other}'")),
        };
        self.block_end()?;
        Ok(node)
    }

    fn if_statement(&mut self) -> Result<StmtNode> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.tuple_without_condition(false)?;
            self.block_end()?;
            branches.push((condition, self.statements(&["elif", "else", "endif"])?));
            self.next();
            match &*self.name()? {
                "elif" => continue,
                "else" => {
                    otherwise = self.body("endif")?;
                    break;
                }
                _ => break,
            }
        }
        self.block_end()?;
        Ok(StmtNode::If(branches, otherwise))
    }

    fn for_statement(&mut self) -> Result<StmtNode> {
        let target = self.target(&["in"])?;
        if !self.skip_name("in") {
            return self.expected("'in'");
        }
        let iterable = self.tuple_until(&["recursive"], false)?;
        let filter = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.block_end()?;
        let body = self.statements(&["endfor", "else"])?;
        self.next();
        let otherwise = if self.skip_name("else") {
            self.body("endfor")?
        } else {
            self.next();
            Vec::new()
        };
        self.block_end()?;
        Ok(StmtNode::For(Arc::new(For { target, iterable, filter, body, otherwise, recursive })))
    }

    fn set_statement(&mut self) -> Result<StmtNode> {
        let target = self.target(&[])?;
        if self.skip_op("=") {
            let value = self.tuple()?;
            self.block_end()?;
            return Ok(StmtNode::Set(target, value));
        }
        let filter = match self.is_op("|") {
            true => self.filters_of(Expr { node: ExprNode::Body, line: self.line(), depth: 1 })?,
            false => Expr { node: ExprNode::Body, line: self.line(), depth: 1 },
        };
        let body = self.body("endset")?;
        self.block_end()?;
        Ok(StmtNode::SetBody(target, filter, body))
    }

    fn with_statement(&mut self) -> Result<StmtNode> {
        let mut values = Vec::new();
        while !matches!(self.peek(), Token::BlockEnd) {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.single_target()?;
            self.expect_op("=")?;
            values.push((target, self.expression()?));
        }
        let body = self.body("endwith")?;
        self.block_end()?;
        Ok(StmtNode::With(values, body))
    }

    fn call_statement(&mut self) -> Result<StmtNode> {
        let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call.node, ExprNode::Call(..)) {
            return Fault::failed("expected call");
        }
        let caller = self.macro_body("caller".into(), parameters, "endcall")?;
        Ok(StmtNode::Call(Arc::new(caller), call))
    }

    fn macro_rest(&mut self, name: Arc<str>, end: &str) -> Result<Macro> {
        let parameters = self.parameters()?;
        self.macro_body(name, parameters, end)
    }

    fn macro_body(&mut self, name: Arc<str>, parameters: Vec<(Arc<str>, Option<Expr>)>, end: &str) -> Result<Macro> {
        self.asked.push([false; 3]);
        let body = self.body(end)?;
        let [varargs, kwargs, caller] = self.asked.pop().unwrap_or_default();
        self.block_end()?;
        Ok(Macro { name, parameters, body, varargs, kwargs, caller })
    }

    /// Names with their defaults, in parentheses.
    fn parameters(&mut self) -> Result<Vec<(Arc<str>, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = match self.skip_op("=") {
                true => Some(self.expression()?),
                false if parameters.last().is_some_and(|(_, default)| default.is_some()) => {
                    return Fault::failed("non-default argument follows default argument");
                }
                false => None,
            };
            parameters.push((name, default));
        }
        self.next();
        Ok(parameters)
    }

    /// `name | name(…) | …`, applied to a body.
    fn filter_chain(&mut self) -> Result<Expr> {
        let line = self.line();
        let name = self.dotted_name()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        let body = Box::new(Expr { node: ExprNode::Body, line, depth: 1 });
        let first = Expr { node: ExprNode::Filter(body, name, Box::new(arguments)), line, depth: 2 };
        self.filters_of(first)
    }

    /// One or several targets, up to one of these words.
    fn target(&mut self, ends: &[&str]) -> Result<Target> {
        let first = self.single_target()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_op(",") {
            if self.is_name_of(ends) || self.is_op("=") || self.is_op(")") {
                break;
            }
            targets.push(self.single_target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn single_target(&mut self) -> Result<Target> {
        if self.is_op("(") || self.is_op("[") {
            let close = if self.is_op("(") { ")" } else { "]" };
            self.next();
            let target = self.deeper(|parser| parser.target(&[]))?;
            self.expect_op(close)?;
            return Ok(target);
        }
        let name = self.name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&&*name) {
            return Fault::failed(format!("can't assign to '{name}'"));
        }
        if self.skip_op(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}

fn describe(token: &Token) -> String {
    match token {
        Token::Text(_) => "text".to_owned(),
        Token::BlockBegin => "'{%'".to_owned(),
        Token::BlockEnd => "'%}'".to_owned(),
        Token::PrintBegin => "'{{'".to_owned(),
        Token::PrintEnd => "'}}'".to_owned(),
        Token::Name(name) => format!("'{name}'"),
        Token::Str(_) => "a string".to_owned(),
        Token::Int(value) => format!("{value}"),
        Token::Float(value) => format!("{value}"),
        Token::Op(op) => format!("'{op}'"),
        Token::End => "the end of the template".to_owned(),
    }
}
