//! Jinja's tests: what stands behind `is`.

use std::rc::Rc;

use super::arguments::{Given, required};
use super::fault::{Fault, Result};
use super::filters;
use super::render::Renderer;
use super::syntax::{Binary, Comparison};
use super::value::{Kind, TextBuilder, Value};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

impl Renderer {
    /// Whether `value is name(…)` holds.
    pub(super) fn test(&self, name: &str, value: &Value, given: Given) -> Result<bool> {
        let comparison = match name {
            "==" | "eq" | "equalto" => Some(Comparison::Equal),
            "!=" | "ne" => Some(Comparison::NotEqual),
            "<" | "lt" | "lessthan" => Some(Comparison::Less),
            "<=" | "le" => Some(Comparison::LessOrEqual),
            ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
            ">=" | "ge" => Some(Comparison::GreaterOrEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [other] = given.bind(name, ["other"])?;
            return self.compare(comparison, value, &required(other, name)?);
        }
        if name == "divisibleby" || name == "sameas" {
            let [other] = given.bind(name, ["num"])?;
            let other = required(other, name)?;
            return match name {
                "sameas" => Ok(same(value, &other)),
                _ => self.is_multiple(value, &other, 0),
            };
        }
        let [] = given.bind(name, [])?;
        Ok(match name {
            "odd" => self.is_multiple(value, &Value::Int(2), 1)?,
            "even" => self.is_multiple(value, &Value::Int(2), 0)?,
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "filter" => value.as_str().is_some_and(filters::is_known),
            "test" => value.as_str().is_some_and(|name| NAMES.contains(&name)),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "false" => matches!(value, Value::Bool(false)),
            "true" => matches!(value, Value::Bool(true)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            // Undefined values have a length and items, as far as Python can see.
            "sequence" => {
                matches!(value, Value::Undefined(_) | Value::Str(_) | Value::List(_) | Value::Dict(_) | Value::Range(_))
            }
            "iterable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Str(_)
                    | Value::List(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::Lazy(_)
                    | Value::Loop(_)
            ),
            "callable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Macro(_)
                    | Value::Method(_)
                    | Value::Function(_)
                    | Value::Joiner(_)
                    | Value::Loop(_)
            ),
            // Nothing is marked as safe: templates of chats are not HTML.
            "escaped" => false,
            "lower" | "upper" => {
                let mut out = TextBuilder::new(&self.meter)?;
                self.write_str(value, &mut out)?;
                let text = out.as_str();
                // Looking up the case of a letter takes longer than copying it.
                self.meter.touch(text.len().saturating_mul(8))?;
                if name == "lower" { is_lower(text) } else { is_upper(text) }
            }
            unknown => return Fault::failed(format!("No test named '{unknown}'.")),
        })
    }

    fn is_multiple(&self, value: &Value, of: &Value, rest: i64) -> Result<bool> {
        let found = self.binary(Binary::Remainder, value, of)?;
        self.equal(&found, &Value::Int(rest))
    }
}

/// Whether there are letters with a case, all of them small.
pub(super) fn is_lower(text: &str) -> bool {
    text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
}

/// Whether there are letters with a case, all of them large.
pub(super) fn is_upper(text: &str) -> bool {
    text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// Python's `is`, as far as templates can rely on it.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => **a == **b,
        (Value::List(a), Value::List(b)) => {
            Rc::ptr_eq(a, b) || (a.kind != Kind::List && b.kind != Kind::List && a.items.len() + b.items.len() == 0)
        }
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Namespace(a), Value::Namespace(b)) => a == b,
        _ => false,
    }
}
