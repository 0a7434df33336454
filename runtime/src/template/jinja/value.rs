//! Values of templates, as Python has them. Texts and lists cannot be changed once made, and count their memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;

use super::fault::{Fault, Result, brief};
use super::functions::Function;
use super::meter::{Held, MOST_NESTING, Meter};
use super::syntax::{For, Macro};

/// Bytes that a text takes besides its letters.
const TEXT_BYTES: usize = 64;
/// Bytes that a place in a list takes, growth included.
const ITEM_BYTES: usize = 64;
/// Bytes that an entry of a dictionary takes, growth included.
const ENTRY_BYTES: usize = 256;

/// A value.
#[derive(Clone)]
pub(crate) enum Value {
    /// What does not exist; the text says why.
    Undefined(Text),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Text),
    /// A list or tuple.
    List(Rc<List>),
    Dict(Rc<Dict>),
    Range(Rc<Range>),
    /// `keys()`, `values()` or `items()` of a dictionary, or what a filter gives item by item.
    Lazy(Rc<Lazy>),
    /// Index of a namespace.
    Namespace(usize),
    /// Index of a cycler.
    Cycler(usize),
    /// Index of a joiner.
    Joiner(usize),
    /// The variable `loop`.
    Loop(Rc<Loop>),
    Macro(Rc<Closure>),
    /// A method of a value.
    Method(Rc<(Value, Arc<str>)>),
    Function(Function),
}

/// A text.
#[derive(Clone)]
pub(crate) enum Text {
    /// Part of the template, which it lives as long as.
    Constant(Arc<str>),
    /// Made while rendering.
    Made(Rc<Made>),
}

/// A text made while rendering.
pub(crate) struct Made {
    text: String,
    _held: Held,
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Constant(text) => text,
            Text::Made(made) => &made.text,
        }
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Text {
        Text::Constant(text.clone())
    }
}

/// What sort of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    List,
    Tuple,
    /// A tuple of `groupby`, whose parts are also called `grouper` and `list`.
    Group,
}

/// A list.
pub(crate) struct List {
    pub(crate) kind: Kind,
    pub(crate) items: Vec<Value>,
    depth: u32,
    _held: Held,
}

impl List {
    /// Levels of values, itself included.
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }
}

/// A dictionary, in order of insertion.
pub(crate) struct Dict {
    pub(crate) entries: IndexMap<Key, (Value, Value)>,
    depth: u32,
    held: Held,
}

/// What dictionaries compare of a key: 1, 1.0 and `True` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    None,
    Int(i64),
    /// Bits of a float that is no integer.
    Float(u64),
    Str(String),
    Tuple(Vec<Key>),
    /// Identity of a value that is compared by it.
    Identity(usize),
}

/// A range of integers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: i64,
    pub(crate) stop: i64,
    pub(crate) step: i64,
}

impl Range {
    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        let (start, stop, step) = (i128::from(self.start), i128::from(self.stop), i128::from(self.step));
        let distance = if step > 0 { stop - start + step - 1 } else { start - stop - step - 1 };
        usize::try_from((distance / step.abs()).max(0)).unwrap_or(usize::MAX)
    }

    /// The number at a place that exists.
    pub(crate) fn at(&self, index: usize) -> i64 {
        self.start.wrapping_add(self.step.wrapping_mul(index as i64))
    }
}

/// Items that are asked for one by one.
pub(crate) struct Lazy {
    /// What it prints itself as.
    pub(crate) name: &'static str,
    pub(crate) items: Rc<List>,
    /// How many items were taken; generators give each only once. `None`: a view, which gives all each time.
    pub(crate) taken: Option<Cell<usize>>,
}

/// A loop in progress.
pub(crate) struct Loop {
    pub(crate) items: Rc<List>,
    pub(crate) index: Cell<usize>,
    pub(crate) level: usize,
    /// What `loop(…)` repeats, where the loop is recursive, and the frame it stands in.
    pub(crate) again: Option<(Arc<For>, usize)>,
    /// What `loop.changed(…)` was given last, as it prints itself: values here could contain the loop.
    pub(crate) changed: RefCell<Option<Text>>,
}

/// A macro, or a block given to one, with the frame where it stands.
pub(crate) struct Closure {
    pub(crate) node: Arc<Macro>,
    /// Index of the frame.
    pub(crate) frame: usize,
}

/// Attributes of a namespace.
pub(crate) type Attributes = HashMap<Arc<str>, Value>;

