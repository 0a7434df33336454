//! Jinja's filters.

mod lists;
mod numbers;
mod texts;

use super::arguments::{Given, some, truth_or};
use super::fault::{Fault, Result};
use super::render::Renderer;
use super::syntax::Binary;
use super::value::{Kind, ListBuilder, Make, Text, TextBuilder, Value};

/// All filters that are known.
const NAMES: [&str; 50] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "pprint",
    "striptags",
];

/// Whether there is a filter of this name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Renderer {
    /// `value|name(…)`.
    pub(super) fn filter(&mut self, name: &str, value: Value, given: Given) -> Result<Value> {
        let _level = self.meter.enter()?;
        match name {
            "default" | "d" => {
                let [default, boolean] = given.bind(name, ["default_value", "boolean"])?;
                let keep = !matches!(value, Value::Undefined(_)) && (!truth_or(boolean, false) || value.truth());
                if keep { Ok(value) } else { default.map_or_else(|| self.meter.str(""), Ok) }
            }
            "length" | "count" => {
                let [] = given.bind(name, [])?;
                Ok(Value::Int(self.length(&value)? as i64))
            }
            "tojson" => self.to_json(&value, given),
            "string" | "safe" => {
                let [] = given.bind(name, [])?;
                Ok(Value::Str(self.as_text(&value)?))
            }
            "attr" => {
                let [attribute] = given.bind(name, ["name"])?;
                let attribute = super::arguments::text(super::arguments::required(attribute, name)?, name)?;
                if attribute.len() > 256 {
                    return Fault::failed("attr(): the name is longer than 256 bytes");
                }
                // Attributes only, never items.
                match value {
                    Value::Dict(_) if !super::methods::of_dict(&attribute) => {
                        self.meter.undefined(&format!("'dict object' has no attribute '{}'", &*attribute))
                    }
                    _ => self.attribute(&value, &std::sync::Arc::from(&*attribute)),
                }
            }
            "abs" | "int" | "float" | "round" | "sum" | "max" | "min" | "filesizeformat" => {
                self.number_filter(name, value, given)
            }
            "indent" if matches!(value, Value::Undefined(_)) => self.binary(Binary::Add, &value, &Value::None),
            "upper" | "lower" | "capitalize" | "title" | "trim" | "replace" | "indent" | "truncate" | "center"
            | "format" | "urlencode" | "wordcount" | "escape" | "e" | "forceescape" | "striptags" | "pprint" => {
                self.text_filter(name, value, given)
            }
            _ if is_known(name) => self.list_filter(name, value, given),
            unknown => Fault::failed(format!("No filter named '{unknown}'.")),
        }
    }

    /// A value as text, as `str` gives it.
    pub(super) fn as_text(&self, value: &Value) -> Result<Text> {
        if let Value::Str(text) = value {
            return Ok(text.clone());
        }
        let mut out = TextBuilder::new(&self.meter)?;
        self.write_str(value, &mut out)?;
        Ok(out.into_text())
    }

    /// An attribute or item by a path with dots, as filters with `attribute=` take it; `None` gives the value itself.
    fn by_path(&self, value: &Value, path: &Option<Value>, default: &Option<Value>) -> Result<Value> {
        let Some(path) = path else { return Ok(value.clone()) };
        let mut found = value.clone();
        match path {
            Value::Str(text) => {
                for part in text.split('.') {
                    let key = match part.parse::<i64>() {
                        Ok(index) if !part.starts_with(['-', '+']) => Value::Int(index),
                        _ => self.meter.str(part)?,
                    };
                    found = self.item(&found, &key)?;
                    if let (Value::Undefined(_), Some(default)) = (&found, default) {
                        return Ok(default.clone());
                    }
                }
            }
            other => found = self.item(&found, other)?,
        }
        Ok(found)
    }

    /// What is compared where case does not count.
    fn without_case(&self, value: Value, case_sensitive: bool) -> Result<Value> {
        match &value {
            Value::Str(text) if !case_sensitive => self.cased(text, "lower"),
            _ => Ok(value),
        }
    }

    /// Items with what they are compared by.
    fn keyed(
        &self,
        items: &[Value],
        path: &Option<Value>,
        default: &Option<Value>,
        case_sensitive: bool,
    ) -> Result<Vec<(Value, Value)>> {
        let key = |item: &Value| {
            let key = self.by_path(item, path, default)?;
            Ok((self.without_case(key, case_sensitive)?, item.clone()))
        };
        items.iter().map(key).collect()
    }

    /// The attributes of `sort`, which may be several with commas between them, as one path each.
    fn paths(&self, attribute: Option<Value>) -> Result<Vec<Option<Value>>> {
        match some(attribute) {
            Some(Value::Str(text)) if text.contains(',') => {
                text.split(',').map(|part| Ok(Some(self.meter.str(part)?))).collect()
            }
            other => Ok(vec![other]),
        }
    }

    /// Items one by one, in lists of their own.
    fn list_of(&self, items: impl IntoIterator<Item = Value>) -> Result<Value> {
        let mut list = ListBuilder::new(&self.meter)?;
        for item in items {
            list.push(item)?;
        }
        list.finish(Kind::List)
    }
}
