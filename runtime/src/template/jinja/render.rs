//! Executes statements: names and their scopes, loops, macros, and what is written.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::arguments::Given;
use super::fault::{Fault, Result};
use super::functions::FUNCTIONS;
use super::meter::{Held, Meter};
use super::syntax::{Expr, For, Macro, Stmt, StmtNode, Target};
use super::value::{Attributes, Closure, Dict, Kind, List, ListBuilder, Loop, Make, TextBuilder, Value, check_nesting};

/// Names that are seen from one place of a template.
#[derive(Default)]
pub(super) struct Frame {
    names: RefCell<HashMap<Arc<str>, Value>>,
    outer: Option<Rc<Frame>>,
}

impl Frame {
    fn within(outer: &Rc<Frame>) -> Rc<Frame> {
        Rc::new(Frame { names: RefCell::default(), outer: Some(outer.clone()) })
    }

    fn set(&self, name: &Arc<str>, value: Value) {
        self.names.borrow_mut().insert(name.clone(), value);
    }

    /// The value of a name, and how many frames were searched for it.
    fn get(&self, name: &str) -> (Option<Value>, u64) {
        let mut frame = self;
        let mut searched = 0;
        loop {
            searched += 1;
            if let Some(value) = frame.names.borrow().get(name) {
                return (Some(value.clone()), searched);
            }
            match frame.outer.as_deref() {
                Some(outer) => frame = outer,
                None => return (None, searched),
            }
        }
    }
}

/// How to go on after a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering of a template.
pub(crate) struct Renderer {
    pub(super) meter: Rc<Meter>,
    pub(super) now: SystemTime,
    /// The line that is executed.
    pub(super) line: u32,
    frame: Rc<Frame>,
    /// The frame of the whole template.
    root: Rc<Frame>,
    /// Frames that macros refer to. Values hold their index, so that there are no cycles.
    captured: Vec<Rc<Frame>>,
    pub(super) namespaces: Vec<Attributes>,
    pub(super) cyclers: Vec<(Value, usize)>,
    pub(super) joiners: Vec<(Value, bool)>,
    /// The text in the making: the template's, and those of macros and blocks within it.
    output: Vec<TextBuilder>,
    /// Texts that filters of blocks begin with.
    pub(super) bodies: Vec<Value>,
    loops: usize,
    /// What the lists above take.
    kept: Held,
}

impl Renderer {
    /// A rendering with these names; `now` is what `strftime_now` gives.
    pub(crate) fn new(meter: &Rc<Meter>, now: SystemTime) -> Result<Renderer> {
        let globals = Frame::default();
        for (name, function) in FUNCTIONS {
            globals.set(&name.into(), Value::Function(function));
        }
        let root = Frame::within(&Rc::new(globals));
        Ok(Renderer {
            meter: meter.clone(),
            now,
            line: 0,
            frame: root.clone(),
            root,
            captured: Vec::new(),
            namespaces: Vec::new(),
            cyclers: Vec::new(),
            joiners: Vec::new(),
            output: vec![TextBuilder::new(meter)?],
            bodies: Vec::new(),
            loops: 0,
            kept: meter.hold(0)?,
        })
    }

    /// Makes a name known to the template.
    pub(crate) fn define(&mut self, name: &str, value: Value) {
        self.root.set(&name.into(), value);
    }

    /// The text of a template.
    ///
    /// # Errors
    /// The line and the reason.
    pub(crate) fn render(mut self, body: &[Stmt]) -> std::result::Result<String, (u32, Fault)> {
        match self.run(body) {
            Ok(Flow::Next) => Ok(self.output.pop().map(TextBuilder::into_string).unwrap_or_default()),
            Ok(_) => Err((self.line, Fault::Failed("'break' or 'continue' outside loop".to_owned()))),
            Err(fault) => Err((self.line, fault)),
        }
    }

