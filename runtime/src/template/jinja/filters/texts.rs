//! Filters of texts.

use crate::template::jinja::arguments::{Given, int, int_or, required, some, text, truth_or};
use crate::template::jinja::fault::{Fault, Result};
use crate::template::jinja::render::Renderer;
use crate::template::jinja::text::{is_line_end, is_space, letters, lines};
use crate::template::jinja::value::{Dict, Kind, Make, Text, TextBuilder, Value};

impl Renderer {
    pub(super) fn text_filter(&mut self, name: &str, value: Value, given: Given) -> Result<Value> {
        if name == "urlencode" {
            let [] = given.bind(name, [])?;
            return self.url_encoded(&value);
        }
        if name == "pprint" {
            let [] = given.bind(name, [])?;
            let mut out = TextBuilder::new(&self.meter)?;
            self.write_repr(&value, &mut out)?;
            // Python breaks longer lines; that is not done here, so they are refused.
            if out.as_str().len() > 80 {
                return Fault::failed("pprint is not supported for what is longer than a line; use tojson");
            }
            return Ok(out.finish());
        }
        let subject = self.as_text(&value)?;
        // Each letter is looked at, which takes longer than copying it.
        self.meter.touch(subject.len().saturating_mul(4))?;
        match name {
            "upper" | "lower" | "capitalize" => {
                let [] = given.bind(name, [])?;
                self.cased(&subject, name)
            }
            "title" => {
                let [] = given.bind(name, [])?;
                self.title(&subject)
            }
            "trim" => {
                let [set] = given.bind(name, ["chars"])?;
                self.strip(&subject, "strip", some(set))
            }
            "replace" => {
                let [old, new, count] = given.bind(name, ["old", "new", "count"])?;
                let (old, new) = (self.as_text(&required(old, name)?)?, self.as_text(&required(new, name)?)?);
                self.replace(&subject, &old, &new, int_or(some(count), -1, name)?)
            }
            "center" => {
                let [width] = given.bind(name, ["width"])?;
                let width = usize::try_from(int_or(width, 80, name)?).unwrap_or(0);
                self.pad(&subject, width, " ", name)
            }
            "format" => {
                if !given.positional.is_empty() && !given.named.is_empty() {
                    return Fault::failed("can't handle positional and keyword arguments at the same time");
                }
                if given.named.is_empty() {
                    let values = self.meter.list(Kind::Tuple, given.positional)?;
                    return self.percent(&subject, &values);
                }
                let mut dict = Dict::new(&self.meter)?;
                for (name, value) in given.named {
                    dict.insert(&self.meter, self.meter.str(&name)?, value)?;
                }
                self.percent(&subject, &dict.finish())
            }
            "indent" => {
                let [width, first, blank] = given.bind(name, ["width", "first", "blank"])?;
                self.indent(&subject, width, truth_or(first, false), truth_or(blank, false))
            }
            "truncate" => {
                let [length, kill, end, leeway] = given.bind(name, ["length", "killwords", "end", "leeway"])?;
                let end = end.map_or_else(|| self.meter.text("..."), |end| text(end, name))?;
                let length = usize::try_from(int_or(length, 255, name)?).unwrap_or(0);
                let leeway = usize::try_from(int_or(some(leeway), 5, name)?).unwrap_or(0);
                self.truncate(&subject, length, truth_or(kill, false), &end, leeway)
            }
            "wordcount" => {
                let [] = given.bind(name, [])?;
                let words = subject.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
                Ok(Value::Int(words.count() as i64))
            }
            "striptags" => Fault::failed("striptags is not supported: templates of chats are not HTML"),
            _ => {
                let [] = given.bind(name, [])?;
                let mut out = TextBuilder::new(&self.meter)?;
                for letter in subject.chars() {
                    match letter {
                        '&' => out.push("&amp;")?,
                        '<' => out.push("&lt;")?,
                        '>' => out.push("&gt;")?,
                        '"' => out.push("&#34;")?,
                        '\'' => out.push("&#39;")?,
                        other => out.push_char(other)?,
                    }
                }
                Ok(out.finish())
            }
        }
    }

