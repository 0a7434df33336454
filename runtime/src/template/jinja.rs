//! Jinja as transformers sets it up for chat templates (`utils/chat_template_utils.py`), with Python's values.
//!
//! Facts come from the documentation of Jinja and Python; `testdata` holds what they print. Templates are untrusted, so
//! everything they do is counted before it is done ([`meter`]), and nothing recurses deeper than it counts.

mod arguments;
mod attributes;
mod evaluate;
pub(super) mod fault;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
pub(super) mod meter;
mod methods;
mod operators;
mod parser;
mod percent;
mod predicates;
mod print;
mod render;
mod sort;
mod syntax;
mod text;
pub(super) mod value;

use std::rc::Rc;
use std::time::SystemTime;

use fault::Fault;
use meter::Meter;
use render::Renderer;
use syntax::Stmt;
use value::Value;

/// The largest template; published ones have at most some tens of kilobytes.
const MOST_SOURCE_BYTES: usize = 1 << 20;

/// A template that was read.
#[derive(Debug)]
pub(super) struct Program {
    body: Vec<Stmt>,
}

impl Program {
    /// Reads a template.
    ///
    /// # Errors
    /// The line, from 1, and the reason.
    pub(super) fn parse(source: &str) -> Result<Program, (u32, Fault)> {
        if source.len() > MOST_SOURCE_BYTES {
            return Err((0, Fault::Limit(format!("{MOST_SOURCE_BYTES} bytes of text"))));
        }
        Ok(Program { body: parser::parse(source)? })
    }

    /// Renders it with the names that `define` gives.
    ///
    /// # Errors
    /// The line, 0 where there is none, and the reason.
    pub(super) fn render(
        &self,
        now: SystemTime,
        define: impl FnOnce(&Rc<Meter>) -> fault::Result<Vec<(String, Value)>>,
    ) -> Result<String, (u32, Fault)> {
        let meter = Rc::new(Meter::default());
        let begin = || {
            let mut renderer = Renderer::new(&meter, now)?;
            for (name, value) in define(&meter)? {
                renderer.define(&name, value);
            }
            Ok(renderer)
        };
        begin().map_err(|fault| (0, fault))?.render(&self.body)
    }
}

#[cfg(test)]
mod tests;