impl Value {
    /// The name of the type in Python's messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(list) if list.kind == Kind::List => "list",
            Value::List(_) => "tuple",
            Value::Dict(_) => "dict",
            Value::Range(_) => "range",
            Value::Lazy(lazy) => lazy.name,
            Value::Namespace(_) => "Namespace",
            Value::Cycler(_) => "Cycler",
            Value::Joiner(_) => "Joiner",
            Value::Loop(_) => "LoopContext",
            Value::Macro(_) => "Macro",
            Value::Method(_) => "builtin_function_or_method",
            Value::Function(_) => "function",
        }
    }

    /// How many levels of values it has; what dropping, comparing and printing it recurses into.
    pub(crate) fn depth(&self) -> u32 {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            Value::Lazy(lazy) => lazy.items.depth + 1,
            Value::Loop(state) => state.depth(),
            Value::Method(method) => method.0.depth() + 1,
            _ => 0,
        }
    }

    /// Python's truth. Fails only where a value's truth does.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Str(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Range(range) => range.len() > 0,
            Value::Lazy(lazy) => lazy.taken.is_some() || !lazy.items.items.is_empty(),
            _ => true,
        }
    }

    /// The text, of a text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, of an integer or truth value.
    pub(crate) fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The number, of any number.
    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    /// What dictionaries compare of it.
    pub(crate) fn key(&self, meter: &Rc<Meter>) -> Result<Key> {
        meter.step()?;
        Ok(match self {
            Value::None => Key::None,
            Value::Bool(value) => Key::Int(i64::from(*value)),
            Value::Int(value) => Key::Int(*value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Key::Int(*value as i64),
            Value::Float(value) => Key::Float(value.to_bits()),
            Value::Str(text) => {
                meter.touch(text.len())?;
                Key::Str(text.to_string())
            }
            Value::List(list) if list.kind != Kind::List => {
                let _level = meter.enter()?;
                meter.steps(4)?;
                // What the key copies is given back with the dictionary's own count; it must fit once beside it.
                let _room = meter.hold(list.items.len() * ITEM_BYTES)?;
                Key::Tuple(list.items.iter().map(|item| item.key(meter)).collect::<Result<_>>()?)
            }
            Value::Namespace(index) | Value::Cycler(index) | Value::Joiner(index) => Key::Identity(*index),
            Value::Undefined(_) => Key::Identity(usize::MAX),
            other => return Fault::failed(format!("unhashable type: '{}'", other.type_name())),
        })
    }
}

impl Key {
    /// Bytes of what it copies.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Key::Str(text) => text.len(),
            Key::Tuple(keys) => keys.iter().map(|key| ITEM_BYTES + key.bytes()).sum(),
            _ => 0,
        }
    }
}

impl Loop {
    fn depth(&self) -> u32 {
        self.items.depth + 1
    }
}

/// Refuses what would be nested too deeply to be dropped.
pub(crate) fn check_nesting(depth: u32) -> Result<u32> {
    if depth > MOST_NESTING { Err(Fault::Limit(format!("{MOST_NESTING} lists within each other"))) } else { Ok(depth) }
}

/// Makes values that count.
pub(crate) trait Make {
    /// A text.
    fn text(&self, text: &str) -> Result<Text>;
    /// A text, as a value.
    fn str(&self, text: &str) -> Result<Value>;
    /// A list or tuple.
    fn list(&self, kind: Kind, items: impl IntoIterator<Item = Value>) -> Result<Value>;
    /// What does not exist, and why.
    fn undefined(&self, reason: &str) -> Result<Value>;
    /// What JSON describes.
    fn json(&self, value: &serde_json::Value) -> Result<Value>;
    /// A list of what JSON describes.
    fn json_list(&self, values: &[serde_json::Value]) -> Result<Value>;
}

impl Make for Rc<Meter> {
    fn text(&self, text: &str) -> Result<Text> {
        let held = self.hold(text.len() + TEXT_BYTES)?;
        Ok(Text::Made(Rc::new(Made { text: text.to_owned(), _held: held })))
    }

    fn str(&self, text: &str) -> Result<Value> {
        Ok(Value::Str(self.text(text)?))
    }

    fn list(&self, kind: Kind, items: impl IntoIterator<Item = Value>) -> Result<Value> {
        let mut list = ListBuilder::new(self)?;
        for item in items {
            list.push(item)?;
        }
        list.finish(kind)
    }

