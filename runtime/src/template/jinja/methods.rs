//! Methods of Python's texts, lists and dictionaries.

mod text;

use super::arguments::{Given, required};
use super::fault::{Fault, Result};
use super::render::Renderer;
use super::value::{Kind, ListBuilder, Make, TextBuilder, Value};

pub(super) use text::is_method as of_text;

/// Whether dictionaries have this method.
pub(super) fn of_dict(name: &str) -> bool {
    ["get", "items", "keys", "values", "copy"].contains(&name)
}

/// Whether this method would change a list or dictionary, which Jinja's sandbox refuses.
pub(super) fn changes(object: &Value, name: &str) -> bool {
    match object {
        Value::Dict(_) => ["clear", "pop", "popitem", "setdefault", "update"].contains(&name),
        Value::List(list) if list.kind == Kind::List => {
            ["append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"].contains(&name)
        }
        _ => false,
    }
}

impl Renderer {
    /// Calls a method.
    pub(super) fn call_method(&mut self, object: &Value, name: &str, given: Given) -> Result<Value> {
        match object {
            Value::Str(text) => self.text_method(text, name, given),
            Value::Dict(dict) => {
                if name == "get" {
                    let [key, default] = given.bind("get", ["key", "default"])?;
                    let key = required(key, "get")?.key(&self.meter)?;
                    let found = dict.entries.get(&key).map(|(_, value)| value.clone());
                    return Ok(found.or(default).unwrap_or(Value::None));
                }
                let [] = given.bind(name, [])?;
                let mut list = ListBuilder::new(&self.meter)?;
                match name {
                    "keys" => {
                        for (key, _) in dict.entries.values() {
                            list.push(key.clone())?;
                        }
                        list.view("dict_keys")
                    }
                    "values" => {
                        for (_, value) in dict.entries.values() {
                            list.push(value.clone())?;
                        }
                        list.view("dict_values")
                    }
                    "items" => {
                        for (key, value) in dict.entries.values() {
                            list.push(self.meter.list(Kind::Tuple, [key.clone(), value.clone()])?)?;
                        }
                        list.view("dict_items")
                    }
                    _ => Ok(object.clone()),
                }
            }
            Value::List(list) => match name {
                "copy" => Ok(object.clone()),
                _ => {
                    let [wanted] = given.bind(name, ["value"])?;
                    let wanted = required(wanted, name)?;
                    let mut count = 0;
                    for (index, item) in list.items.iter().enumerate() {
                        if self.equal(item, &wanted)? {
                            if name == "index" {
                                return Ok(Value::Int(index as i64));
                            }
                            count += 1;
                        }
                    }
                    if name == "count" {
                        return Ok(Value::Int(count));
                    }
                    let mut out = TextBuilder::new(&self.meter)?;
                    self.write_repr(&wanted, &mut out)?;
                    Fault::failed(format!("{} is not in list", super::fault::brief(out.as_str())))
                }
            },
            Value::Int(_) | Value::Bool(_) | Value::Float(_) => Ok(match (name, object) {
                ("is_integer", Value::Float(value)) => Value::Bool(value.fract() == 0.0),
                ("is_integer", _) => Value::Bool(true),
                _ => {
                    let value = object.as_int().unwrap_or(0).unsigned_abs();
                    Value::Int(i64::from(u64::BITS - value.leading_zeros()))
                }
            }),
            Value::Cycler(index) => {
                if name == "reset" {
                    self.cyclers[*index].1 = 0;
                    return Ok(Value::None);
                }
                self.cycle(*index)
            }
            Value::Loop(state) => {
                if name == "cycle" {
                    if given.positional.is_empty() {
                        return Fault::failed("no items for cycling given");
                    }
                    let index = state.index.get() % given.positional.len();
                    return Ok(given.positional[index].clone());
                }
                let mut out = TextBuilder::new(&self.meter)?;
                for value in &given.positional {
                    self.write_repr(value, &mut out)?;
                    out.push(",")?;
                }
                let now = out.into_text();
                let changed = state.changed.borrow().as_deref() != Some(&*now);
                *state.changed.borrow_mut() = Some(now);
                Ok(Value::Bool(changed))
            }
            other => Fault::failed(format!("'{}' object has no method '{name}'", other.type_name())),
        }
    }
}
