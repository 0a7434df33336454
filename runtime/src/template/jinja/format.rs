//! Python's format specifications: numbers and texts with fill, alignment, sign, width and precision.

use super::fault::{Fault, Result};
use super::print;
use super::render::Renderer;
use super::text::letters;
use super::value::{TextBuilder, Value};

/// More decimals than a float has; what follows is zeros.
const MOST_DECIMALS: usize = 1100;

/// A parsed specification: `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) zero: bool,
    pub(super) width: usize,
    pub(super) grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Spec {
    /// Reads what stands behind the colon of a replacement field.
    pub(super) fn parse(text: &str) -> Result<Spec> {
        let invalid = || Fault::Failed("Invalid format specifier".to_owned());
        let all: Vec<char> = text.chars().take(1000).collect();
        let mut spec = Spec::default();
        let mut at = 0;
        let is_align = |c: Option<&char>| c.is_some_and(|c| "<>=^".contains(*c));
        if is_align(all.get(1)) {
            spec.fill = Some(all[0]);
            spec.align = Some(all[1]);
            at = 2;
        } else if is_align(all.first()) {
            spec.align = Some(all[0]);
            at = 1;
        }
        let one_of = |at: &mut usize, choice: &str| {
            let found = all.get(*at).copied().filter(|c| choice.contains(*c));
            *at += usize::from(found.is_some());
            found
        };
        spec.sign = one_of(&mut at, "+- ");
        one_of(&mut at, "z");
        spec.alternate = one_of(&mut at, "#").is_some();
        spec.zero = one_of(&mut at, "0").is_some();
        let number = |at: &mut usize| {
            let digits: String = all[*at..].iter().take_while(|c| c.is_ascii_digit()).collect();
            *at += digits.len();
            if digits.is_empty() {
                Ok(None)
            } else {
                digits.parse::<u32>().map(|n| Some(n as usize)).map_err(|_| too_wide())
            }
        };
        spec.width = number(&mut at)?.unwrap_or(0);
        spec.grouping = all.get(at).copied().filter(|c| *c == ',' || *c == '_');
        at += usize::from(spec.grouping.is_some());
        if all.get(at) == Some(&'.') {
            at += 1;
            spec.precision =
                Some(number(&mut at)?.ok_or_else(|| Fault::Failed("Format specifier missing precision".to_owned()))?);
        }
        spec.kind = all.get(at).copied();
        at += usize::from(spec.kind.is_some());
        if at < all.len() { Err(invalid()) } else { Ok(spec) }
    }
}

fn too_wide() -> Fault {
    Fault::Failed("Too many decimal digits in format string".to_owned())
}

impl Renderer {
    /// Writes a value by a specification, as `format(value, spec)` does.
    pub(super) fn write_format(&self, value: &Value, spec: &Spec, out: &mut TextBuilder) -> Result<()> {
        match value {
            Value::Str(text) => {
                if !matches!(spec.kind, None | Some('s')) {
                    return unknown_code(spec, value);
                }
                if spec.sign.is_some() {
                    return Fault::failed("Sign not allowed in string format specifier");
                }
                self.write_padded("", self.cut(text, spec.precision), spec, '<', out)
            }
            Value::Int(_) | Value::Bool(_) => {
                let number = value.as_int().unwrap_or(0);
                match spec.kind {
                    Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => self.write_float(number as f64, spec, out),
                    _ => self.write_int(number, spec, value, out),
                }
            }
            Value::Float(number) => self.write_float(*number, spec, out),
            other => {
                let mut text = TextBuilder::new(&self.meter)?;
                self.write_str(other, &mut text)?;
                if spec.kind.is_some() {
                    return Fault::failed(format!(
                        "unsupported format string passed to {}.__format__",
                        other.type_name()
                    ));
                }
                self.write_padded("", self.cut(text.as_str(), spec.precision), spec, '<', out)
            }
        }
    }