    fn undefined(&self, reason: &str) -> Result<Value> {
        Ok(Value::Undefined(self.text(&brief(reason))?))
    }

    fn json(&self, value: &serde_json::Value) -> Result<Value> {
        use serde_json::Value as Json;
        self.step()?;
        Ok(match value {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Value::Int(number),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.str(text)?,
            Json::Array(items) => self.json_list(items)?,
            Json::Object(entries) => {
                let mut dict = Dict::new(self)?;
                for (name, value) in entries {
                    dict.insert(self, self.str(name)?, self.json(value)?)?;
                }
                dict.finish()
            }
        })
    }

    fn json_list(&self, values: &[serde_json::Value]) -> Result<Value> {
        let mut list = ListBuilder::new(self)?;
        for value in values {
            list.push(self.json(value)?)?;
        }
        list.finish(Kind::List)
    }
}

/// A list in the making.
pub(crate) struct ListBuilder {
    items: Vec<Value>,
    depth: u32,
    held: Held,
}

impl ListBuilder {
    pub(crate) fn new(meter: &Rc<Meter>) -> Result<ListBuilder> {
        Ok(ListBuilder { items: Vec::new(), depth: 0, held: meter.hold(ITEM_BYTES)? })
    }

    pub(crate) fn push(&mut self, item: Value) -> Result<()> {
        self.depth = self.depth.max(check_nesting(item.depth() + 1)?);
        self.held.grow(ITEM_BYTES)?;
        self.items.push(item);
        Ok(())
    }

    pub(crate) fn build(self, kind: Kind) -> Rc<List> {
        Rc::new(List { kind, items: self.items, depth: self.depth.max(1), _held: self.held })
    }

    pub(crate) fn finish(self, kind: Kind) -> Result<Value> {
        Ok(Value::List(self.build(kind)))
    }

    /// What a filter gives item by item.
    pub(crate) fn generator(self) -> Result<Value> {
        self.lazy("generator", Some(Cell::new(0)))
    }

    /// A view of a dictionary.
    pub(crate) fn view(self, name: &'static str) -> Result<Value> {
        self.lazy(name, None)
    }

    fn lazy(self, name: &'static str, taken: Option<Cell<usize>>) -> Result<Value> {
        let items = self.build(Kind::List);
        check_nesting(items.depth + 1)?;
        Ok(Value::Lazy(Rc::new(Lazy { name, items, taken })))
    }
}

impl Dict {
    pub(crate) fn new(meter: &Rc<Meter>) -> Result<Dict> {
        Ok(Dict { entries: IndexMap::new(), depth: 1, held: meter.hold(ENTRY_BYTES)? })
    }

    /// Sets an entry; a key that exists keeps its place.
    pub(crate) fn insert(&mut self, meter: &Rc<Meter>, key: Value, value: Value) -> Result<()> {
        self.depth = self.depth.max(check_nesting(value.depth().max(key.depth()) + 1)?);
        let hashed = key.key(meter)?;
        self.held.grow(ENTRY_BYTES + hashed.bytes())?;
        match self.entries.entry(hashed) {
            indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().1 = value,
            indexmap::map::Entry::Vacant(entry) => drop(entry.insert((key, value))),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Value {
        Value::Dict(Rc::new(self))
    }

    /// The value of a text key.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        // Keys own their text, so looking one up makes one.
        self.entries.get(&Key::Str(name.to_owned())).map(|(_, value)| value)
    }
}

/// A text in the making.
pub(crate) struct TextBuilder {
    text: String,
    held: Held,
}

impl TextBuilder {
    pub(crate) fn new(meter: &Rc<Meter>) -> Result<TextBuilder> {
        Ok(TextBuilder { text: String::new(), held: meter.hold(TEXT_BYTES)? })
    }

    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        self.held.grow(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(crate) fn push_char(&mut self, letter: char) -> Result<()> {
        self.push(letter.encode_utf8(&mut [0; 4]))
    }

    /// Writes a text many times.
    pub(crate) fn repeat(&mut self, text: &str, count: usize) -> Result<()> {
        self.held.grow(text.len().saturating_mul(count))?;
        self.text.extend(std::iter::repeat_n(text, count));
        Ok(())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_text(self) -> Text {
        Text::Made(Rc::new(Made { text: self.text, _held: self.held }))
    }

    pub(crate) fn finish(self) -> Value {
        Value::Str(self.into_text())
    }

    /// The text; what it takes is not counted any more.
    pub(crate) fn into_string(self) -> String {
        self.text
    }
}
