//! Reads a configuration: every key is used, known to be harmless, noted or an error; [`super::unknown`] judges those
//! that nobody reads.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::{Error, Unsupported};
use super::unknown::{Verdict, judge};
use crate::graph::Activation;

/// Activations by transformers' names (`ACT2FN`).
pub const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

/// All that is wrong with the configurations of one model.
#[derive(Debug, Default)]
pub struct Problems {
    missing: Vec<String>,
    unsupported: Vec<Unsupported>,
    /// Keys that nobody reads; no problem.
    unknown: Vec<String>,
}

impl Problems {
    /// An error if there are any; else the keys that nobody reads and that are taken to change nothing.
    pub fn check(self, family: &str) -> Result<Vec<String>, Error> {
        match self.missing.is_empty() && self.unsupported.is_empty() {
            true => Ok(self.unknown),
            false => Err(self.into_error(family)),
        }
    }

    /// The error; missing keys come first, since they say that the file is the wrong one.
    pub fn into_error(self, family: &str) -> Error {
        let family = family.to_owned();
        match self.missing.is_empty() {
            false => Error::MissingKeys { family, keys: self.missing },
            true => Error::UnsupportedConfig { family, problems: self.unsupported },
        }
    }
}

/// One level of a configuration. Where a key is missing or wrong, reading notes it and gives a harmless value, so that all
/// problems are found at once; the values mean nothing until [`Problems::check`].
pub struct Keys<'c> {
    prefix: String,
    map: &'c Map<String, Value>,
    taken: BTreeSet<&'c str>,
    problems: Problems,
}

impl<'c> Keys<'c> {
    /// `prefix` stands before each key in errors: ``, `text_config.`.
    pub fn new(prefix: &str, map: &'c Map<String, Value>) -> Self {
        Keys { prefix: prefix.to_owned(), map, taken: BTreeSet::new(), problems: Problems::default() }
    }

    /// Judges all keys that nobody asked for, and hands over what was wrong.
    pub fn finish(mut self, problems: &mut Problems) {
        for (key, value) in self.map {
            if self.taken.contains(key.as_str()) {
                continue;
            }
            match judge(key, value) {
                Verdict::Silent => {}
                Verdict::Noted => self.note(key),
                Verdict::Refused(expected) => self.refuse(key, expected),
            }
        }
        problems.missing.append(&mut self.problems.missing);
        problems.unsupported.append(&mut self.problems.unsupported);
        problems.unknown.append(&mut self.problems.unknown);
    }

    /// Notes a key that changes nothing here.
    fn note(&mut self, key: &str) {
        self.problems.unknown.push(format!("{}{key}", self.prefix));
    }

    /// Notes all keys that nobody asked for, whatever their words, where it is known that they change nothing.
    pub fn note_rest(&mut self) {
        let map = self.map;
        for (key, value) in map {
            if self.taken.insert(key) && !value.is_null() {
                self.note(key);
            }
        }
    }

    /// Whether nothing was wrong so far.
    pub fn is_fine(&self) -> bool {
        self.problems.missing.is_empty() && self.problems.unsupported.is_empty()
    }

    /// Notes that a key's value will not do.
    pub fn refuse(&mut self, key: &str, expected: impl Into<String>) {
        let value = self.map.get(key).map_or("absent".to_owned(), |value| shortened(&value.to_string()));
        let key = format!("{}{key}", self.prefix);
        self.problems.unsupported.push(Unsupported { key, value, expected: expected.into() });
    }

    /// Notes that a key has to be there.
    pub fn missing(&mut self, key: &str) {
        self.problems.missing.push(format!("{}{key}", self.prefix));
    }