    /// Takes memory until the end of the rendering.
    pub(super) fn keep(&mut self, bytes: usize) -> Result<()> {
        self.kept.grow(bytes)
    }

    /// The value of a name.
    pub(super) fn name(&self, name: &str) -> Result<Value> {
        let (found, searched) = self.frame.get(name);
        self.meter.steps(searched / 4)?;
        match found {
            Some(value) => Ok(value),
            None => self.meter.undefined(&format!("'{name}' is undefined")),
        }
    }

    fn run(&mut self, body: &[Stmt]) -> Result<Flow> {
        let _level = self.meter.enter()?;
        for statement in body {
            self.meter.step()?;
            self.line = statement.line;
            let flow = match &statement.node {
                StmtNode::Text(text) => {
                    self.write(text)?;
                    Flow::Next
                }
                StmtNode::Print(expr) => {
                    self.print(expr)?;
                    Flow::Next
                }
                other => self.run_tag(other)?,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, expr: &Expr) -> Result<()> {
        let value = self.evaluate(expr)?;
        if let Value::Str(text) = &value {
            return self.write(text);
        }
        let mut out = TextBuilder::new(&self.meter)?;
        self.write_str(&value, &mut out)?;
        self.write(out.as_str())
    }

    fn write(&mut self, text: &str) -> Result<()> {
        match self.output.last_mut() {
            Some(out) => out.push(text),
            None => Ok(()),
        }
    }

    fn run_tag(&mut self, node: &StmtNode) -> Result<Flow> {
        match node {
            StmtNode::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition)?.truth() {
                        return self.run(body);
                    }
                }
                return self.run(otherwise);
            }
            StmtNode::For(node) => {
                let value = self.evaluate(&node.iterable)?;
                self.run_loop(node, &value)?;
            }
            StmtNode::Set(target, expr) => {
                let value = self.evaluate(expr)?;
                self.assign(target, value)?;
            }
            StmtNode::SetBody(target, filter, body) => {
                let value = self.filtered(filter, body)?;
                self.assign(target, value)?;
            }
            StmtNode::FilterBody(filter, body) => {
                let value = self.filtered(filter, body)?;
                let mut out = TextBuilder::new(&self.meter)?;
                self.write_str(&value, &mut out)?;
                self.write(out.as_str())?;
            }
            StmtNode::With(values, body) => {
                // All values are those of the names outside.
                let evaluated = values.iter().map(|(_, expr)| self.evaluate(expr)).collect::<Result<Vec<_>>>()?;
                let frame = Frame::within(&self.frame);
                return self.in_frame(frame, |renderer| {
                    for ((target, _), value) in values.iter().zip(evaluated) {
                        renderer.assign(target, value)?;
                    }
                    renderer.run(body)
                });
            }
            StmtNode::Macro(node) => {
                let closure = self.capture(node)?;
                self.frame.set(&node.name, closure);
            }
            StmtNode::Call(caller, call) => {
                let caller = self.capture(caller)?;
                let value = self.evaluate_call(call, Some(caller))?;
                let mut out = TextBuilder::new(&self.meter)?;
                self.write_str(&value, &mut out)?;
                self.write(out.as_str())?;
            }
            StmtNode::Scope(body) => {
                let frame = Frame::within(&self.frame);
                return self.in_frame(frame, |renderer| renderer.run(body));
            }
            StmtNode::Block(body) => {
                let frame = Frame::within(&self.root);
                return self.in_frame(frame, |renderer| renderer.run(body));
            }
            StmtNode::Break => return Ok(Flow::Break),
            StmtNode::Continue => return Ok(Flow::Continue),
            StmtNode::Foreign(word) => {
                return Fault::failed(format!("{{% {word} %}} needs another template, and there is none"));
            }
            StmtNode::Text(_) | StmtNode::Print(_) => {}
        }
        Ok(Flow::Next)
    }

    fn in_frame<T>(&mut self, frame: Rc<Frame>, run: impl FnOnce(&mut Renderer) -> Result<T>) -> Result<T> {
        let outer = std::mem::replace(&mut self.frame, frame);
        let result = run(self);
        self.frame = outer;
        result
    }

    /// Collects what a body writes.
    fn collect(&mut self, body: &[Stmt]) -> Result<Value> {
        self.output.push(TextBuilder::new(&self.meter)?);
        let flow = self.run(body);
        let text = self.output.pop();
        if flow? != Flow::Next {
            return Fault::failed("'break' or 'continue' outside loop");
        }
        text.map_or_else(|| self.meter.str(""), |text| Ok(text.finish()))
    }

    fn filtered(&mut self, filter: &Expr, body: &[Stmt]) -> Result<Value> {
        let frame = Frame::within(&self.frame);
        let text = self.in_frame(frame, |renderer| renderer.collect(body))?;
        self.bodies.push(text);
        let value = self.evaluate(filter);
        self.bodies.pop();
        value
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.frame.set(name, value),
            Target::Attribute(name, attribute) => match self.name(name)? {
                Value::Namespace(index) => self.set_attribute(index, attribute, value)?,
                _ => return Fault::failed("cannot assign attribute on non-namespace object"),
            },
            Target::Tuple(targets) => {
                let items = self.iterate(&value)?;
                let (wanted, found) = (targets.len(), items.items.len());
                if found > wanted {
                    return Fault::failed(format!("too many values to unpack (expected {wanted})"));
                }
                if found < wanted {
                    return Fault::failed(format!("not enough values to unpack (expected {wanted}, got {found})"));
                }
                for (target, item) in targets.iter().zip(&items.items) {
                    self.assign(target, item.clone())?;
                }
            }
        }
        Ok(())
    }

    fn run_loop(&mut self, node: &Arc<For>, value: &Value) -> Result<()> {
        let again = match node.recursive {
            true => Some((node.clone(), self.capture_frame()?)),
            false => None,
        };
        let all = self.iterate(value)?;
        let items = match &node.filter {
            Some(filter) => self.kept_items(node, filter, &all)?,
            None => all,
        };
        check_nesting(items.depth() + 1)?;
        if items.items.is_empty() {
            let frame = Frame::within(&self.frame);
            // `else` has no loop around it to leave, so what it says of an outer one is an error, as in Jinja.
            return match self.in_frame(frame, |renderer| renderer.run(&node.otherwise))? {
                Flow::Next => Ok(()),
                _ => Fault::failed("'break' or 'continue' in the else of a loop"),
            };
        }
        let state = Rc::new(Loop { items, index: Cell::new(0), level: self.loops, again, changed: RefCell::new(None) });
        self.loops += 1;
        let result = self.run_items(node, &state);
        self.loops -= 1;
        result
    }

    fn run_items(&mut self, node: &For, state: &Rc<Loop>) -> Result<()> {
        let name: Arc<str> = "loop".into();
        for (index, item) in state.items.items.iter().enumerate() {
            self.meter.step()?;
            state.index.set(index);
            let frame = Frame::within(&self.frame);
            let flow = self.in_frame(frame, |renderer| {
                renderer.frame.set(&name, Value::Loop(state.clone()));
                renderer.assign(&node.target, item.clone())?;
                renderer.run(&node.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The items for which the filter of a loop holds.
    fn kept_items(&mut self, node: &For, filter: &Expr, all: &Rc<List>) -> Result<Rc<List>> {
        let mut kept = ListBuilder::new(&self.meter)?;
        for item in &all.items {
            let frame = Frame::within(&self.frame);
            let keep = self.in_frame(frame, |renderer| {
                renderer.assign(&node.target, item.clone())?;
                renderer.evaluate(filter)
            })?;
            if keep.truth() {
                kept.push(item.clone())?;
            }
        }
        Ok(kept.build(Kind::List))
    }

    /// Repeats a recursive loop with other items; gives what it writes.
    pub(super) fn loop_again(&mut self, state: &Loop, value: &Value) -> Result<Value> {
        let Some((node, frame)) = &state.again else {
            return Fault::failed("The loop must have the 'recursive' marker to be called recursively");
        };
        let _level = self.meter.enter()?;
        let frame = self.captured[*frame].clone();
        self.output.push(TextBuilder::new(&self.meter)?);
        let result = self.in_frame(frame, |renderer| renderer.run_loop(node, value));
        let text = self.output.pop();
        result?;
        text.map_or_else(|| self.meter.str(""), |text| Ok(text.finish()))
    }

    /// Keeps the present frame until the end of the rendering.
    fn capture_frame(&mut self) -> Result<usize> {
        if self.captured.last().is_some_and(|last| Rc::ptr_eq(last, &self.frame)) {
            return Ok(self.captured.len() - 1);
        }
        self.keep(256)?;
        self.captured.push(self.frame.clone());
        Ok(self.captured.len() - 1)
    }

    fn capture(&mut self, node: &Arc<Macro>) -> Result<Value> {
        let frame = self.capture_frame()?;
        Ok(Value::Macro(Rc::new(Closure { node: node.clone(), frame })))
    }

    /// Calls a macro; `caller` is the block of a `{% call %}`.
    pub(super) fn call_macro(&mut self, closure: &Closure, given: Given, caller: Option<Value>) -> Result<Value> {
        let _level = self.meter.enter()?;
        let node = closure.node.clone();
        let frame = Frame::within(&self.captured[closure.frame]);
        let line = self.line;
        let result = self.in_frame(frame, |renderer| {
            renderer.bind_parameters(&node, given, caller)?;
            renderer.collect(&node.body)
        })?;
        self.line = line;
        Ok(result)
    }

    fn bind_parameters(&mut self, node: &Macro, given: Given, caller: Option<Value>) -> Result<()> {
        let name = &node.name;
        let mut named = given.named;
        let mut positional = given.positional.into_iter();
        for (parameter, default) in &node.parameters {
            self.meter.steps(1 + named.len() as u64)?;
            let by_name = named.iter().position(|(name, _)| name == parameter).map(|index| named.remove(index).1);
            let value = match (positional.next(), by_name) {
                (Some(_), Some(_)) => {
                    return Fault::failed(format!("macro '{name}' got multiple values for argument '{parameter}'"));
                }
                (Some(value), None) | (None, Some(value)) => value,
                (None, None) => match default {
                    Some(default) => self.evaluate(default)?,
                    None => self.meter.undefined(&format!("parameter '{parameter}' was not provided"))?,
                },
            };
            self.frame.set(parameter, value);
        }
        if node.caller {
            let by_name = named.iter().position(|(name, _)| &**name == "caller").map(|index| named.remove(index).1);
            let caller = match caller.or(by_name) {
                Some(caller) => caller,
                None => self.meter.undefined("No caller defined")?,
            };
            self.frame.set(&"caller".into(), caller);
        } else if caller.is_some() {
            return Fault::failed(format!("macro '{name}' takes no caller"));
        }
        if node.kwargs {
            let mut dict = Dict::new(&self.meter)?;
            for (name, value) in named.drain(..) {
                dict.insert(&self.meter, self.meter.str(&name)?, value)?;
            }
            self.frame.set(&"kwargs".into(), dict.finish());
        } else if let Some((unknown, _)) = named.first() {
            return Fault::failed(format!("macro '{name}' takes no keyword argument '{unknown}'"));
        }
        if node.varargs {
            let rest = self.meter.list(Kind::Tuple, positional)?;
            self.frame.set(&"varargs".into(), rest);
        } else if positional.len() > 0 {
            let most = node.parameters.len();
            return Fault::failed(format!("macro '{name}' takes not more than {most} argument(s)"));
        }
        Ok(())
    }
}
