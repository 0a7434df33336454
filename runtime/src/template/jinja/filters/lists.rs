//! Filters of lists.

use std::rc::Rc;

use crate::template::jinja::arguments::{Given, int, required, some, text, truth_or};
use crate::template::jinja::fault::{Fault, Result};
use crate::template::jinja::render::Renderer;
use crate::template::jinja::sort::sort;
use crate::template::jinja::value::{Kind, ListBuilder, Make, TextBuilder, Value};

/// Bytes that an item takes while a list is sorted.
const SORTING_BYTES: usize = 192;

impl Renderer {
    pub(super) fn list_filter(&mut self, name: &str, value: Value, mut given: Given) -> Result<Value> {
        match name {
            "first" => {
                let [] = given.bind(name, [])?;
                self.first(&value)
            }
            "last" => {
                let [] = given.bind(name, [])?;
                match &value {
                    Value::Lazy(lazy) if lazy.taken.is_some() => Fault::failed("'generator' object is not reversible"),
                    Value::Undefined(_) => self.meter.undefined("No last item, sequence was empty."),
                    _ => match self.iterate(&value)?.items.last() {
                        Some(last) => Ok(last.clone()),
                        None => self.meter.undefined("No last item, sequence was empty."),
                    },
                }
            }
            "list" => {
                let [] = given.bind(name, [])?;
                let items = self.iterate(&value)?;
                self.list_of(items.items.iter().cloned())
            }
            "items" => {
                let [] = given.bind(name, [])?;
                self.items(&value)
            }
            "reverse" => {
                let [] = given.bind(name, [])?;
                if let Value::Str(text) = &value {
                    let mut out = TextBuilder::new(&self.meter)?;
                    for letter in text.chars().rev() {
                        out.push_char(letter)?;
                    }
                    return Ok(out.finish());
                }
                let items = self.iterate(&value)?;
                let mut list = ListBuilder::new(&self.meter)?;
                for item in items.items.iter().rev() {
                    list.push(item.clone())?;
                }
                list.generator()
            }
            "join" => {
                let [between, attribute] = given.bind(name, ["d", "attribute"])?;
                let between = between.map(|between| self.as_text(&between)).transpose()?;
                let path = some(attribute);
                let mut out = TextBuilder::new(&self.meter)?;
                for (index, item) in self.iterate(&value)?.items.iter().enumerate() {
                    if index > 0 {
                        out.push(between.as_deref().unwrap_or(""))?;
                    }
                    let item = self.by_path(item, &path, &None)?;
                    self.write_str(&item, &mut out)?;
                }
                Ok(out.finish())
            }
            "sort" | "dictsort" | "groupby" | "unique" => self.ordered(name, &value, given),
            "batch" | "slice" => {
                let [count, fill] = given.bind(name, ["count", "fill_with"])?;
                let count = int(&required(count, name)?, name)?;
                let items = self.iterate(&value)?;
                if name == "batch" {
                    self.batch(&items.items, count, some(fill))
                } else {
                    self.slices(&items.items, count, some(fill))
                }
            }
            "map" => self.map(&value, given),
            _ => {
                let negative = name.starts_with("reject");
                let path = if name.ends_with("attr") { Some(given.first(name)?) } else { None };
                let test = if given.positional.is_empty() { None } else { Some(text(given.first(name)?, name)?) };
                let mut kept = ListBuilder::new(&self.meter)?;
                for item in &self.iterate(&value)?.items {
                    self.meter.steps(1 + (given.positional.len() + given.named.len()) as u64)?;
                    let subject = self.by_path(item, &path, &None)?;
                    let holds = match &test {
                        Some(test) => self.test(test, &subject, given.clone())?,
                        None => subject.truth(),
                    };
                    if holds != negative {
                        kept.push(item.clone())?;
                    }
                }
                kept.generator()
            }
        }
    }

    fn first(&self, value: &Value) -> Result<Value> {
        let none = || self.meter.undefined("No first item, sequence was empty.");
        match value {
            Value::Lazy(lazy) if lazy.taken.is_some() => {
                let Some(taken) = &lazy.taken else { return none() };
                match lazy.items.items.get(taken.get()) {
                    Some(item) => {
                        taken.set(taken.get() + 1);
                        Ok(item.clone())
                    }
                    None => none(),
                }
            }
            _ => match self.iterate(value)?.items.first() {
                Some(item) => Ok(item.clone()),
                None => none(),
            },
        }
    }

    pub(super) fn items(&self, value: &Value) -> Result<Value> {
        let mut list = ListBuilder::new(&self.meter)?;
        match value {
            Value::Undefined(_) => {}
            Value::Dict(dict) => {
                for (key, value) in dict.entries.values() {
                    list.push(self.meter.list(Kind::Tuple, [key.clone(), value.clone()])?)?;
                }
            }
            _ => return Fault::failed("Can only get item pairs from a mapping."),
        }
        list.generator()
    }

