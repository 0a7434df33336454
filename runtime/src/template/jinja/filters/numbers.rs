//! Filters of numbers.

use crate::template::jinja::arguments::{Given, int_or, some, text, truth_or};
use crate::template::jinja::fault::{Fault, Result};
use crate::template::jinja::render::Renderer;
use crate::template::jinja::syntax::Binary;
use crate::template::jinja::value::{Make, Value};

impl Renderer {
    pub(super) fn number_filter(&mut self, name: &str, value: Value, given: Given) -> Result<Value> {
        // Texts are copied while they are read as numbers.
        self.meter.touch(value.as_str().map_or(0, str::len).saturating_mul(4))?;
        match name {
            "abs" => {
                let [] = given.bind(name, [])?;
                match &value {
                    Value::Undefined(reason) => Fault::failed(&**reason),
                    Value::Float(value) => Ok(Value::Float(value.abs())),
                    other => match other.as_int() {
                        Some(number) if number < 0 => self.negative(other),
                        Some(number) => Ok(Value::Int(number)),
                        None => Fault::failed(format!("bad operand type for abs(): '{}'", other.type_name())),
                    },
                }
            }
            "int" => {
                let [default, base] = given.bind(name, ["default", "base"])?;
                if let Value::Undefined(reason) = &value {
                    return Fault::failed(&**reason);
                }
                let found = to_int(&value, int_or(base, 10, name)?);
                Ok(found.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int))
            }
            "float" => {
                let [default] = given.bind(name, ["default"])?;
                if let Value::Undefined(reason) = &value {
                    return Fault::failed(&**reason);
                }
                let found = value.as_float().or_else(|| value.as_str().and_then(parse_float));
                Ok(found.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "round" => {
                let [precision, method] = given.bind(name, ["precision", "method"])?;
                let precision = int_or(precision, 0, name)?;
                let method = method.map(|method| text(method, name)).transpose()?;
                round(&value, precision, method.as_deref().unwrap_or("common"))
            }
            "sum" => {
                let [attribute, start] = given.bind(name, ["attribute", "start"])?;
                let path = some(attribute);
                let mut sum = start.unwrap_or(Value::Int(0));
                for item in &self.iterate(&value)?.items {
                    sum = self.binary(Binary::Add, &sum, &self.by_path(item, &path, &None)?)?;
                }
                Ok(sum)
            }
            "max" | "min" => {
                let [case, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
                let items = self.iterate(&value)?;
                let keyed = self.keyed(&items.items, &some(attribute), &None, truth_or(case, false))?;
                let wanted = if name == "max" { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
                let mut best: Option<(Value, Value)> = None;
                for (key, item) in keyed {
                    let better = match &best {
                        Some((best, _)) => {
                            self.order(&key, best, if name == "max" { ">" } else { "<" })? == Some(wanted)
                        }
                        None => true,
                    };
                    if better {
                        best = Some((key, item));
                    }
                }
                match best {
                    Some((_, item)) => Ok(item),
                    None => self.meter.undefined("No aggregated item, sequence was empty."),
                }
            }
            _ => {
                let [binary] = given.bind(name, ["binary"])?;
                let found = value.as_float().or_else(|| value.as_str().and_then(parse_float));
                let Some(bytes) = found else { return Fault::failed("filesizeformat needs a number") };
                self.meter.str(&file_size(bytes, truth_or(binary, false)))
            }
        }
    }
}

fn to_int(value: &Value, base: i64) -> Option<i64> {
    match value {
        Value::Float(number) => (number.is_finite() && number.abs() < 9.2e18).then_some(*number as i64),
        Value::Str(text) => {
            let text = text.trim();
            let (negative, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, text.strip_prefix('+').unwrap_or(text)),
            };
            let lower = digits.to_ascii_lowercase();
            let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
            let prefixed = prefixes.iter().find(|(prefix, of)| lower.starts_with(prefix) && (base == *of || base == 0));
            let (digits, base) = match prefixed {
                Some((prefix, of)) => (&lower[prefix.len()..], *of),
                None => (lower.as_str(), if base == 0 { 10 } else { base }),
            };
            let whole = (2..=36).contains(&base) && !digits.starts_with(['-', '+', '_']) && !digits.ends_with('_');
            let parsed = whole.then(|| i64::from_str_radix(&digits.replace('_', ""), base as u32).ok()).flatten();
            match parsed {
                Some(number) => Some(if negative { -number } else { number }),
                // Python tries the text as a float then.
                None => parse_float(text).filter(|f| f.is_finite() && f.abs() < 9.2e18).map(|f| f as i64),
            }
        }
        other => other.as_int(),
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = text.replace('_', "");
    let bad = text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if bad { None } else { plain.parse().ok() }
}

/// Python's `round` to decimals, or up or down.
fn round(value: &Value, precision: i64, method: &str) -> Result<Value> {
    if let Value::Undefined(reason) = value {
        return Fault::failed(&**reason);
    }
    let Some(number) = value.as_float() else {
        return Fault::failed(format!("type {} doesn't define __round__ method", value.type_name()));
    };
    if !["common", "ceil", "floor"].contains(&method) {
        return Fault::failed("method must be common, ceil or floor");
    }
    if method == "common" {
        if let Some(number) = value.as_int() {
            if precision >= 0 {
                return Ok(Value::Int(number));
            }
            let unit = u32::try_from(-precision).ok().and_then(|p| 10_i64.checked_pow(p));
            let Some(unit) = unit else { return Ok(Value::Int(0)) };
            // Halves go to the even multiple.
            let (low, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
            let up = rest * 2 > unit || (rest * 2 == unit && low % 2 != 0);
            return Ok(Value::Int((low + i64::from(up)).saturating_mul(unit)));
        }
        if !number.is_finite() || precision > 320 {
            return Ok(Value::Float(number));
        }
        return Ok(Value::Float(if precision >= 0 {
            // Written with exact digits, halves of decimals are what the float really is.
            format!("{number:.*}", precision as usize).parse().unwrap_or(number)
        } else {
            let unit = 10_f64.powi(i32::try_from(-precision).unwrap_or(i32::MAX).min(400));
            if unit.is_finite() { (number / unit).round_ties_even() * unit } else { 0.0 }
        }));
    }
    let unit = 10_f64.powi(i32::try_from(precision).unwrap_or(400).clamp(-400, 400));
    let scaled = number * unit;
    Ok(Value::Float(if method == "ceil" { scaled.ceil() } else { scaled.floor() } / unit))
}

/// Bytes for people, as Jinja writes them.
fn file_size(bytes: f64, binary: bool) -> String {
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if bytes == 1.0 {
        return "1 Byte".to_owned();
    }
    if bytes < base {
        return format!("{} Bytes", bytes as i64);
    }
    let units = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let index = (1..units.len()).take_while(|&i| bytes >= base.powi(i as i32 + 1)).count();
    let unit = if binary { format!("{}iB", units[index].to_uppercase()) } else { format!("{}B", units[index]) };
    format!("{:.1} {unit}", bytes / base.powi(index as i32 + 1))
}
