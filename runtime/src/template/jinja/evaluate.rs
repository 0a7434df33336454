//! Evaluates expressions.

use std::rc::Rc;
use std::sync::Arc;

use super::arguments::{self, Given};
use super::fault::{Fault, Result};
use super::render::Renderer;
use super::syntax::{Arguments, Expr, ExprNode};
use super::value::{Dict, Kind, List, ListBuilder, Make, Text, TextBuilder, Value};

impl Renderer {
    /// The value of an expression.
    pub(super) fn evaluate(&mut self, expr: &Expr) -> Result<Value> {
        self.meter.step()?;
        match &expr.node {
            ExprNode::None => Ok(Value::None),
            ExprNode::Bool(value) => Ok(Value::Bool(*value)),
            ExprNode::Int(value) => Ok(Value::Int(*value)),
            ExprNode::Float(value) => Ok(Value::Float(*value)),
            ExprNode::Str(text) => Ok(Value::Str(Text::from(text))),
            ExprNode::Name(name) => self.name(name),
            ExprNode::Body => Ok(self.bodies.last().cloned().unwrap_or(Value::None)),
            _ => {
                let _level = self.meter.enter()?;
                self.evaluate_parts(expr)
            }
        }
    }

    fn evaluate_parts(&mut self, expr: &Expr) -> Result<Value> {
        match &expr.node {
            ExprNode::Attribute(object, name) => {
                let object = self.evaluate(object)?;
                self.line = expr.line;
                self.attribute(&object, name)
            }
            ExprNode::Item(object, key) => {
                let object = self.evaluate(object)?;
                let key = self.evaluate(key)?;
                self.line = expr.line;
                self.item(&object, &key)
            }
            ExprNode::Call(..) => self.evaluate_call(expr, None),
            ExprNode::Filter(value, name, arguments) => {
                let value = self.evaluate(value)?;
                let given = self.given(arguments)?;
                self.line = expr.line;
                self.filter(name, value, given)
            }
            ExprNode::Test(value, name, arguments) => {
                let value = self.evaluate(value)?;
                let given = self.given(arguments)?;
                self.line = expr.line;
                Ok(Value::Bool(self.test(name, &value, given)?))
            }
            ExprNode::Not(inner) => Ok(Value::Bool(!self.evaluate(inner)?.truth())),
            ExprNode::And(left, right) => {
                let left = self.evaluate(left)?;
                if left.truth() { self.evaluate(right) } else { Ok(left) }
            }
            ExprNode::Or(left, right) => {
                let left = self.evaluate(left)?;
                if left.truth() { Ok(left) } else { self.evaluate(right) }
            }
            ExprNode::Condition(test, value, otherwise) => {
                if self.evaluate(test)?.truth() {
                    return self.evaluate(value);
                }
                match otherwise {
                    Some(otherwise) => self.evaluate(otherwise),
                    None => self
                        .meter
                        .undefined("the inline if-expression evaluated to false and no else section was defined."),
                }
            }
            _ => self.evaluate_operation(expr),
        }
    }