    fn ordered(&mut self, name: &str, value: &Value, given: Given) -> Result<Value> {
        match name {
            "sort" => {
                let [reverse, case, attribute] = given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
                let case = truth_or(case, false);
                let items = self.iterate(value)?;
                let _room = self.meter.hold(items.items.len() * SORTING_BYTES)?;
                let paths = self.paths(attribute)?;
                let mut keyed = Vec::new();
                for item in &items.items {
                    let mut keys = ListBuilder::new(&self.meter)?;
                    for path in &paths {
                        let key = self.by_path(item, path, &None)?;
                        keys.push(self.without_case(key, case)?)?;
                    }
                    keyed.push((keys.finish(Kind::List)?, item.clone()));
                }
                self.sorted(keyed, truth_or(reverse, false))
            }
            "dictsort" => {
                let [case, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"])?;
                let by = by.map(|by| text(by, name)).transpose()?;
                let by_value = match by.as_deref() {
                    None | Some("key") => false,
                    Some("value") => true,
                    _ => return Fault::failed("You can only sort by either \"key\" or \"value\""),
                };
                let Value::Dict(dict) = value else {
                    return Fault::failed(format!("'{}' object has no attribute 'items'", value.type_name()));
                };
                let _room = self.meter.hold(dict.entries.len() * SORTING_BYTES)?;
                let mut keyed = Vec::new();
                for (key, value) in dict.entries.values() {
                    let pair = self.meter.list(Kind::Tuple, [key.clone(), value.clone()])?;
                    let chosen = if by_value { value } else { key };
                    keyed.push((self.without_case(chosen.clone(), truth_or(case.clone(), false))?, pair));
                }
                self.sorted(keyed, truth_or(reverse, false))
            }
            "groupby" => {
                let [attribute, default, case] = given.bind(name, ["attribute", "default", "case_sensitive"])?;
                self.group(value, required(attribute, name)?, default, truth_or(case, false))
            }
            _ => {
                let [case, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
                let items = self.iterate(value)?;
                let _room = self.meter.hold(items.items.len() * SORTING_BYTES)?;
                let keyed = self.keyed(&items.items, &some(attribute), &None, truth_or(case, false))?;
                let mut seen = std::collections::HashSet::new();
                let mut list = ListBuilder::new(&self.meter)?;
                let mut held = self.meter.hold(0)?;
                for (key, item) in keyed {
                    let key = key.key(&self.meter)?;
                    held.grow(key.bytes())?;
                    if seen.insert(key) {
                        list.push(item)?;
                    }
                }
                list.generator()
            }
        }
    }

    /// The items in the order of their keys.
    fn sorted(&self, keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Value> {
        let sorted = self.in_order(keyed, reverse)?;
        self.list_of(sorted.into_iter().map(|(_, item)| item))
    }

    fn in_order(&self, keyed: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>> {
        sort(keyed, |a, b| if reverse { self.order(&b.0, &a.0, "<") } else { self.order(&a.0, &b.0, "<") })
    }

    fn group(&self, value: &Value, attribute: Value, default: Option<Value>, case: bool) -> Result<Value> {
        let items = self.iterate(value)?;
        let _room = self.meter.hold(items.items.len() * SORTING_BYTES)?;
        let path = Some(attribute);
        let keyed = self.in_order(self.keyed(&items.items, &path, &default, case)?, false)?;
        let mut groups = ListBuilder::new(&self.meter)?;
        let mut rest = keyed.as_slice();
        while let Some((key, first)) = rest.first() {
            let mut length = 1;
            while rest.get(length).map_or(Ok(false), |(other, _)| self.equal(key, other))? {
                length += 1;
            }
            let members = self.list_of(rest[..length].iter().map(|(_, item)| item.clone()))?;
            // Groups are called as their first member has it, whatever the case.
            let grouper = self.by_path(first, &path, &default)?;
            groups.push(self.meter.list(Kind::Group, [grouper, members])?)?;
            rest = &rest[length..];
        }
        groups.finish(Kind::List)
    }

    fn batch(&self, items: &[Value], count: i64, fill: Option<Value>) -> Result<Value> {
        let count = usize::try_from(count).unwrap_or(0).max(1);
        let mut batches = ListBuilder::new(&self.meter)?;
        for batch in items.chunks(count) {
            let missing = if fill.is_some() { count - batch.len() } else { 0 };
            let padding = std::iter::repeat_n(fill.clone().unwrap_or(Value::None), missing);
            batches.push(self.list_of(batch.iter().cloned().chain(padding))?)?;
        }
        batches.generator()
    }

    fn slices(&self, items: &[Value], count: i64, fill: Option<Value>) -> Result<Value> {
        let Some(count) = usize::try_from(count).ok().filter(|&count| count > 0) else {
            return Fault::failed("integer division or modulo by zero");
        };
        let (least, longer) = (items.len() / count, items.len() % count);
        let mut slices = ListBuilder::new(&self.meter)?;
        let mut from = 0;
        for index in 0..count {
            let length = least + usize::from(index < longer);
            let slice = items[from..from + length].iter().cloned();
            let padding = fill.clone().filter(|_| index >= longer && longer > 0);
            slices.push(self.list_of(slice.chain(padding))?)?;
            from += length;
        }
        slices.generator()
    }

    fn map(&mut self, value: &Value, mut given: Given) -> Result<Value> {
        let items: Rc<_> = self.iterate(value)?;
        let mut list = ListBuilder::new(&self.meter)?;
        if given.positional.is_empty() {
            let [attribute, default] = given.bind("map", ["attribute", "default"])?;
            let path = Some(required(attribute, "map")?);
            for item in &items.items {
                list.push(self.by_path(item, &path, &default)?)?;
            }
        } else {
            let name = text(given.first("map")?, "map")?;
            for item in &items.items {
                self.meter.steps(1 + (given.positional.len() + given.named.len()) as u64)?;
                list.push(self.filter(&name, item.clone(), given.clone())?)?;
            }
        }
        list.generator()
    }
}
