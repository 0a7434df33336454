//! Values as text: Python's `str` and `repr`.

use super::fault::Result;
use super::render::Renderer;
use super::text::is_printable;
use super::value::{Kind, TextBuilder, Value};

impl Renderer {
    /// Writes a value as Python's `str` does.
    pub(super) fn write_str(&self, value: &Value, out: &mut TextBuilder) -> Result<()> {
        match value {
            Value::Str(text) => out.push(text),
            Value::Undefined(_) => Ok(()),
            other => self.write_repr(other, out),
        }
    }

    /// Writes a value as Python's `repr` does.
    pub(super) fn write_repr(&self, value: &Value, out: &mut TextBuilder) -> Result<()> {
        self.meter.step()?;
        match value {
            Value::Undefined(_) => out.push("Undefined"),
            Value::None => out.push("None"),
            Value::Bool(true) => out.push("True"),
            Value::Bool(false) => out.push("False"),
            Value::Int(value) => out.push(&value.to_string()),
            Value::Float(value) => out.push(&float(*value)),
            Value::Str(text) => quoted(text, out),
            Value::List(list) => self.write_list(&list.items, list.kind, out),
            Value::Dict(dict) => {
                let _level = self.meter.enter()?;
                out.push("{")?;
                for (index, (key, value)) in dict.entries.values().enumerate() {
                    out.push(if index > 0 { ", " } else { "" })?;
                    self.write_repr(key, out)?;
                    out.push(": ")?;
                    self.write_repr(value, out)?;
                }
                out.push("}")
            }
            Value::Range(range) => {
                out.push(&format!("range({}, {}", range.start, range.stop))?;
                if range.step == 1 { out.push(")") } else { out.push(&format!(", {})", range.step)) }
            }
            Value::Lazy(lazy) if lazy.taken.is_some() => out.push(&format!("<{} object>", lazy.name)),
            Value::Lazy(lazy) => {
                out.push(lazy.name)?;
                out.push("(")?;
                self.write_list(&lazy.items.items, Kind::List, out)?;
                out.push(")")
            }
            Value::Namespace(index) => {
                let _level = self.meter.enter()?;
                out.push("<Namespace {")?;
                let mut attributes: Vec<_> = self.namespaces[*index].iter().collect();
                attributes.sort_by_key(|(name, _)| *name);
                for (index, (name, value)) in attributes.into_iter().enumerate() {
                    out.push(if index > 0 { ", " } else { "" })?;
                    quoted(name, out)?;
                    out.push(": ")?;
                    self.write_repr(value, out)?;
                }
                out.push("}>")
            }
            Value::Cycler(_) => out.push("<Cycler>"),
            Value::Joiner(_) => out.push("<Joiner>"),
            Value::Loop(state) => {
                out.push(&format!("<LoopContext {}/{}>", state.index.get() + 1, state.items.items.len()))
            }
            Value::Macro(closure) => out.push(&format!("<Macro '{}'>", closure.node.name)),
            Value::Method(method) => {
                out.push(&format!("<built-in method {} of {} object>", method.1, method.0.type_name()))
            }
            Value::Function(function) => out.push(&format!("<function {}>", function.name())),
        }
    }

    fn write_list(&self, items: &[Value], kind: Kind, out: &mut TextBuilder) -> Result<()> {
        let _level = self.meter.enter()?;
        let [open, close] = if kind == Kind::List { ["[", "]"] } else { ["(", ")"] };
        out.push(open)?;
        for (index, item) in items.iter().enumerate() {
            out.push(if index > 0 { ", " } else { "" })?;
            self.write_repr(item, out)?;
        }
        if kind != Kind::List && items.len() == 1 {
            out.push(",")?;
        }
        out.push(close)
    }
}

/// A text in quotes, with Python's choice of quotes and escapes.
pub(super) fn quoted(text: &str, out: &mut TextBuilder) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push_char(quote)?;
    for letter in text.chars() {
        match letter {
            '\\' => out.push("\\\\")?,
            '\n' => out.push("\\n")?,
            '\r' => out.push("\\r")?,
            '\t' => out.push("\\t")?,
            letter if letter == quote => {
                out.push("\\")?;
                out.push_char(letter)?;
            }
            ' '..='~' => out.push_char(letter)?,
            letter if letter > '\x7f' && is_printable(letter) => out.push_char(letter)?,
            letter => out.push(&match u32::from(letter) {
                code @ 0..=0xff => format!("\\x{code:02x}"),
                code @ 0x100..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            })?,
        }
    }
    out.push_char(quote)
}

/// A float as Python prints it: the shortest digits that give it back.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}
