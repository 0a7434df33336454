//! Methods of Python's texts.

use std::rc::Rc;

use crate::template::jinja::arguments::{self, Given, int, int_or, required, some, truth_or};
use crate::template::jinja::fault::{Fault, Result};
use crate::template::jinja::predicates::{is_lower, is_upper};
use crate::template::jinja::render::Renderer;
use crate::template::jinja::text::{
    capitalized, case_swapped, is_line_end, is_printable, is_space, letters, lines, titled,
};
use crate::template::jinja::value::{Kind, List, ListBuilder, Make, Text, TextBuilder, Value};

const METHODS: [&str; 47] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "encode",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "translate",
    "upper",
    "zfill",
    "maketrans",
];

/// Whether texts have this method.
pub(in crate::template::jinja) fn is_method(name: &str) -> bool {
    METHODS.contains(&name)
}

impl Renderer {
    pub(super) fn text_method(&self, text: &Text, name: &str, given: Given) -> Result<Value> {
        // Each letter is looked at, which takes longer than copying it.
        self.meter.touch(text.len().saturating_mul(2))?;
        match name {
            "upper" | "lower" | "casefold" | "capitalize" | "title" | "swapcase" => {
                let [] = given.bind(name, [])?;
                self.cased(text, name)
            }
            "split" | "rsplit" => {
                let [separator, most] = given.bind(name, ["sep", "maxsplit"])?;
                let most = usize::try_from(int_or(most, -1, name)?).unwrap_or(usize::MAX);
                match some(separator) {
                    None => self.split_space(text, most, name == "rsplit"),
                    Some(separator) => self.split_at(text, &arguments::text(separator, name)?, most, name == "rsplit"),
                }
            }
            "strip" | "lstrip" | "rstrip" => {
                let [set] = given.bind(name, ["chars"])?;
                self.strip(text, name, some(set))
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                let old = arguments::text(required(old, name)?, name)?;
                let new = arguments::text(required(new, name)?, name)?;
                self.replace(text, &old, &new, int_or(count, -1, name)?)
            }
            "startswith" | "endswith" => {
                let [affix, start, end] = given.bind(name, ["prefix", "start", "end"])?;
                let (part, _) = self.part(text, start, end)?;
                Ok(Value::Bool(self.has_affix(part, &required(affix, name)?, name)?))
            }
            "removeprefix" | "removesuffix" => {
                let [affix] = given.bind(name, ["affix"])?;
                let affix = arguments::text(required(affix, name)?, name)?;
                let rest = if name == "removeprefix" { text.strip_prefix(&*affix) } else { text.strip_suffix(&*affix) };
                self.meter.str(rest.unwrap_or(text))
            }
            "find" | "rfind" | "index" | "rindex" | "count" => {
                let [wanted, start, end] = given.bind(name, ["sub", "start", "end"])?;
                let wanted = arguments::text(required(wanted, name)?, name)?;
                let (part, before) = self.part(text, start, end)?;
                self.find(part, before, &wanted, name)
            }
            "partition" | "rpartition" => {
                let [separator] = given.bind(name, ["sep"])?;
                let separator = arguments::text(required(separator, name)?, name)?;
                if separator.is_empty() {
                    return Fault::failed("empty separator");
                }
                let found =
                    if name == "partition" { text.split_once(&*separator) } else { text.rsplit_once(&*separator) };
                let parts = match found {
                    Some((before, after)) => [before, &*separator, after],
                    None if name == "partition" => [&**text, "", ""],
                    None => ["", "", &**text],
                };
                self.texts(parts, Kind::Tuple)
            }
            "join" => {
                let [items] = given.bind(name, ["iterable"])?;
                let items = self.iterate(&required(items, name)?)?;
                self.join(text, &items)
            }
            "center" | "ljust" | "rjust" => {
                let [width, fill] = given.bind(name, ["width", "fillchar"])?;
                let width = usize::try_from(int(&required(width, name)?, name)?).unwrap_or(0);
                let fill = fill.map(|fill| arguments::text(fill, name)).transpose()?;
                let fill = fill.as_deref().unwrap_or(" ");
                if fill.chars().count() != 1 {
                    return Fault::failed("The fill character must be exactly one character long");
                }
                self.pad(text, width, fill, name)
            }
            "zfill" => {
                let [width] = given.bind(name, ["width"])?;
                let width = usize::try_from(int(&required(width, name)?, name)?).unwrap_or(0);
                let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
                let mut out = TextBuilder::new(&self.meter)?;
                out.push(sign)?;
                out.repeat("0", width.saturating_sub(text.chars().count()))?;
                out.push(digits)?;
                Ok(out.finish())
            }
            "splitlines" => {
                let [keep] = given.bind(name, ["keepends"])?;
                let _room = self.meter.hold(text.chars().filter(|&c| is_line_end(c)).count() * 32)?;
                self.texts(lines(text, truth_or(keep, false)), Kind::List)
            }
            "expandtabs" => {
                let [size] = given.bind(name, ["tabsize"])?;
                self.expand_tabs(text, usize::try_from(int_or(size, 8, name)?).unwrap_or(0))
            }
            "format" => self.format_text(text, &given),
            "format_map" => {
                let [values] = given.bind(name, ["mapping"])?;
                let named = arguments::named(&required(values, name)?, &self.meter)?;
                self.format_text(text, &Given { positional: Vec::new(), named })
            }
            "encode" | "translate" | "maketrans" => {
                Fault::failed(format!("str.{name} is not supported: templates have no bytes and no tables"))
            }
            _ => {
                let [] = given.bind(name, [])?;
                Ok(Value::Bool(is(text, name)))
            }
        }
    }