    /// Jinja's `title`: what stands behind blanks, dashes and opening brackets begins large.
    fn title(&self, subject: &str) -> Result<Value> {
        let mut out = TextBuilder::new(&self.meter)?;
        let mut starts = true;
        for letter in subject.chars() {
            let between = is_space(letter) || "-({[<".contains(letter);
            let mut buffer = [0; 4];
            let one: &str = letter.encode_utf8(&mut buffer);
            match starts {
                _ if between => out.push(one)?,
                true => out.push(&one.to_uppercase())?,
                false => out.push(&one.to_lowercase())?,
            }
            starts = between;
        }
        Ok(out.finish())
    }

    fn indent(&self, subject: &Text, width: Option<Value>, first: bool, blank: bool) -> Result<Value> {
        let indentation = match width {
            Some(Value::Str(text)) => text,
            width => {
                let mut spaces = TextBuilder::new(&self.meter)?;
                let width = width.map_or(Ok(4), |width| int(&width, "indent"))?;
                spaces.repeat(" ", usize::try_from(width).unwrap_or(0))?;
                spaces.into_text()
            }
        };
        let _room = self.meter.hold(subject.chars().filter(|&c| is_line_end(c)).count() * 32)?;
        let mut all = lines(subject, false);
        // Jinja adds a line end first, so that a text that ends with one keeps an empty last line.
        if subject.is_empty() || subject.ends_with(is_line_end) {
            all.push("");
        }
        let mut out = TextBuilder::new(&self.meter)?;
        for (index, line) in all.into_iter().enumerate() {
            if index > 0 {
                out.push("\n")?;
            }
            if (index == 0 && first) || (index > 0 && (blank || !line.is_empty())) {
                out.push(&indentation)?;
            }
            out.push(line)?;
        }
        Ok(out.finish())
    }

    fn truncate(&self, subject: &Text, length: usize, kill: bool, end: &str, leeway: usize) -> Result<Value> {
        let end_length = end.chars().count();
        if length < end_length {
            return Fault::failed(format!("expected length >= {end_length}, got {length}"));
        }
        if subject.chars().count() <= length.saturating_add(leeway) {
            return Ok(Value::Str(subject.clone()));
        }
        let mut kept = letters(subject, 0, length - end_length);
        if !kill {
            kept = kept.rsplit_once(' ').map_or(kept, |(before, _)| before);
        }
        let mut out = TextBuilder::new(&self.meter)?;
        out.push(kept)?;
        out.push(end)?;
        Ok(out.finish())
    }

    fn url_encoded(&self, value: &Value) -> Result<Value> {
        let mut out = TextBuilder::new(&self.meter)?;
        match value {
            Value::Str(text) => percent_encoded(text, "/", &mut out)?,
            Value::Dict(_) | Value::List(_) | Value::Lazy(_) => {
                let pairs = match value {
                    Value::Dict(_) => self.items(value),
                    other => Ok(other.clone()),
                }?;
                for (index, pair) in self.iterate(&pairs)?.items.iter().enumerate() {
                    let pair = self.iterate(pair)?;
                    let [key, value] = pair.items.as_slice() else { return Fault::failed("urlencode needs pairs") };
                    out.push(if index > 0 { "&" } else { "" })?;
                    percent_encoded(&self.as_text(key)?, "", &mut out)?;
                    out.push("=")?;
                    percent_encoded(&self.as_text(value)?, "", &mut out)?;
                }
            }
            other => percent_encoded(&self.as_text(other)?, "/", &mut out)?,
        }
        Ok(out.finish())
    }
}

fn percent_encoded(text: &str, safe: &str, out: &mut TextBuilder) -> Result<()> {
    // In a query, a blank is a plus.
    let query = safe.is_empty();
    for byte in text.bytes() {
        match byte {
            b' ' if query => out.push("+")?,
            byte if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) || safe.as_bytes().contains(&byte) => {
                out.push_char(char::from(byte))?;
            }
            byte => out.push(&format!("%{byte:02X}"))?,
        }
    }
    Ok(())
}