    fn cut<'a>(&self, text: &'a str, precision: Option<usize>) -> &'a str {
        precision.map_or(text, |most| letters(text, 0, most))
    }

    /// Writes sign and digits, filled up to the width.
    fn write_padded(
        &self,
        sign: &str,
        body: &str,
        spec: &Spec,
        default_align: char,
        out: &mut TextBuilder,
    ) -> Result<()> {
        self.meter.touch(body.len())?;
        let missing = spec.width.saturating_sub(sign.chars().count() + body.chars().count());
        let number = default_align == '>';
        let align = spec.align.unwrap_or(if spec.zero && number { '=' } else { default_align });
        let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
        let mut buffer = [0; 4];
        let fill: &str = fill.encode_utf8(&mut buffer);
        let (before, inner, after) = match align {
            '<' => (0, 0, missing),
            '^' => (missing / 2, 0, missing - missing / 2),
            '=' if number => (0, missing, 0),
            '=' => return Fault::failed("'=' alignment not allowed in string format specifier"),
            _ => (missing, 0, 0),
        };
        out.repeat(fill, before)?;
        out.push(sign)?;
        out.repeat(fill, inner)?;
        out.push(body)?;
        out.repeat(fill, after)
    }

    fn write_int(&self, number: i64, spec: &Spec, value: &Value, out: &mut TextBuilder) -> Result<()> {
        if spec.precision.is_some() {
            return Fault::failed("Precision not allowed in integer format specifier");
        }
        let magnitude = number.unsigned_abs();
        let (prefix, digits) = match spec.kind {
            None | Some('d' | 'n') => ("", magnitude.to_string()),
            Some('b') => ("0b", format!("{magnitude:b}")),
            Some('o') => ("0o", format!("{magnitude:o}")),
            Some('x') => ("0x", format!("{magnitude:x}")),
            Some('X') => ("0X", format!("{magnitude:X}")),
            Some('c') => {
                let letter = u32::try_from(number).ok().and_then(char::from_u32);
                let Some(letter) = letter else { return Fault::failed("%c arg not in range(0x110000)") };
                return self.write_padded("", letter.encode_utf8(&mut [0; 4]), spec, '<', out);
            }
            _ => return unknown_code(spec, value),
        };
        let sign = format!("{}{}", sign(number < 0, spec), if spec.alternate { prefix } else { "" });
        let group = if matches!(spec.kind, None | Some('d' | 'n')) { 3 } else { 4 };
        self.write_padded(&sign, &grouped(&digits, spec, group, sign.len()), spec, '>', out)
    }

    fn write_float(&self, number: f64, spec: &Spec, out: &mut TextBuilder) -> Result<()> {
        let magnitude = number.abs();
        let sign = sign(number.is_sign_negative() && !number.is_nan(), spec);
        let precision = spec.precision.unwrap_or(6);
        // Zeros that no float has are written apart, so that a large precision is counted like other text.
        let exact = precision.min(MOST_DECIMALS);
        let mut zeros = precision - exact;
        let mut body = match spec.kind {
            _ if !number.is_finite() => {
                zeros = 0;
                print::float(magnitude)
            }
            None if spec.precision.is_none() => print::float(magnitude),
            Some('f' | 'F') => format!("{magnitude:.exact$}"),
            Some('%') => format!("{:.exact$}", magnitude * 100.0),
            Some('e' | 'E') => exponential(magnitude, exact),
            None | Some('g' | 'G' | 'n') => {
                zeros = 0;
                general(magnitude, exact, spec.alternate, spec.kind.is_none())
            }
            _ => return unknown_code(spec, &Value::Float(number)),
        };
        if zeros > 0 {
            let _room = self.meter.hold(zeros)?;
            let exponent = body.find('e').unwrap_or(body.len());
            body.insert_str(exponent, &"0".repeat(zeros));
        }
        if matches!(spec.kind, Some('E' | 'F' | 'G')) {
            body = body.to_uppercase();
        }
        if spec.alternate && spec.precision == Some(0) && matches!(spec.kind, Some('f' | 'F')) {
            body.push('.');
        }
        if spec.grouping.is_some() {
            let whole = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
            body = grouped(&body[..whole], spec, 3, sign.len() + body.len() - whole) + &body[whole..];
        }
        if spec.kind == Some('%') {
            body.push('%');
        }
        self.write_padded(sign, &body, spec, '>', out)
    }
}

fn unknown_code(spec: &Spec, value: &Value) -> Result<()> {
    let code = spec.kind.unwrap_or(' ');
    Fault::failed(format!("Unknown format code '{code}' for object of type '{}'", value.type_name()))
}

fn sign(negative: bool, spec: &Spec) -> &'static str {
    match spec.sign {
        _ if negative => "-",
        Some('+') => "+",
        Some(' ') => " ",
        _ => "",
    }
}

/// Digits in groups; with zero fill, the fill is grouped too.
fn grouped(digits: &str, spec: &Spec, size: usize, beside: usize) -> String {
    let Some(separator) = spec.grouping else { return digits.to_owned() };
    let mut digits = digits.to_owned();
    if spec.zero && spec.align.is_none() {
        let width = spec.width.min(MOST_DECIMALS).saturating_sub(beside);
        // A group of digits takes one place more, but the first.
        while digits.len() + (digits.len().max(1) - 1) / size < width {
            digits.insert(0, '0');
        }
    }
    let mut result = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(size) {
            result.push(separator);
        }
        result.push(digit);
    }
    result
}

/// C's `%e`.
pub(super) fn exponential(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// C's `%g`; `whole` keeps a decimal, as Python does without a type.
pub(super) fn general(magnitude: f64, precision: usize, alternate: bool, whole: bool) -> String {
    let precision = precision.max(1);
    let scientific = exponential(magnitude, precision - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    // Without a type, one digit less is left for the plain form.
    let most = precision as i32 - i32::from(whole);
    let plain = (-4..most.max(if whole { 1 } else { 0 })).contains(&exponent);
    let text = match plain {
        true => format!("{magnitude:.*}", usize::try_from(precision as i32 - 1 - exponent).unwrap_or(0)),
        false => scientific,
    };
    if alternate {
        return text;
    }
    let (mantissa, rest) = match text.find('e') {
        Some(at) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    let trimmed = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let decimal = if whole && plain && !trimmed.contains('.') { ".0" } else { "" };
    format!("{trimmed}{decimal}{rest}")
}