    /// The value, null included; `None` where the key is absent.
    fn raw(&mut self, key: &str) -> Option<&'c Value> {
        let (key, value) = self.map.get_key_value(key)?;
        self.taken.insert(key);
        Some(value)
    }

    /// The value; `None` where it is absent or null.
    pub fn get(&mut self, key: &str) -> Option<&'c Value> {
        self.raw(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there and null, where that is not the same as an absent one.
    pub fn is_null(&mut self, key: &str) -> bool {
        self.raw(key).is_some_and(Value::is_null)
    }

    /// All keys, where an error that was noted already says enough.
    pub fn harmless_all(&mut self) {
        self.taken.extend(self.map.keys().map(String::as_str));
    }

    /// Keys that do not change what is computed here.
    pub fn harmless(&mut self, keys: &[&str]) {
        for key in keys {
            self.raw(key);
        }
    }

    /// A key that may be absent, null, or `accepted`.
    pub fn only(&mut self, key: &str, accepted: &Value) {
        if self.get(key).is_some_and(|value| value != accepted) {
            self.refuse(key, accepted.to_string());
        }
    }

    /// A whole number from 1 to `max`, if it is there.
    pub fn maybe_size(&mut self, key: &str, max: usize) -> Option<usize> {
        let value = self.get(key)?;
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=max).contains(n));
        if size.is_none() {
            self.refuse(key, format!("a whole number from 1 to {max}"));
        }
        Some(size.unwrap_or(1))
    }

    /// A whole number from 1 to `max`; required.
    pub fn size(&mut self, key: &str, max: usize) -> usize {
        let size = self.maybe_size(key, max);
        if size.is_none() {
            self.missing(key);
        }
        size.unwrap_or(1)
    }

    /// A positive number, `absent` where the key is; null is `None`.
    pub fn maybe_float(&mut self, key: &str, absent: Option<f64>) -> Option<f64> {
        let Some(value) = self.raw(key) else { return absent };
        if value.is_null() {
            return None;
        }
        let number = value.as_f64().filter(|number| *number > 0.0 && *number <= 1e30 && *number as f32 > 0.0);
        if number.is_none() {
            self.refuse(key, "a positive number");
        }
        Some(number.unwrap_or(1.0))
    }

    /// A positive number; `default` where it is absent or null.
    pub fn float(&mut self, key: &str, default: f64) -> f64 {
        self.maybe_float(key, None).unwrap_or(default)
    }

    /// A positive number; required.
    pub fn required_float(&mut self, key: &str) -> f64 {
        let number = self.maybe_float(key, None);
        if number.is_none() {
            self.missing(key);
        }
        number.unwrap_or(1.0)
    }

    /// True or false; `default` where it is absent or null.
    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.refuse(key, "true or false");
                default
            }
        }
    }

    /// A word of a table; `default`, which is in it, where it is absent or null.
    pub fn choice<T: Copy>(&mut self, key: &str, default: T, table: &[(&str, T)]) -> T {
        let Some(value) = self.get(key) else { return default };
        match table.iter().find(|(word, _)| value.as_str() == Some(word)) {
            Some((_, choice)) => *choice,
            None => {
                let words: Vec<&str> = table.iter().map(|(word, _)| *word).collect();
                self.refuse(key, words.join(", "));
                default
            }
        }
    }

    /// What `read` makes of a nested configuration, whose problems are noted here; `None` where it is absent or null.
    pub fn nested<T>(&mut self, key: &str, read: impl FnOnce(&mut Keys<'c>) -> T) -> Option<T> {
        let Value::Object(map) = self.get(key)? else {
            self.refuse(key, "an object");
            return None;
        };
        let mut keys = Keys::new(&format!("{}{key}.", self.prefix), map);
        let read = read(&mut keys);
        keys.finish(&mut self.problems);
        Some(read)
    }

    /// A nested configuration; required.
    pub fn object(&mut self, key: &str) -> Option<&'c Map<String, Value>> {
        match self.get(key) {
            Some(Value::Object(map)) => return Some(map),
            Some(_) => self.refuse(key, "an object"),
            None => self.missing(key),
        }
        None
    }
}

/// At most 60 characters of a text.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