    /// The text in another case; it may become three times as long.
    pub(in crate::template::jinja) fn cased(&self, text: &str, name: &str) -> Result<Value> {
        let _room = self.meter.hold(text.len() * 3)?;
        self.meter.str(&match name {
            "upper" => text.to_uppercase(),
            "lower" => text.to_lowercase(),
            "casefold" => text.to_lowercase().replace('ß', "ss"),
            "capitalize" => capitalized(text),
            "title" => titled(text),
            _ => case_swapped(text),
        })
    }

    fn texts<'a>(&self, texts: impl IntoIterator<Item = &'a str>, kind: Kind) -> Result<Value> {
        let mut list = ListBuilder::new(&self.meter)?;
        for text in texts {
            list.push(self.meter.str(text)?)?;
        }
        list.finish(kind)
    }

    fn split_at(&self, text: &str, separator: &str, most: usize, from_end: bool) -> Result<Value> {
        if separator.is_empty() {
            return Fault::failed("empty separator");
        }
        let most = most.saturating_add(1);
        if !from_end {
            return self.texts(text.splitn(most, separator), Kind::List);
        }
        let _room = self.meter.hold(text.matches(separator).count() * 32)?;
        let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
        parts.reverse();
        self.texts(parts, Kind::List)
    }

    fn split_space(&self, text: &str, most: usize, from_end: bool) -> Result<Value> {
        let mut parts = Vec::new();
        let _room = self.meter.hold(text.len() * 16)?;
        let mut rest = if from_end { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
        while !rest.is_empty() {
            let found = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
            let Some(at) = found.filter(|_| parts.len() < most) else {
                parts.push(rest);
                break;
            };
            let (before, after) = rest.split_at(at);
            if from_end {
                parts.push(after.trim_start_matches(is_space));
                rest = before.trim_end_matches(is_space);
            } else {
                parts.push(before);
                rest = after.trim_start_matches(is_space);
            }
        }
        if from_end {
            parts.reverse();
        }
        self.texts(parts, Kind::List)
    }

    /// The text without letters of a set at its ends; without a set, without whitespace.
    pub(in crate::template::jinja) fn strip(&self, text: &str, name: &str, set: Option<Value>) -> Result<Value> {
        let set = set.map(|set| arguments::text(set, name)).transpose()?;
        if let Some(set) = &set {
            // Each stripped letter may be compared with the whole set.
            let most = text.len() as u64;
            self.meter.steps(most.saturating_mul(set.len() as u64) / 64)?;
        }
        let within = |letter: char| set.as_deref().map_or(is_space(letter), |set| set.contains(letter));
        self.meter.str(match name {
            "lstrip" => text.trim_start_matches(within),
            "rstrip" => text.trim_end_matches(within),
            _ => text.trim_matches(within),
        })
    }

    /// The text with `old` replaced, at most `count` times if that is not negative.
    pub(in crate::template::jinja) fn replace(&self, text: &str, old: &str, new: &str, count: i64) -> Result<Value> {
        let most = usize::try_from(count).unwrap_or(usize::MAX);
        let mut out = TextBuilder::new(&self.meter)?;
        let mut from = 0;
        for (at, found) in text.match_indices(old).take(most) {
            self.meter.step()?;
            out.push(&text[from..at])?;
            out.push(new)?;
            from = at + found.len();
        }
        out.push(&text[from..])?;
        Ok(out.finish())
    }

    fn has_affix(&self, text: &str, affix: &Value, name: &str) -> Result<bool> {
        match affix {
            Value::Str(affix) => {
                Ok(if name == "startswith" { text.starts_with(&**affix) } else { text.ends_with(&**affix) })
            }
            Value::List(list) if list.kind != Kind::List => {
                for affix in &list.items {
                    self.meter.step()?;
                    if matches!(affix, Value::Str(_)) && self.has_affix(text, affix, name)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            other => {
                Fault::failed(format!("{name} first arg must be str or a tuple of str, not {}", other.type_name()))
            }
        }
    }

    /// The part of a text between two places, and how many letters stand before it.
    fn part<'a>(&self, text: &'a str, start: Option<Value>, end: Option<Value>) -> Result<(&'a str, usize)> {
        let (start, end) = (some(start), some(end));
        if start.is_none() && end.is_none() {
            return Ok((text, 0));
        }
        let length = text.chars().count();
        let place = |value: Option<Value>, default: usize| match value {
            None => Ok(default),
            Some(value) => {
                let value = int(&value, "find")?;
                let value = if value < 0 { value.saturating_add(length as i64).max(0) } else { value };
                Ok(usize::try_from(value).unwrap_or(usize::MAX))
            }
        };
        let start = place(start, 0)?;
        let end = place(end, length)?.min(length);
        // Behind the end there is nothing, not even an empty text; that differs only for empty searches.
        Ok((letters(text, start, end.saturating_sub(start)), start))
    }

    fn find(&self, text: &str, before: usize, wanted: &str, name: &str) -> Result<Value> {
        if name == "count" {
            return Ok(Value::Int(text.matches(wanted).count() as i64));
        }
        let found = if name.starts_with('r') { text.rfind(wanted) } else { text.find(wanted) };
        match found {
            Some(at) => Ok(Value::Int((before + text[..at].chars().count()) as i64)),
            None if name.ends_with("find") => Ok(Value::Int(-1)),
            None => Fault::failed("substring not found"),
        }
    }

    fn join(&self, separator: &str, items: &Rc<List>) -> Result<Value> {
        let mut out = TextBuilder::new(&self.meter)?;
        for (index, item) in items.items.iter().enumerate() {
            let Value::Str(text) = item else {
                return Fault::failed(format!(
                    "sequence item {index}: expected str instance, {} found",
                    item.type_name()
                ));
            };
            out.push(if index > 0 { separator } else { "" })?;
            out.push(text)?;
        }
        Ok(out.finish())
    }

    /// The text filled up to a width: `center`, `ljust` or `rjust`.
    pub(in crate::template::jinja) fn pad(&self, text: &str, width: usize, fill: &str, name: &str) -> Result<Value> {
        let missing = width.saturating_sub(text.chars().count());
        let before = match name {
            "rjust" => missing,
            "ljust" => 0,
            // Python leans to the left where both are odd.
            _ => missing / 2 + (missing & width & 1),
        };
        let mut out = TextBuilder::new(&self.meter)?;
        out.repeat(fill, before)?;
        out.push(text)?;
        out.repeat(fill, missing - before)?;
        Ok(out.finish())
    }

    fn expand_tabs(&self, text: &str, size: usize) -> Result<Value> {
        let mut out = TextBuilder::new(&self.meter)?;
        let mut column = 0;
        for letter in text.chars() {
            match letter {
                '\t' if size > 0 => {
                    let spaces = size - column % size;
                    out.repeat(" ", spaces)?;
                    column += spaces;
                }
                '\t' => {}
                letter => {
                    out.push_char(letter)?;
                    column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
                }
            }
        }
        Ok(out.finish())
    }
}

/// `text.isdigit()` and the like.
fn is(text: &str, name: &str) -> bool {
    let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    match name {
        "isascii" => text.is_ascii(),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isnumeric" => all(char::is_numeric),
        "isdecimal" => all(|c| c.is_numeric() && decimal(c)),
        "isdigit" => all(|c| decimal(c) || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉' | '①'..='⑨')),
        "islower" => is_lower(text),
        "isupper" => is_upper(text),
        "isprintable" => text.chars().all(is_printable),
        "isidentifier" => {
            !text.is_empty()
                && text.chars().all(|c| c.is_alphanumeric() || c == '_')
                && !text.starts_with(|c: char| c.is_numeric())
        }
        "istitle" => text.chars().any(|c| c.is_alphabetic()) && titled(text) == text,
        _ => false,
    }
}

/// Whether a letter is a decimal digit of some script: those come in runs of ten.
fn decimal(letter: char) -> bool {
    letter.is_ascii_digit()
        || matches!(
            u32::from(letter),
            0x660..=0x669 | 0x6f0..=0x6f9 | 0x966..=0x96f | 0x9e6..=0x9ef | 0xe50..=0xe59 | 0xff10..=0xff19
        )
}
