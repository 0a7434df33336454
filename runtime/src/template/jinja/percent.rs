//! Texts with places for values: Python's `%` and `str.format`.

use std::sync::Arc;

use super::arguments::Given;
use super::fault::{Fault, Result};
use super::format::Spec;
use super::print::quoted;
use super::render::Renderer;
use super::value::{Kind, TextBuilder, Value};

impl Renderer {
    /// `format % values`.
    pub(super) fn percent(&self, format: &str, values: &Value) -> Result<Value> {
        self.meter.touch(format.len())?;
        let alone = std::slice::from_ref(values);
        let items = match values {
            Value::List(list) if list.kind != Kind::List => list.items.as_slice(),
            _ => alone,
        };
        let mut next = items.iter();
        let mut out = TextBuilder::new(&self.meter)?;
        let mut rest = format;
        let mut by_name = false;
        while let Some(at) = rest.find('%') {
            out.push(&rest[..at])?;
            rest = &rest[at + 1..];
            self.meter.step()?;
            let mut chosen = None;
            if let Some(named) = rest.strip_prefix('(') {
                let Some(end) = named.find(')') else { return Fault::failed("incomplete format key") };
                let Value::Dict(dict) = values else { return Fault::failed("format requires a mapping") };
                let name = &named[..end];
                self.meter.touch(name.len())?;
                let Some(value) = dict.get(name) else { return Fault::failed(format!("KeyError: '{name}'")) };
                chosen = Some(value.clone());
                by_name = true;
                rest = &named[end + 1..];
            }
            let mut spec = Spec::default();
            let mut left = false;
            while let Some(flag) = rest.chars().next().filter(|c| "-+ 0#".contains(*c)) {
                match flag {
                    '-' => left = true,
                    '0' => spec.zero = true,
                    '#' => spec.alternate = true,
                    '+' => spec.sign = Some('+'),
                    _ => spec.sign = spec.sign.or(Some(' ')),
                }
                rest = &rest[1..];
            }
            let mut star = |rest: &mut &str| -> Result<Option<i64>> {
                if let Some(after) = rest.strip_prefix('*') {
                    *rest = after;
                    return match next.next().map(Value::as_int) {
                        Some(Some(number)) => Ok(Some(number)),
                        Some(None) => Fault::failed("* wants int"),
                        None => Fault::failed("not enough arguments for format string"),
                    };
                }
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let (digits, after) = rest.split_at(end);
                *rest = after;
                if digits.is_empty() {
                    return Ok(None);
                }
                digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| Fault::Failed("width too big".to_owned()))
            };
            if let Some(width) = star(&mut rest)? {
                left |= width < 0;
                spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
            }
            if let Some(after) = rest.strip_prefix('.') {
                rest = after;
                spec.precision = Some(usize::try_from(star(&mut rest)?.unwrap_or(0)).unwrap_or(0));
            }
            rest = rest.trim_start_matches(['h', 'l', 'L']);
            let Some(kind) = rest.chars().next() else { return Fault::failed("incomplete format") };
            rest = &rest[kind.len_utf8()..];
            if left {
                spec.align = Some('<');
                spec.zero = false;
            }
            if kind == '%' {
                out.push("%")?;
                continue;
            }
            let value = match chosen {
                Some(value) => value,
                None => match next.next() {
                    Some(value) => value.clone(),
                    None => return Fault::failed("not enough arguments for format string"),
                },
            };
            self.write_conversion(&value, kind, spec, &mut out)?;
        }
        out.push(rest)?;
        let is_mapping = matches!(values, Value::Dict(_));
        if next.next().is_some() && !by_name && !is_mapping {
            return Fault::failed("not all arguments converted during string formatting");
        }
        Ok(out.finish())
    }

    fn write_conversion(&self, value: &Value, kind: char, mut spec: Spec, out: &mut TextBuilder) -> Result<()> {
        let number =
            |what: &str| Fault::failed(format!("%{kind} format: {what} is required, not {}", value.type_name()));
        match kind {
            's' | 'r' | 'a' => {
                let mut text = TextBuilder::new(&self.meter)?;
                if kind == 's' {
                    self.write_str(value, &mut text)?
                } else {
                    self.write_repr(value, &mut text)?
                }
                // Signs and zeros mean nothing for texts.
                spec.sign = None;
                spec.zero = false;
                spec.align = spec.align.or(Some('>'));
                self.write_format(&text.finish(), &spec, out)
            }
            'c' => {
                let letter = match value {
                    Value::Str(text) if text.chars().count() == 1 => text.chars().next(),
                    other => other.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32),
                };
                let Some(letter) = letter else { return Fault::failed("%c requires int or char") };
                spec.align = spec.align.or(Some('>'));
                let mut text = TextBuilder::new(&self.meter)?;
                text.push_char(letter)?;
                self.write_format(&text.finish(), &Spec { precision: None, zero: false, sign: None, ..spec }, out)
            }
            'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
                let whole = match value {
                    Value::Float(float) if matches!(kind, 'd' | 'i' | 'u') && float.is_finite() => {
                        Some(float.trunc() as i64)
                    }
                    other => other.as_int(),
                };
                let Some(whole) = whole else {
                    return number(if matches!(kind, 'd' | 'i' | 'u') { "a real number" } else { "an integer" });
                };
                let precision = spec.precision.take();
                spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
                match precision {
                    // Digits up to the precision, then blanks up to the width.
                    Some(digits) => {
                        let signs = usize::from(whole < 0 || spec.sign.is_some());
                        let inner =
                            Spec { width: digits.saturating_add(signs), zero: true, align: None, ..spec.clone() };
                        let mut text = TextBuilder::new(&self.meter)?;
                        self.write_format(&Value::Int(whole), &inner, &mut text)?;
                        let outer = Spec { width: spec.width, align: spec.align.or(Some('>')), ..Spec::default() };
                        self.write_format(&text.finish(), &outer, out)
                    }
                    None => self.write_format(&Value::Int(whole), &spec, out),
                }
            }
            'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
                let Some(float) = value.as_float() else {
                    return Fault::failed(format!("must be real number, not {}", value.type_name()));
                };
                spec.kind = Some(kind);
                self.write_format(&Value::Float(float), &spec, out)
            }
            other => Fault::failed(format!("unsupported format character '{other}'")),
        }
    }

    /// `text.format(…)`.
    pub(super) fn format_text(&self, text: &str, given: &Given) -> Result<Value> {
        let mut out = TextBuilder::new(&self.meter)?;
        let mut automatic = 0;
        self.write_fields(text, given, &mut automatic, 0, &mut out)?;
        Ok(out.finish())
    }

    fn write_fields(
        &self,
        text: &str,
        given: &Given,
        automatic: &mut usize,
        level: usize,
        out: &mut TextBuilder,
    ) -> Result<()> {
        self.meter.touch(text.len())?;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            // Each field may look through all names.
            self.meter.steps(1 + given.named.len() as u64)?;
            out.push(&rest[..at])?;
            let bracket = &rest[at..at + 1];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(bracket) {
                out.push(bracket)?;
                rest = after;
                continue;
            }
            if bracket == "}" {
                return Fault::failed("Single '}' encountered in format string");
            }
            let Some(end) = field_end(rest) else { return Fault::failed("expected '}' before end of string") };
            self.write_field(&rest[..end], given, automatic, level, out)?;
            rest = &rest[end + 1..];
        }
        out.push(rest)
    }

    fn write_field(
        &self,
        field: &str,
        given: &Given,
        automatic: &mut usize,
        level: usize,
        out: &mut TextBuilder,
    ) -> Result<()> {
        if level > 1 {
            return Fault::failed("Max string recursion exceeded");
        }
        let brackets = field.find('[').map_or(0, |open| field[open..].rfind(']').map_or(0, |close| open + close));
        let end = field
            .char_indices()
            .find(|(i, c)| *i >= brackets && matches!(c, ':' | '!'))
            .map_or(field.len(), |(i, _)| i);
        let (name, rest) = field.split_at(end);
        let (conversion, spec) = match rest.strip_prefix('!') {
            Some(after) => {
                let mut letters = after.chars();
                let conversion = letters.next();
                (conversion, letters.as_str().strip_prefix(':').unwrap_or(""))
            }
            None => (None, rest.strip_prefix(':').unwrap_or("")),
        };
        let mut value = self.field_value(name, given, automatic)?;
        let mut converted = TextBuilder::new(&self.meter)?;
        match conversion {
            None => {}
            Some('s') => {
                self.write_str(&value, &mut converted)?;
                value = converted.finish();
            }
            Some('r' | 'a') => {
                self.write_repr(&value, &mut converted)?;
                value = converted.finish();
            }
            Some(other) => return Fault::failed(format!("Unknown conversion specifier '{other}'")),
        }
        let mut written = TextBuilder::new(&self.meter)?;
        self.write_fields(spec, given, automatic, level + 1, &mut written)?;
        if written.as_str().is_empty() {
            return self.write_str(&value, out);
        }
        self.write_format(&value, &Spec::parse(written.as_str())?, out)
    }

    fn field_value(&self, name: &str, given: &Given, automatic: &mut usize) -> Result<Value> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut rest) = name.split_at(end);
        let by_place = |place: usize| match given.positional.get(place) {
            Some(value) => Ok(value.clone()),
            None => Fault::failed(format!("Replacement index {place} out of range for positional args tuple")),
        };
        let mut value = if first.is_empty() {
            *automatic += 1;
            by_place(*automatic - 1)?
        } else if let Ok(place) = first.parse() {
            by_place(place)?
        } else {
            match given.named.iter().find(|(known, _)| &**known == first) {
                Some((_, value)) => value.clone(),
                None => {
                    let mut out = TextBuilder::new(&self.meter)?;
                    quoted(first, &mut out)?;
                    return Fault::failed(format!("KeyError: {}", super::fault::brief(out.as_str())));
                }
            }
        };
        while !rest.is_empty() {
            let after = &rest[1..];
            let close = if rest.starts_with('[') { after.find(']') } else { None };
            let end = close.or_else(|| after.find(['.', '['])).unwrap_or(after.len());
            let part = &after[..end];
            if part.len() > 256 {
                return Fault::failed("a name in a format string is longer than 256 bytes");
            }
            value = match part.parse::<i64>() {
                Ok(index) if close.is_some() => self.item(&value, &Value::Int(index))?,
                _ => self.attribute(&value, &Arc::from(part))?,
            };
            rest = &after[end + usize::from(close.is_some())..];
        }
        Ok(value)
    }
}

/// Where a replacement field ends, fields within it left aside.
fn field_end(text: &str) -> Option<usize> {
    let mut level = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => level += 1,
            '}' if level == 0 => return Some(at),
            '}' => level -= 1,
            _ => {}
        }
    }
    None
}