    fn evaluate_operation(&mut self, expr: &Expr) -> Result<Value> {
        match &expr.node {
            ExprNode::Binary(operator, left, right) => {
                let left = self.evaluate(left)?;
                let right = self.evaluate(right)?;
                self.line = expr.line;
                self.binary(*operator, &left, &right)
            }
            ExprNode::Negative(inner) => {
                let value = self.evaluate(inner)?;
                self.negative(&value)
            }
            ExprNode::Positive(inner) => {
                let value = self.evaluate(inner)?;
                match value {
                    Value::Bool(value) => Ok(Value::Int(i64::from(value))),
                    Value::Int(_) | Value::Float(_) => Ok(value),
                    other => Fault::failed(format!("bad operand type for unary +: '{}'", other.type_name())),
                }
            }
            ExprNode::Compare(first, rest) => {
                let mut left = self.evaluate(first)?;
                for (comparison, right) in rest {
                    let right = self.evaluate(right)?;
                    self.line = expr.line;
                    if !self.compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            ExprNode::Concat(parts) => {
                let mut out = TextBuilder::new(&self.meter)?;
                for part in parts {
                    let value = self.evaluate(part)?;
                    self.write_str(&value, &mut out)?;
                }
                Ok(out.finish())
            }
            ExprNode::Slice(object, bounds) => {
                let object = self.evaluate(object)?;
                let mut values = [None, None, None];
                for (value, bound) in values.iter_mut().zip(bounds.iter()) {
                    *value = bound.as_ref().map(|bound| self.evaluate(bound)).transpose()?;
                }
                self.line = expr.line;
                self.slice(&object, values)
            }
            ExprNode::List(items) => self.evaluate_list(items, Kind::List),
            ExprNode::Tuple(items) => self.evaluate_list(items, Kind::Tuple),
            ExprNode::Dict(entries) => {
                let mut dict = Dict::new(&self.meter)?;
                for (key, value) in entries {
                    let key = self.evaluate(key)?;
                    let value = self.evaluate(value)?;
                    dict.insert(&self.meter, key, value)?;
                }
                Ok(dict.finish())
            }
            _ => Ok(Value::None),
        }
    }

    fn evaluate_list(&mut self, items: &[Expr], kind: Kind) -> Result<Value> {
        let mut list = ListBuilder::new(&self.meter)?;
        for item in items {
            list.push(self.evaluate(item)?)?;
        }
        list.finish(kind)
    }

    /// A call; `caller` is the block of a `{% call %}`.
    pub(super) fn evaluate_call(&mut self, expr: &Expr, caller: Option<Value>) -> Result<Value> {
        let ExprNode::Call(callee, arguments) = &expr.node else { return self.evaluate(expr) };
        let callee = self.evaluate(callee)?;
        let given = self.given(arguments)?;
        self.line = expr.line;
        self.call(&callee, given, caller)
    }

    /// Calls a value.
    pub(super) fn call(&mut self, callee: &Value, given: Given, caller: Option<Value>) -> Result<Value> {
        match callee {
            Value::Macro(closure) => self.call_macro(closure, given, caller),
            _ if caller.is_some() => Fault::failed("only a macro can be called with a block"),
            Value::Function(function) => self.call_function(*function, given),
            Value::Method(method) => self.call_method(&method.0, &method.1, given),
            Value::Joiner(index) => self.join_next(*index),
            Value::Loop(state) => {
                let [items] = given.bind("loop", ["iterable"])?;
                self.loop_again(state, &arguments::required(items, "loop")?)
            }
            Value::Undefined(reason) => Fault::failed(&**reason),
            other => Fault::failed(format!("'{}' object is not callable", other.type_name())),
        }
    }

    fn given(&mut self, arguments: &Arguments) -> Result<Given> {
        let mut given = Given::default();
        for value in &arguments.positional {
            given.positional.push(self.evaluate(value)?);
        }
        for (name, value) in &arguments.named {
            given.named.push((name.clone(), self.evaluate(value)?));
        }
        if let Some(spread) = &arguments.spread {
            let values = self.evaluate(spread)?;
            given.positional.extend(self.iterate(&values)?.items.iter().cloned());
        }
        if let Some(spread) = &arguments.spread_named {
            let values = self.evaluate(spread)?;
            given.named.extend(arguments::named(&values, &self.meter)?);
        }
        Ok(given)
    }

    /// The items of a value, as a loop takes them.
    pub(super) fn iterate(&self, value: &Value) -> Result<Rc<List>> {
        let mut list = ListBuilder::new(&self.meter)?;
        match value {
            Value::List(list) => {
                self.meter.steps(list.items.len() as u64 / 8)?;
                return Ok(list.clone());
            }
            Value::Undefined(_) => {}
            Value::Str(text) => {
                for letter in text.chars() {
                    list.push(self.meter.str(letter.encode_utf8(&mut [0; 4]))?)?;
                }
            }
            Value::Dict(dict) => {
                for (key, _) in dict.entries.values() {
                    list.push(key.clone())?;
                }
            }
            Value::Range(range) => {
                for index in 0..range.len() {
                    list.push(Value::Int(range.at(index)))?;
                }
            }
            Value::Lazy(lazy) => match &lazy.taken {
                None => return Ok(lazy.items.clone()),
                Some(taken) if taken.get() == 0 => {
                    taken.set(usize::MAX);
                    return Ok(lazy.items.clone());
                }
                Some(taken) => {
                    for item in lazy.items.items.iter().skip(taken.replace(usize::MAX)) {
                        list.push(item.clone())?;
                    }
                }
            },
            other => return Fault::failed(format!("'{}' object is not iterable", other.type_name())),
        }
        Ok(list.build(Kind::List))
    }

    /// How many items or letters a value has.
    pub(super) fn length(&self, value: &Value) -> Result<usize> {
        Ok(match value {
            Value::Undefined(_) => 0,
            Value::Str(text) => {
                self.meter.touch(text.len())?;
                text.chars().count()
            }
            Value::List(list) => list.items.len(),
            Value::Dict(dict) => dict.entries.len(),
            Value::Range(range) => range.len(),
            Value::Lazy(lazy) if lazy.taken.is_none() => lazy.items.items.len(),
            Value::Loop(state) => state.items.items.len(),
            other => return Fault::failed(format!("object of type '{}' has no len()", other.type_name())),
        })
    }

    /// A method, bound to its object.
    pub(super) fn method(&self, object: &Value, name: &Arc<str>) -> Value {
        Value::Method(Rc::new((object.clone(), name.clone())))
    }
}
