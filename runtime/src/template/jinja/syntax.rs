//! The syntax tree of a template.

use std::sync::Arc;

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) node: ExprNode,
    pub(crate) line: u32,
    /// Levels of expressions within it, itself included.
    pub(crate) depth: u32,
}

/// What an expression is.
#[derive(Debug)]
pub(crate) enum ExprNode {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Box<Arguments>),
    Filter(Box<Expr>, Arc<str>, Box<Arguments>),
    Test(Box<Expr>, Arc<str>, Box<Arguments>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    Concat(Vec<Expr>),
    /// Test, what holds if it does, what holds if not.
    Condition(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    /// What stands between the tags of a filter or `set` block.
    Body,
}

/// An arithmetic operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

impl Binary {
    /// As it is written.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Subtract => "-",
            Binary::Multiply => "*",
            Binary::Divide => "/",
            Binary::FloorDivide => "//",
            Binary::Remainder => "%",
            Binary::Power => "** or pow()",
        }
    }
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<Expr>,
    pub(crate) named: Vec<(Arc<str>, Expr)>,
    /// `*values`.
    pub(crate) spread: Option<Expr>,
    /// `**values`.
    pub(crate) spread_named: Option<Expr>,
}

/// A statement, or text between tags.
#[derive(Debug)]
pub(crate) struct Stmt {
    pub(crate) node: StmtNode,
    pub(crate) line: u32,
}

/// What a statement is.
#[derive(Debug)]
pub(crate) enum StmtNode {
    Text(Arc<str>),
    Print(Expr),
    /// Conditions with their bodies, and the body of `else`.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    For(Arc<For>),
    Set(Target, Expr),
    /// A name is set to the body, or to what filters make of it.
    SetBody(Target, Expr, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    Macro(Arc<Macro>),
    /// The body is given to a macro as `caller`.
    Call(Arc<Macro>, Expr),
    FilterBody(Expr, Vec<Stmt>),
    /// A body with names of its own.
    Scope(Vec<Stmt>),
    /// `{% block %}`: sees the names of the whole template only.
    Block(Vec<Stmt>),
    Break,
    Continue,
    /// A statement that needs other templates.
    Foreign(Arc<str>),
}

/// What is assigned to.
#[derive(Debug)]
pub(crate) enum Target {
    Name(Arc<str>),
    Tuple(Vec<Target>),
    /// An attribute of a namespace.
    Attribute(Arc<str>, Arc<str>),
}

/// A loop.
#[derive(Debug)]
pub(crate) struct For {
    pub(crate) target: Target,
    pub(crate) iterable: Expr,
    pub(crate) filter: Option<Expr>,
    pub(crate) body: Vec<Stmt>,
    pub(crate) otherwise: Vec<Stmt>,
    pub(crate) recursive: bool,
}

/// A macro.
#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) name: Arc<str>,
    pub(crate) parameters: Vec<(Arc<str>, Option<Expr>)>,
    pub(crate) body: Vec<Stmt>,
    /// Whether its body asks for further positional arguments.
    pub(crate) varargs: bool,
    /// Whether its body asks for further named arguments.
    pub(crate) kwargs: bool,
    /// Whether its body asks for the block of a `{% call %}`.
    pub(crate) caller: bool,
}
