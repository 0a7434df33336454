//! Arguments of a call, and which parameter each is for.

use std::sync::Arc;

use super::fault::{Fault, Result};
use super::meter::Meter;
use super::value::{Text, Value};

/// Evaluated arguments.
#[derive(Clone, Default)]
pub(crate) struct Given {
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(Arc<str>, Value)>,
}

impl Given {
    /// The values of parameters with these names, in their order.
    pub(crate) fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let given = self.positional.len();
        if given > N {
            return Fault::failed(format!("{what}() takes at most {N} arguments ({given} given)"));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(index) = names.iter().position(|known| *known == &*name) else {
                return Fault::failed(format!("{what}() got an unexpected keyword argument '{name}'"));
            };
            if bound[index].replace(value).is_some() {
                return Fault::failed(format!("{what}() got multiple values for argument '{name}'"));
            }
        }
        Ok(bound)
    }

    /// The first of the positional arguments, taken out.
    pub(crate) fn first(&mut self, what: &str) -> Result<Value> {
        if self.positional.is_empty() {
            return Fault::failed(format!("{what}() misses an argument"));
        }
        Ok(self.positional.remove(0))
    }
}

/// A required argument.
pub(crate) fn required(value: Option<Value>, what: &str) -> Result<Value> {
    value.ok_or_else(|| Fault::Failed(format!("{what}() misses an argument")))
}

/// A text.
pub(crate) fn text(value: Value, what: &str) -> Result<Text> {
    match value {
        Value::Str(text) => Ok(text),
        other => Fault::failed(format!("{what}() argument must be str, not {}", other.type_name())),
    }
}

/// An integer.
pub(crate) fn int(value: &Value, what: &str) -> Result<i64> {
    let wrong =
        || Fault::Failed(format!("{what}(): '{}' object cannot be interpreted as an integer", value.type_name()));
    value.as_int().ok_or_else(wrong)
}

/// An integer, or what holds without.
pub(crate) fn int_or(value: Option<Value>, default: i64, what: &str) -> Result<i64> {
    value.map_or(Ok(default), |value| int(&value, what))
}

/// The truth of an argument, or what holds without.
pub(crate) fn truth_or(value: Option<Value>, default: bool) -> bool {
    value.map_or(default, |value| value.truth())
}

/// An argument that may also be `None`.
pub(crate) fn some(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !matches!(value, Value::None))
}

/// The entries of a dictionary as named arguments.
pub(crate) fn named(value: &Value, meter: &Meter) -> Result<Vec<(Arc<str>, Value)>> {
    let Value::Dict(dict) = value else {
        return Fault::failed(format!("argument after ** must be a mapping, not {}", value.type_name()));
    };
    let name = |key: &Value| match key {
        Value::Str(text) => {
            meter.touch(text.len())?;
            Ok(Arc::from(&**text))
        }
        _ => Fault::failed("keywords must be strings"),
    };
    dict.entries.values().map(|(key, value)| Ok((name(key)?, value.clone()))).collect()
}
