//! The functions that a template finds without defining them.

use std::rc::Rc;

use super::arguments::{Given, int, named, required, text};
use super::fault::{Fault, Result};
use super::render::Renderer;
use super::value::{Dict, Make, Range, TextBuilder, Value};
use crate::template::date;

/// The longest `range`, as in Jinja's sandbox.
const MOST_RANGE: usize = 100_000;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

/// All functions, by name.
pub(super) const FUNCTIONS: [(&str, Function); 7] = [
    ("range", Function::Range),
    ("dict", Function::Dict),
    ("namespace", Function::Namespace),
    ("cycler", Function::Cycler),
    ("joiner", Function::Joiner),
    ("raise_exception", Function::RaiseException),
    ("strftime_now", Function::StrftimeNow),
];

impl Function {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

impl Renderer {
    /// Calls a function.
    pub(super) fn call_function(&mut self, function: Function, given: Given) -> Result<Value> {
        match function {
            Function::Range => range(given),
            Function::Dict => self.dict(given),
            Function::Namespace => self.namespace(given),
            Function::Cycler => {
                if given.positional.is_empty() {
                    return Fault::failed("at least one item has to be provided");
                }
                let list = self.meter.list(super::value::Kind::List, given.positional)?;
                self.cyclers.push((list, 0));
                Ok(Value::Cycler(self.cyclers.len() - 1))
            }
            Function::Joiner => {
                let [separator] = given.bind("joiner", ["sep"])?;
                self.joiners.push((separator.map_or_else(|| self.meter.str(", "), Ok)?, false));
                Ok(Value::Joiner(self.joiners.len() - 1))
            }
            Function::RaiseException => {
                let [message] = given.bind("raise_exception", ["message"])?;
                let mut out = TextBuilder::new(&self.meter)?;
                self.write_str(&required(message, "raise_exception")?, &mut out)?;
                Err(Fault::Raised(out.into_string()))
            }
            Function::StrftimeNow => {
                let [format] = given.bind("strftime_now", ["format"])?;
                let mut out = TextBuilder::new(&self.meter)?;
                date::format(self.now, &text(required(format, "strftime_now")?, "strftime")?, &mut out)?;
                Ok(out.finish())
            }
        }
    }

    fn dict(&mut self, mut given: Given) -> Result<Value> {
        let mut dict = Dict::new(&self.meter)?;
        if !given.positional.is_empty() {
            match given.first("dict")? {
                Value::Dict(from) => {
                    for (key, value) in from.entries.values() {
                        dict.insert(&self.meter, key.clone(), value.clone())?;
                    }
                }
                pairs => {
                    for pair in self.iterate(&pairs)?.items.iter() {
                        let pair = self.iterate(pair)?;
                        let [key, value] = pair.items.as_slice() else {
                            return Fault::failed("dictionary update sequence element is not of length 2");
                        };
                        dict.insert(&self.meter, key.clone(), value.clone())?;
                    }
                }
            }
        }
        for (name, value) in given.named {
            dict.insert(&self.meter, self.meter.str(&name)?, value)?;
        }
        Ok(dict.finish())
    }

    fn namespace(&mut self, mut given: Given) -> Result<Value> {
        if !given.positional.is_empty() {
            let mut all = named(&given.first("namespace")?, &self.meter)?;
            all.append(&mut given.named);
            given.named = all;
        }
        let index = self.namespaces.len();
        self.keep(256)?;
        self.namespaces.push(Default::default());
        for (name, value) in given.named {
            self.set_attribute(index, &name, value)?;
        }
        Ok(Value::Namespace(index))
    }

    /// Sets an attribute of a namespace.
    pub(super) fn set_attribute(&mut self, index: usize, name: &std::sync::Arc<str>, value: Value) -> Result<()> {
        if self.namespaces[index].insert(name.clone(), value).is_none() {
            self.keep(128 + name.len())?;
        }
        Ok(())
    }

    /// Advances a cycler and gives the item it stood at.
    pub(super) fn cycle(&mut self, index: usize) -> Result<Value> {
        let (list, at) = &mut self.cyclers[index];
        let Value::List(items) = list else { return Ok(Value::None) };
        let item = items.items[*at].clone();
        *at = (*at + 1) % items.items.len();
        Ok(item)
    }

    /// Nothing the first time, then the separator.
    pub(super) fn join_next(&mut self, index: usize) -> Result<Value> {
        let (separator, used) = &mut self.joiners[index];
        if std::mem::replace(used, true) { Ok(separator.clone()) } else { self.meter.str("") }
    }
}

fn range(given: Given) -> Result<Value> {
    if !given.named.is_empty() {
        return Fault::failed("range() takes no keyword arguments");
    }
    let numbers = given.positional.iter().map(|value| int(value, "range")).collect::<Result<Vec<_>>>()?;
    let range = match *numbers.as_slice() {
        [stop] => Range { start: 0, stop, step: 1 },
        [start, stop] => Range { start, stop, step: 1 },
        [_, _, 0] => return Fault::failed("range() arg 3 must not be zero"),
        [start, stop, step] => Range { start, stop, step },
        _ => return Fault::failed(format!("range expected 1 to 3 arguments, got {}", numbers.len())),
    };
    if range.len() > MOST_RANGE {
        return Fault::failed(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({MOST_RANGE})."
        ));
    }
    Ok(Value::Range(Rc::new(range)))
}
