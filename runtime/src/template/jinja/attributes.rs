//! Attributes and items of values, as Jinja's sandbox gives them.

use std::sync::Arc;

use super::fault::{Fault, Result};
use super::methods;
use super::render::Renderer;
use super::text;
use super::value::{Kind, Loop, Make, Text, Value};

impl Renderer {
    /// `object.name`: an attribute, else an item, else undefined.
    pub(super) fn attribute(&self, object: &Value, name: &Arc<str>) -> Result<Value> {
        if let Some(value) = self.own_attribute(object, name)? {
            return Ok(value);
        }
        match object {
            Value::Dict(dict) => match dict.get(name) {
                Some(value) => Ok(value.clone()),
                None => self.missing(object, name),
            },
            _ => self.missing(object, name),
        }
    }

    /// `object[key]`: an item, else an attribute, else undefined.
    pub(super) fn item(&self, object: &Value, key: &Value) -> Result<Value> {
        let place = |length: usize| {
            let index = key.as_int()?;
            let index = if index < 0 { index.checked_add(length as i64)? } else { index };
            usize::try_from(index).ok().filter(|&index| index < length)
        };
        let found = match object {
            Value::Undefined(reason) => return Fault::failed(&**reason),
            Value::Dict(dict) => match key.key(&self.meter) {
                Ok(hashed) => dict.entries.get(&hashed).map(|(_, value)| value.clone()),
                Err(fault @ Fault::Limit(_)) => return Err(fault),
                Err(_) => None,
            },
            Value::List(list) => place(list.items.len()).map(|index| list.items[index].clone()),
            Value::Range(range) => place(range.len()).map(|index| Value::Int(range.at(index))),
            Value::Str(text) if key.as_int().is_some() => {
                let place = place(self.length(object)?);
                place.map(|index| self.meter.str(text::letters(text, index, 1))).transpose()?
            }
            _ => None,
        };
        match (found, key) {
            (Some(value), _) => Ok(value),
            (None, Value::Str(name)) if name.len() <= 256 => {
                let name: Arc<str> = Arc::from(&**name);
                match self.own_attribute(object, &name)? {
                    Some(value) => Ok(value),
                    None => self.missing(object, &name),
                }
            }
            (None, Value::Str(name)) => self.missing(object, name),
            (None, Value::Int(index)) => self.meter.undefined(&format!("{} has no element {index}", described(object))),
            (None, _) => self.meter.undefined(&format!("{} has no such element", described(object))),
        }
    }

    fn missing(&self, object: &Value, name: &str) -> Result<Value> {
        self.meter.undefined(&format!("{} has no attribute '{}'", described(object), super::fault::brief(name)))
    }

    /// Attributes that are no items; `None` where there is no such one.
    fn own_attribute(&self, object: &Value, name: &Arc<str>) -> Result<Option<Value>> {
        let name_text: &str = name;
        let method = || Ok(Some(self.method(object, name)));
        match object {
            Value::Undefined(reason) => Fault::failed(&**reason),
            Value::Str(_) if methods::of_text(name) => method(),
            Value::Dict(_) | Value::List(_) if methods::changes(object, name) => {
                Fault::failed(format!("access to attribute '{name}' of '{}' object is unsafe.", object.type_name()))
            }
            Value::Dict(_) if methods::of_dict(name) => method(),
            Value::List(list) => match name_text {
                "grouper" if list.kind == Kind::Group => Ok(list.items.first().cloned()),
                "list" if list.kind == Kind::Group => Ok(list.items.get(1).cloned()),
                "count" | "index" => method(),
                "copy" if list.kind == Kind::List => method(),
                _ => Ok(None),
            },
            Value::Range(range) => Ok(match name_text {
                "start" => Some(Value::Int(range.start)),
                "stop" => Some(Value::Int(range.stop)),
                "step" => Some(Value::Int(range.step)),
                _ => None,
            }),
            Value::Int(_) | Value::Bool(_) => match name_text {
                "bit_length" | "is_integer" => method(),
                "real" | "numerator" => Ok(object.as_int().map(Value::Int)),
                _ => Ok(None),
            },
            Value::Float(value) => match name_text {
                "is_integer" => method(),
                "real" => Ok(Some(Value::Float(*value))),
                _ => Ok(None),
            },
            Value::Namespace(index) => Ok(self.namespaces[*index].get(name).cloned()),
            Value::Cycler(index) => match name_text {
                "next" | "reset" => method(),
                "current" => match &self.cyclers[*index] {
                    (Value::List(list), at) => Ok(list.items.get(*at).cloned()),
                    _ => Ok(None),
                },
                _ => Ok(None),
            },
            Value::Loop(state) => match name_text {
                "cycle" | "changed" => method(),
                _ => self.loop_attribute(state, name),
            },
            Value::Macro(closure) => Ok(match name_text {
                "name" => Some(Value::Str(Text::from(&closure.node.name))),
                "arguments" => {
                    let names = closure.node.parameters.iter().map(|(name, _)| Value::Str(Text::from(name)));
                    Some(self.meter.list(Kind::Tuple, names)?)
                }
                "catch_kwargs" => Some(Value::Bool(closure.node.kwargs)),
                "catch_varargs" => Some(Value::Bool(closure.node.varargs)),
                "caller" => Some(Value::Bool(closure.node.caller)),
                _ => None,
            }),
            _ => Ok(None),
        }
    }

    fn loop_attribute(&self, state: &Loop, name: &str) -> Result<Option<Value>> {
        let (index, length) = (state.index.get(), state.items.items.len());
        let number = |value: usize| Ok(Some(Value::Int(value as i64)));
        let neighbour = |place: Option<usize>, what: &str| match place.and_then(|place| state.items.items.get(place)) {
            Some(item) => Ok(Some(item.clone())),
            None => self.meter.undefined(what).map(Some),
        };
        match name {
            "index" => number(index + 1),
            "index0" => number(index),
            "revindex" => number(length - index),
            "revindex0" => number(length - index - 1),
            "first" => Ok(Some(Value::Bool(index == 0))),
            "last" => Ok(Some(Value::Bool(index + 1 == length))),
            "length" => number(length),
            "depth" => number(state.level + 1),
            "depth0" => number(state.level),
            "previtem" => neighbour(index.checked_sub(1), "there is no previous item"),
            "nextitem" => neighbour(Some(index + 1), "there is no next item"),
            _ => Ok(None),
        }
    }
}

/// An object in messages about what it lacks.
fn described(object: &Value) -> String {
    match object {
        Value::None => "'None'".to_owned(),
        other => format!("'{} object'", other.type_name()),
    }
}
